"""Packets of 128-bit beats taken apart into headers, words before the rows, and rows."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Beat, BlockEntry, PrefixWord
from hw.kv.packet.header import HeaderCheck
from spec.kv_config import KvEngineConfig

__all__ = ["PacketParser"]

WORD = 64


class PacketParser(wiring.Component):
    """Splits packets into three streams, in order, and resynchronizes at every TLAST.

    One entry per packet on ``blocks``. A good header is followed by its words on ``words`` and by the packet's beats
    from the rows on, padding included, on ``rows``. Beats hold two words: the first beat of the rows may begin with a
    word that went to ``words`` (``odd`` in the entry). A bad header's packet is drained here (``bare``); a packet that
    ends within the words has ``cut`` on its last word and no rows.

    Throughput: a beat per cycle in the rows, half a beat before them. No storage.

    Parameters
    ----------
    config : KvEngineConfig
        What headers may say.

    Members
    -------
    i : stream of Beat(128), In
    blocks : stream of BlockEntry, Out
    words : stream of PrefixWord, Out
    rows : stream of Beat(128), Out
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        beat = stream.Signature(Beat(2 * WORD))
        super().__init__(
            {
                "i": In(beat),
                "blocks": Out(stream.Signature(BlockEntry)),
                "words": Out(stream.Signature(PrefixWord)),
                "rows": Out(beat),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat, entry = self.i.payload, self.blocks.payload
        upper = Signal()  # the beat's lower word has been taken
        take = Signal()
        end = Signal()
        m.submodules.check = check = HeaderCheck(self.config)
        m.d.comb += [
            # A header is the lower word of its beat.
            check.header.eq(beat.data[:WORD]),
            entry.header.eq(beat.data[:WORD]),
            entry.error.eq(check.error),
            entry.bare.eq(check.error != 0),
            entry.odd.eq(~check.words[0]),
            end.eq(beat.last & upper),
            self.words.payload.data.eq(Mux(upper, beat.data[WORD:], beat.data[:WORD])),
            self.words.payload.cut.eq(end),
            self.rows.payload.eq(beat),
        ]
        # A lower word alone leaves its beat in place: for the upper one, or for the rows.
        m.d.sync += upper.eq(Mux(self.i.valid & self.i.ready, 0, upper | take))
        with m.If(take & upper):
            m.d.comb += self.i.ready.eq(1)
        left = Signal(7)
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += self.blocks.valid.eq(self.i.valid)
                m.d.sync += left.eq(check.words)
                with m.If(self.i.valid & self.blocks.ready):
                    m.d.comb += take.eq(1)
                    m.next = "WORDS"
                    with m.If(check.error != 0):
                        m.next = "DRAIN"
            with m.State("WORDS"):
                m.d.comb += self.words.valid.eq(self.i.valid)
                with m.If(self.i.valid & self.words.ready):
                    m.d.comb += take.eq(1)
                    m.d.sync += left.eq(left - 1)
                    with m.If(end):
                        m.next = "HEADER"
                    with m.Elif(left == 1):
                        m.next = "ROWS"
            with m.State("ROWS"):
                m.d.comb += [self.rows.valid.eq(self.i.valid), self.i.ready.eq(self.rows.ready)]
                with m.If(self.i.valid & self.rows.ready & beat.last):
                    m.next = "HEADER"
            with m.State("DRAIN"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & beat.last):
                    m.next = "HEADER"
        return m

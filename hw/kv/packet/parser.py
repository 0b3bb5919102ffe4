"""The front of the KV dequant engine: packets taken apart into headers, words before the rows, and rows."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Beat, BlockEntry, PrefixWord
from hw.kv.packet.header import HeaderCheck
from spec.kv_config import KvEngineConfig, KvError

__all__ = ["PacketParser"]

WORD = 64


class PacketParser(wiring.Component):
    """Splits packets into three streams, in order, and resynchronizes at every TLAST.

    One entry per packet on ``blocks``. A good header is followed by its words on ``words`` and by the packet's beats
    from the rows on, padding included, on ``rows``. With 32 lanes, whose beats hold two words, the first beat of the
    rows may begin with a word that went to ``words`` (``odd`` in the entry). A bad header's packet is drained here
    (``bare``); a packet that ends within the words has ``cut`` on its last word and no rows.

    Throughput: a beat per cycle, with 32 lanes half a beat outside the rows. No storage but for 4 and 8 lanes, where a
    word spans 4 or 2 beats.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    i : stream of Beat(4 * lanes), In
    blocks : stream of BlockEntry, Out
    words : stream of PrefixWord, Out
    rows : stream of Beat(4 * lanes), Out
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        width = config.input_bits
        super().__init__(
            {
                "i": In(stream.Signature(Beat(width))),
                "blocks": Out(stream.Signature(BlockEntry)),
                "words": Out(stream.Signature(PrefixWord)),
                "rows": Out(stream.Signature(Beat(width))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat = self.i.payload
        wanted = Signal()
        word, here, end, torn, take = self._words(m, wanted)

        m.submodules.check = check = HeaderCheck(self.config)
        entry = self.blocks.payload
        error = Mux(torn, KvError.SHORT, check.error)
        m.d.comb += [
            check.header.eq(word),
            entry.header.eq(word),
            # A packet that ends with its header is short, unless the header says nothing at all.
            entry.error.eq(Mux(end & (error == 0), KvError.SHORT, error)),
            entry.bare.eq(end | (error != 0)),
            entry.odd.eq(~check.words[0]),
            self.words.payload.data.eq(word),
            self.words.payload.cut.eq(end),
            self.rows.payload.eq(beat),
        ]
        left = Signal(7)
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += [wanted.eq(1), self.blocks.valid.eq(here)]
                m.d.sync += left.eq(check.words)
                with m.If(here & self.blocks.ready):
                    m.d.comb += take.eq(1)
                    with m.If(~end):
                        m.next = "WORDS"
                        with m.If(error != 0):
                            m.next = "DRAIN"
            with m.State("WORDS"):
                m.d.comb += [wanted.eq(1), self.words.valid.eq(here)]
                with m.If(here & self.words.ready):
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

    def _words(self, m, wanted):
        """The input as words: (word, one is here, the packet ends with it, it is not whole, take it)."""
        width = self.config.input_bits
        beat, take = self.i.payload, Signal()
        if width > WORD:
            upper = Signal()
            here, end = self.i.valid, beat.last & upper
            word = Mux(upper, beat.data[WORD:], beat.data[:WORD])
            # A lower word alone leaves its beat in place: for the upper one, or for the rows.
            m.d.sync += upper.eq(Mux(self.i.valid & self.i.ready, 0, upper | take))
            with m.If(take & upper):
                m.d.comb += self.i.ready.eq(1)
            return word, here, end, 0, take
        if width == WORD:
            with m.If(take):
                m.d.comb += self.i.ready.eq(1)
            return beat.data, self.i.valid, beat.last, 0, take
        parts = WORD // width
        early = Signal(WORD - width, reset_less=True)
        filled = Signal(range(parts))
        full = filled == parts - 1
        here = self.i.valid & (full | beat.last)
        collect = Signal()
        m.d.comb += collect.eq(wanted & self.i.valid & ~here)
        with m.If(take | collect):
            m.d.comb += self.i.ready.eq(1)
        with m.If(take):
            m.d.sync += filled.eq(0)
        with m.Elif(collect):
            m.d.sync += [filled.eq(filled + 1), early.eq(Cat(early, beat.data)[width:])]
        return Cat(early, beat.data), here, beat.last, beat.last & ~full, take

"""The front of both cores: packets and runs of exact tokens to entries, words before the rows, and rows."""

from functools import reduce
from operator import xor

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import PacketBeat, PacketEntry
from hw.kv.layouts import ERROR_BITS, Beat, Header, PrefixWord
from hw.kv.packet.header import HeaderRules, has_minima
from spec.attention import BUS_BYTES, AttentionConfig
from spec.kv_block import HEADER_CHECK
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvMetadata

__all__ = ["HeaderCheck", "PacketFront"]

WORD = 64


class HeaderCheck(wiring.Component):
    """Judges a whole header, its check included; combinational.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    header : Header, In
    error : Out
        :class:`KvError` code, 0 for a header that this build can serve; the lowest of several.
    words : Out
        64-bit words of mask, bitmap and metadata; right only without an error.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__({"header": In(Header), "error": Out(ERROR_BITS), "words": Out(7)})

    def elaborate(self, platform):
        m = Module()
        header = self.header
        size0, size = header.segment0, header.channels  # in groups of 8, minus 1
        m.submodules.rules = rules = HeaderRules(self.config)
        checked = reduce(xor, [header.as_value()[k : k + 4] for k in range(0, 64, 4)])
        m.d.comb += [
            rules.header.eq(header),
            self.error.eq(Mux(checked == HEADER_CHECK, rules.error, KvError.HEADER)),
        ]

        # Metadata in units of 16 bits: 8 channels take 3, 4 or 8 for the scales, 8 for the minima.
        groups, groups0 = size + 1, size0 + 1
        scales = Signal(8)
        with m.Switch(header.metadata):
            with m.Case(KvMetadata.FP16):
                m.d.comb += scales.eq(groups << 3)
            with m.Case(KvMetadata.Q8):
                m.d.comb += scales.eq(groups << 2)
            with m.Default():
                m.d.comb += scales.eq((groups << 2) - groups)
        m.d.comb += self.words.eq(
            (scales + 3)[2:]
            + Mux(has_minima(self.config, header), groups0 << 1, 0)
            + header.span
            + Mux(size0 != size, 1 + size[3], 0)
        )
        return m


class PacketFront(wiring.Component):
    """Splits packets into three streams, in order, and resynchronizes at every TLAST.

    One entry per packet. A good header is followed by its words on ``words`` and by the packet's beats from the rows
    on, padding included, on ``rows``; a run of exact tokens has no words. Beats hold two words: the first beat of the
    rows may begin with a word that went to ``words`` (``odd`` in the entry). A bad header's packet is drained here
    (``bare``); a packet that ends within the words has ``cut`` on its last word and no rows.

    Throughput: a beat per cycle in the rows, half a beat before them. No storage.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    i : stream of PacketBeat, In
    entries : stream of PacketEntry, Out
    words : stream of PrefixWord, Out
    rows : stream of Beat(128), Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(PacketBeat)),
                "entries": Out(stream.Signature(PacketEntry)),
                "words": Out(stream.Signature(PrefixWord)),
                "rows": Out(stream.Signature(Beat(8 * BUS_BYTES))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat, entry = self.i.payload, self.entries.payload
        upper = Signal()  # the beat's lower word has been taken
        take = Signal()
        end = Signal()
        m.submodules.check = check = HeaderCheck(self.config.parser)
        m.d.comb += [
            # A header is the lower word of its beat.
            check.header.eq(beat.data[:WORD]),
            entry.header.eq(beat.data[:WORD]),
            entry.error.eq(check.error),
            entry.bare.eq(check.error != 0),
            entry.odd.eq(~check.words[0]),
            entry.exact.eq(beat.exact),
            entry.final.eq(beat.final),
            end.eq(beat.last & upper),
            self.words.payload.data.eq(Mux(upper, beat.data[WORD:], beat.data[:WORD])),
            self.words.payload.cut.eq(end),
            self.rows.payload.data.eq(beat.data),
            self.rows.payload.last.eq(beat.last),
        ]
        # A lower word alone leaves its beat in place: for the upper one, or for the rows.
        m.d.sync += upper.eq(Mux(self.i.valid & self.i.ready, 0, upper | take))
        with m.If(take & upper):
            m.d.comb += self.i.ready.eq(1)
        left = Signal(7)
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += self.entries.valid.eq(self.i.valid)
                m.d.sync += left.eq(check.words)
                with m.If(self.i.valid & self.entries.ready):
                    m.next = "ROWS"
                    with m.If(~beat.exact):
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

"""The front of both cores: packets and runs of exact tokens to entries, words before the rows, and rows."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import PacketBeat, PacketEntry
from hw.kv.layouts import Beat, PrefixWord
from hw.kv.packet.parser import PacketParser
from spec.attention import BUS_BYTES, AttentionConfig

__all__ = ["PacketFront"]


class PacketFront(wiring.Component):
    """The KV engine's parser for blocks; runs of exact tokens pass it by, as one entry and rows.

    Throughput: a beat per cycle in the rows, half a beat before them.

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
        m.submodules.parser = parser = PacketParser(self.config.parser)
        i, entry, rows = self.i.payload, self.entries.payload, self.rows.payload
        block = parser.blocks.payload
        m.d.comb += [
            parser.i.payload.data.eq(i.data),
            parser.i.payload.last.eq(i.last),
            *(entry[name].eq(block[name]) for name in ("header", "error", "bare", "odd")),
            entry.final.eq(i.final),
            parser.blocks.ready.eq(self.entries.ready),
            self.words.payload.eq(parser.words.payload),
            self.words.valid.eq(parser.words.valid),
            parser.words.ready.eq(self.words.ready),
            rows.data.eq(i.data),
            rows.last.eq(i.last),
            parser.rows.ready.eq(self.rows.ready),
        ]
        with m.FSM():
            with m.State("BLOCK"):
                with m.If(i.exact):
                    m.d.comb += [self.entries.valid.eq(self.i.valid), entry.exact.eq(1)]
                    m.d.comb += [entry.error.eq(0), entry.bare.eq(0), entry.odd.eq(0)]
                    with m.If(self.i.valid & self.entries.ready):
                        m.next = "RUN"
                with m.Else():
                    m.d.comb += [
                        parser.i.valid.eq(self.i.valid),
                        self.i.ready.eq(parser.i.ready),
                        self.entries.valid.eq(parser.blocks.valid),
                        self.rows.valid.eq(parser.rows.valid),
                    ]
            with m.State("RUN"):
                m.d.comb += [self.rows.valid.eq(self.i.valid), self.i.ready.eq(self.rows.ready)]
                with m.If(self.i.valid & self.rows.ready & i.last):
                    m.next = "BLOCK"
        return m

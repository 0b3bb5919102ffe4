"""A query as it comes over a bus, taken apart: its layout, then its elements."""

from amaranth import C, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import Layout, QueryElement
from spec.attention import QUERY_HEADER, QUERY_WORD_BITS
from spec.kv_block import MAX_HEAD_DIM

__all__ = ["QueryUnpacker", "QueryWord"]

ELEMENTS = QUERY_WORD_BITS // 16
MASK_WORDS = MAX_HEAD_DIM // QUERY_WORD_BITS
IMPOSSIBLE = 3
"""The reserved transform: `QueryUnit` refuses a layout with it."""


class QueryWord(data.Struct):
    """A beat of a query packet."""

    data: QUERY_WORD_BITS
    last: 1


class QueryUnpacker(wiring.Component):
    """Query packets (docs/attention.md, section 11) to layouts and elements, one element per cycle.

    What is wrong with a packet becomes wrong for `QueryUnit`, which marks the query's scores: reserved bits become a
    layout that cannot be, an end within header or mask a query of one element.

    Members
    -------
    i : stream of QueryWord, In
    layout : stream of Layout, Out
    o : stream of QueryElement, Out
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(QueryWord)),
                "layout": Out(stream.Signature(Layout)),
                "o": Out(stream.Signature(QueryElement)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word, element = self.i.payload, self.o.payload
        layout = self.layout.payload
        used = max(field.offset + field.width for field in QUERY_HEADER)
        held = Signal(Layout, reset_less=True)
        cut = Signal()
        place = Signal(range(max(ELEMENTS, MASK_WORDS)))
        m.d.comb += layout.eq(held)
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [place.eq(0), cut.eq(word.last)]
                m.d.sync += [held[f.name].eq(word.data[f.offset : f.offset + f.width]) for f in QUERY_HEADER]
                with m.If(word.data[used:].any()):
                    m.d.sync += held.transform0.eq(IMPOSSIBLE)
                with m.If(self.i.valid):
                    m.next = "MASK"
                    with m.If(word.last):
                        m.next = "LAYOUT"
            with m.State("MASK"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [held.mask.word_select(place, QUERY_WORD_BITS).eq(word.data), place.eq(place + 1)]
                    m.d.sync += cut.eq(word.last)
                    with m.If((place == MASK_WORDS - 1) | word.last):
                        m.next = "LAYOUT"
            with m.State("LAYOUT"):
                m.d.comb += self.layout.valid.eq(1)
                m.d.sync += place.eq(0)
                with m.If(self.layout.ready):
                    m.next = "ELEMENTS"
            with m.State("ELEMENTS"):
                end = place == ELEMENTS - 1
                m.d.comb += [
                    self.o.valid.eq(self.i.valid | cut),
                    element.value.eq(Mux(cut, C(0, 16), word.data.word_select(place[: ELEMENTS.bit_length() - 1], 16))),
                    element.last.eq(cut | (word.last & end)),
                    self.i.ready.eq(self.o.ready & end & ~cut),
                ]
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += place.eq(Mux(end, 0, place + 1))
                    with m.If(element.last):
                        m.next = "HEADER"
        return m

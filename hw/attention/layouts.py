"""Payloads of the attention cores' streams, and what their parts tell each other."""

from amaranth import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP32, UNIT_BITS
from hw.kv.layouts import ERROR_BITS, Header
from spec.attention import BUS_BYTES, AttentionConfig
from spec.kv_block import MAX_HEAD_DIM

__all__ = [
    "WEIGHT_EXPONENT_BITS",
    "HeldQuery",
    "Job",
    "Layout",
    "PacketBeat",
    "PacketEntry",
    "QueryElement",
    "RowsJob",
    "Score",
    "SumsJob",
    "Weight",
]


WEIGHT_EXPONENT_BITS = 7
"""Bits of l and L: at most 30 + 30 + 12."""


class PacketBeat(data.Struct):
    """A beat of a packet: a block, or (``exact``) a run of slots; ``final``: the list's last packet. Both hold for
    all beats of a packet."""

    data: 8 * BUS_BYTES
    last: 1
    exact: 1
    final: 1


class PacketEntry(data.Struct):
    """A packet that has begun: as :class:`hw.kv.layouts.BlockEntry`; of a run, ``exact`` and ``final`` alone count."""

    header: Header
    error: ERROR_BITS
    bare: 1
    odd: 1
    exact: 1
    final: 1


class Layout(data.Struct):
    """What the query is transformed for: header codes and mask of the key blocks that follow."""

    mask: MAX_HEAD_DIM
    channels: 4
    segment0: 4
    transform0: 2
    transform1: 2


class HeldQuery(wiring.Signature):
    """A query as whoever multiplies with it sees it.

    ``valid``: it is ready, everything here holds; ``release``: it is no longer needed.

    ``address``, ``exact``, ``value``: reads an element, transformed in storage order or (``exact``) aligned in channel
    order; a cycle's latency. ``bits``: b of either segment (Q3). ``exponent``, ``poison``: of the alignment (Q1); a
    query whose length is not the layout's is poisoned too, and one whose layout this build cannot do. ``layout``: its.
    """

    def __init__(self, config: AttentionConfig):
        bits = config.transformed_bits
        super().__init__(
            {
                "valid": Out(1),
                "release": In(1),
                "address": In(range(config.channels)),
                "exact": In(1),
                "value": Out(signed(bits)),
                "bits": Out(data.ArrayLayout(range(bits), 2)),
                "exponent": Out(5),
                "poison": Out(1),
                "layout": Out(Layout),
            }
        )


class QueryElement(data.Struct):
    """An FP16 element of a query, in channel order."""

    value: 16
    last: 1


class Score(data.Struct):
    """A row's score; ``value_scale`` of an exact row is the FP16 scale of its value."""

    value: FP32
    value_scale: 16
    marked: 1
    last: 1
    final: 1


class Weight(data.Struct):
    """A row's probability (FP16), of an exact row with the scale of its value; ``last`` of its group, ``final``: of its
    list."""

    value: 16
    scale: 16
    exact: 1
    last: 1
    final: 1


class RowsJob(data.Struct):
    """What the rows of a packet look like. ``groups0`` of the ``groups`` groups of 8 channels have 2-bit codes."""

    groups: 5
    groups0: 5
    rows: 7
    """Minus 1."""
    odd: 1
    exact: 1
    final: 1
    bare: 1
    error: ERROR_BITS


class Job(data.StructLayout):
    """Rows, their set of tables, and what a score's integer is worth: ``2**unit``; what is added to each of them; K2's
    constant alike, 0 in other packets."""

    def __init__(self, config: AttentionConfig):
        bits = signed(config.constant_bits)
        super().__init__(
            {"rows": RowsJob, "set": 1, "unit": UNIT_BITS, "poison": 1, "offset": bits}
            | ({"constant": bits, "constant_unit": UNIT_BITS} if config.minima else {})
        )


class SumsJob(data.StructLayout):
    """A group is in the sums, or a packet had none: what :class:`hw.attention.value.results.ValueOut` has to know.

    ``words``: the packet's words wait in the metadata reader. ``ternary``: digits minus 1; ``exact``: codes plus 128.
    ``total`` Y, ``exponent`` L. ``set`` of the sums. ``marked``: nothing but the mark counts. ``final``: the list ends.
    """

    def __init__(self, config: AttentionConfig):
        super().__init__(
            {
                "total": config.total_bits,
                "exponent": WEIGHT_EXPONENT_BITS,
                "set": 1,
                "words": 1,
                "ternary": 1,
                "exact": 1,
                "marked": 1,
                "final": 1,
            }
        )

"""Payloads that the blocks of the KV dequant engine exchange."""

from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from spec.kv_block import HEADER

__all__ = [
    "Beat",
    "Beside",
    "BlockEntry",
    "Coefficients",
    "Elements",
    "Header",
    "Plan",
    "PrefixWord",
    "ReadBlock",
    "Record",
    "RecordWrite",
    "Tag",
    "Verdict",
]

ERROR_BITS = 4
CHANNEL_BITS = 7
TOKEN_BITS = 20

Header = data.StructLayout({field.name: field.width for field in HEADER})
"""A block's 64-bit header as it is in the packet: codes, not natural units."""


class Beat(data.StructLayout):
    """A beat of a packet: ``data`` of ``width`` bits, ``last``."""

    def __init__(self, width):
        super().__init__({"data": width, "last": 1})


class PrefixWord(data.Struct):
    """A word of mask, bitmap or metadata; ``cut``: the packet ended with it, so the block has no rows."""

    data: 64
    cut: 1


class BlockEntry(data.Struct):
    """What is known of a block: its header, an error (0: none), and whether rows follow.

    ``bare``: the packet ended, or was drained, before its rows. ``odd``: rows start at byte 8 of a 16-byte unit.
    """

    header: Header
    error: ERROR_BITS
    bare: 1
    odd: 1


class Record(data.Struct):
    """A channel's metadata, unpacked.

    The scale is ``significand * 2^(max(exponent, 1) - 25)`` (FP16's fields with the hidden bit put in), or in a
    transformed segment the integer ``significand``.
    """

    significand: 11
    exponent: 5
    minimum: 16
    segment: 1


class RecordWrite(data.Struct):
    """What is written of a channel's metadata in a cycle: its scale (as in `Record`), either byte of its minimum."""

    channel: 7
    significand: 11
    exponent: 5
    low: 8
    high: 8
    write_scale: 1
    write_low: 1
    write_high: 1


class Verdict(data.Struct):
    """What became of a block before its rows: an error (0: none); ``bare``: it has no rows here; ``odd`` as in
    `BlockEntry`."""

    error: ERROR_BITS
    bare: 1
    odd: 1


class ReadBlock(wiring.Signature):
    """A block on its way from the front to its rows.

    ``pending``: it is ready to be opened, with this ``verdict``; ``opened``: it is. ``header`` of ``set``, a cycle
    later.
    """

    def __init__(self):
        super().__init__(
            {"pending": Out(1), "verdict": Out(Verdict), "opened": In(1), "set": In(1), "header": Out(Header)}
        )


class Tag(data.Struct):
    """What travels beside a beat of elements.

    ``marked``, ``token_last`` and ``last`` as TUSER and TLAST; ``channel`` of lane 0; ``groups``: which groups of 8
    lanes (with 4 lanes: of 4) hold channels.
    """

    marked: 1
    token_last: 1
    last: 1
    channel: CHANNEL_BITS
    token: TOKEN_BITS
    groups: 4


class Elements(data.StructLayout):
    """A beat of ``lanes`` FP16 elements and its tag."""

    def __init__(self, lanes):
        super().__init__({"data": data.ArrayLayout(16, lanes), "tag": Tag})


class Plan(data.StructLayout):
    """What a transform has to know of a beat; one entry per half of 16 lanes where a beat has two.

    ``wht``, ``rfft``: these lanes hold integer coefficients; ``exponent``: their header's code. For both halves
    together: ``size`` log2(n / 16) and ``place``, the beat's number in its segment. For the block: ``narrow``, it has
    an rfft segment; ``coarse``, its scales are of FP16's size.
    """

    def __init__(self, lanes):
        halves = 2 if lanes == 32 else 1
        super().__init__(
            {
                "wht": halves,
                "rfft": halves,
                "exponent": data.ArrayLayout(5, halves),
                "size": 2,
                "place": 5,
                "narrow": 1,
                "coarse": 1,
            }
        )


class Beside(data.StructLayout):
    """What goes with a beat's words through the transforms."""

    def __init__(self, lanes):
        super().__init__({"tag": Tag, "plan": Plan(lanes)})


class Coefficients(data.StructLayout):
    """A beat out of the value tables: FP16 elements, or where ``plan`` says so, integers."""

    def __init__(self, lanes):
        super().__init__({"data": data.ArrayLayout(16, lanes), "tag": Tag, "plan": Plan(lanes)})

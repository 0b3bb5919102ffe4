"""Payloads inside the inverse real DFT."""

from amaranth import signed
from amaranth.lib import data

__all__ = ["INPUT_BITS", "MAX_QUARTERS", "Plain", "Quarter", "Slot", "Words"]

INPUT_BITS = 16
MAX_QUARTERS = 32
"""Groups of four elements in the largest transform."""


class Plain(data.Struct):
    """How to treat a segment's quarters: as coefficients of a transform of size 16 << size and of 5 fraction bits,
    scaled by 2^(exponent - 24), or to be left alone. ``marked``: some of them are bad."""

    rfft: 1
    size: 2
    exponent: 6
    marked: 1


class Quarter(data.Struct):
    """Four neighbouring coefficients of a segment, or elements to pass on."""

    data: data.ArrayLayout(16, 4)
    plain: Plain


class Words(data.StructLayout):
    """Four signed words of a level."""

    def __init__(self, width):
        super().__init__({name: signed(width) for name in ("a", "b", "c", "d")})


class Slot(data.Struct):
    """What goes with four words through the levels: ``index`` counts the operations of a transform."""

    plain: Plain
    index: 5

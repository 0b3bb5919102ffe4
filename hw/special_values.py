"""The programmable special values that FP3's and FP4's negative-zero codes stand for."""

from amaranth.lib import data

__all__ = ["SPECIAL_VALUES", "Special"]

SPECIAL_VALUES = 8
"""How many: FP3's four, then FP4's four."""


class Special(data.Struct):
    """A special value in sign and magnitude, in integer units of its datatype (FP4: half-units)."""

    magnitude: 5
    sign: 1

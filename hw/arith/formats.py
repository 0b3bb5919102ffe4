"""IEEE 754 numbers by field, and what their ends are."""

from amaranth.lib import data

__all__ = ["FP16", "FP16_MAX", "FP16_NAN", "FP32", "FP32_NAN", "FRACTION_BITS", "UNIT_BITS"]

FP16_MAX = 0x7BFF
"""65504: what larger results become."""
FP16_NAN = 0x7E00
FP32_NAN = 0x7FC00000
FRACTION_BITS = 23
UNIT_BITS = 9
"""Of an exponent that any product of FP32 numbers' units needs, signed."""


class FP16(data.Struct):
    """An IEEE 754 binary16 value, by field."""

    fraction: 10
    exponent: 5
    sign: 1


class FP32(data.Struct):
    """An IEEE 754 binary32 value, by field."""

    fraction: 23
    exponent: 8
    sign: 1

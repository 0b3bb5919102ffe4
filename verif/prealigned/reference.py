"""Scalar references in exact rationals for the pre-aligned blocks: docs/prealigned.md, equation by equation."""

from fractions import Fraction

__all__ = ["align", "fp32", "fp32_value"]


def align(halves: list[int], bits: int) -> tuple[int, bool, list[int]]:
    """A1 to A4: (exponent, poison, integers) of a group of FP16 bit patterns."""
    fields = [(h >> 15, h >> 10 & 31, h & 1023) for h in halves]
    largest = max([1, *(max(e, 1) for _s, e, f in fields if e < 31 and (e or f))])
    integers = []
    for sign, e, fraction in fields:
        significand = 0 if e == 31 else fraction + (1024 if e else 0)
        magnitude = round(significand * Fraction(2) ** (max(e, 1) - largest + bits - 12))
        magnitude = min(magnitude, 2 ** (bits - 1) - 1)
        integers.append(-magnitude if sign else magnitude)
    return largest, any(e == 31 for _s, e, _f in fields), integers


def fp32(value: Fraction) -> int:
    """Bit pattern of the FP32 number nearest to ``value``, ties to even; normal range only."""
    if value == 0:
        return 0
    magnitude = abs(Fraction(value))
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if Fraction(2) ** exponent > magnitude:
        exponent -= 1
    significand = round(magnitude / Fraction(2) ** (exponent - 23))
    if significand == 1 << 24:
        significand, exponent = 1 << 23, exponent + 1
    return (value < 0) << 31 | (exponent + 127) << 23 | significand - (1 << 23)


def fp32_value(pattern: int) -> Fraction:
    """Value of a normal FP32 number or zero."""
    if pattern & 0x7FFFFFFF == 0:
        return Fraction(0)
    magnitude = (pattern & 0x7FFFFF | 1 << 23) * Fraction(2) ** ((pattern >> 23 & 255) - 150)
    return -magnitude if pattern >> 31 else magnitude

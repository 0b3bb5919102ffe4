"""Weight and KV datatypes: codes, widths and the integer that every code stands for.

Every value is an integer. FP4 counts in half-units (its 0.5 is the integer 1): the factor 1/2 lives in the scaling
factor and nowhere else. Source: BitMoD (arXiv 2411.11745), Table IV and section III; the 1-, 1.58- and 2-bit types
serve the KV cache (VidKV, arXiv 2503.16257).
"""

from enum import IntEnum

__all__ = [
    "DATATYPE_BITS",
    "DEFAULT_SPECIAL_VALUES",
    "FP_MAGNITUDES",
    "MAX_CODE_BITS",
    "SPECIAL_LIMIT",
    "WEIGHT_DATATYPES",
    "Datatype",
    "code_bits",
    "code_value",
    "special_value_allowed",
    "terms_per_weight",
]

DATATYPE_BITS = 4
"""Width of the datatype field in a group header."""

MAX_CODE_BITS = 8
"""Widest code (INT8); decoder ports carry every lane's code right-aligned in this many bits."""

SPECIAL_LIMIT = 16
"""Largest magnitude of a special value, in the integer units of its datatype."""


class Datatype(IntEnum):
    """Datatype field of a group header. 0 and 12..15 are reserved, so an all-zero header is an error."""

    INT8 = 1
    INT6 = 2
    INT5 = 3
    INT4 = 4
    INT3 = 5
    FP4 = 6
    FP3 = 7
    TERNARY = 8
    BINARY = 9
    U2 = 10
    S2 = 11


WEIGHT_DATATYPES = (
    Datatype.INT8,
    Datatype.INT6,
    Datatype.INT5,
    Datatype.INT4,
    Datatype.INT3,
    Datatype.FP4,
    Datatype.FP3,
)
"""The datatypes that BitMoD quantizes weights to; the others carry KV codes."""

FP_MAGNITUDES = {Datatype.FP3: (0, 1, 2, 4), Datatype.FP4: (0, 1, 2, 3, 4, 6, 8, 12)}
"""Magnitude of each code below the sign bit (FP4 in half-units)."""

DEFAULT_SPECIAL_VALUES = {Datatype.FP3: (3, -3, 6, -6), Datatype.FP4: (10, -10, 16, -16)}
"""Special values after reset, in integer units, indexed by the group's 2-bit select (BitMoD Table IV: FP3 +-3, +-6;
FP4 +-5, +-8). The order is the quantizer's order of preference on equal error."""

_BITS = {
    Datatype.INT8: 8,
    Datatype.INT6: 6,
    Datatype.INT5: 5,
    Datatype.INT4: 4,
    Datatype.INT3: 3,
    Datatype.FP4: 4,
    Datatype.FP3: 3,
    Datatype.TERNARY: 2,
    Datatype.BINARY: 1,
    Datatype.U2: 2,
    Datatype.S2: 2,
}

_TERMS = {
    Datatype.INT8: 4,
    Datatype.INT6: 3,
    Datatype.INT5: 3,
    Datatype.INT4: 2,
    Datatype.INT3: 2,
    Datatype.FP4: 2,
    Datatype.FP3: 2,
    Datatype.TERNARY: 1,
    Datatype.BINARY: 1,
    Datatype.U2: 2,
    Datatype.S2: 2,
}

_TABLES = {
    Datatype.TERNARY: (0, 1, None, -1),
    Datatype.BINARY: (-1, 1),
    Datatype.U2: (0, 1, 2, 3),
    Datatype.S2: (-3, -1, 1, 3),
}


def code_bits(datatype: Datatype) -> int:
    """Width of one code in bits."""
    return _BITS[Datatype(datatype)]


def terms_per_weight(datatype: Datatype) -> int:
    """Bit-serial terms per weight, which is cycles per beat of lanes (BitMoD section III-D, Eq. 4)."""
    return _TERMS[Datatype(datatype)]


def code_value(datatype: Datatype, code: int, special: int = 0) -> int | None:
    """Integer value of ``code``; ``special`` is what the negative-zero code of FP3 and FP4 stands for.

    Returns None for a reserved code (ternary 0b10). Raises ValueError when ``code`` does not fit the datatype.
    """
    datatype = Datatype(datatype)
    bits = _BITS[datatype]
    if not 0 <= code < 1 << bits:
        raise ValueError(f"code must be in 0..{(1 << bits) - 1} for {datatype.name}, not {code!r}")
    if datatype in _TABLES:
        return _TABLES[datatype][code]
    sign = code >> (bits - 1)
    if datatype in FP_MAGNITUDES:
        magnitude = FP_MAGNITUDES[datatype][code & ((1 << (bits - 1)) - 1)]
        if sign and magnitude == 0:
            return special
        return -magnitude if sign else magnitude
    return code - (sign << bits)


def special_value_allowed(value: int, *, signed_terms: bool = False) -> bool:
    """Whether a special-value register takes ``value``: can the decoder's two terms produce it?

    The first term is 0 or one of 2, 4, 8, 16, the second 0 or one of 1, 2, 4, 8 (BitMoD section III-D). They share
    the value's sign; ``signed_terms`` also allows their difference (7 = 8 - 1).
    """
    first, second = (0, 2, 4, 8, 16), (0, 1, 2, 4, 8)
    sums = {a + b for a in first for b in second}
    if signed_terms:
        sums |= {a - b for a in first for b in second}
    return abs(value) <= SPECIAL_LIMIT and abs(value) in sums

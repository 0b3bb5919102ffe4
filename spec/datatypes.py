"""Datatypes of weights and KV codes: one row for each; widths, limits and kinds follow from it.

Every value is an integer. FP4 counts in half-units (its 0.5 is the integer 1): the factor 1/2 lives in the scaling
factor and nowhere else. Source: BitMoD (arXiv 2411.11745), Table IV and section III; the 1-, 1.58- and 2-bit types
serve the KV cache (VidKV, arXiv 2503.16257).
"""

from enum import IntEnum

from spec import checks

__all__ = [
    "DATATYPE_BITS",
    "FLOATS",
    "INTEGERS",
    "MAX_CODE_BITS",
    "SPECIAL",
    "SPECIAL_LIMIT",
    "WEIGHT_DATATYPES",
    "Datatype",
    "default_special_values",
    "special_value_allowed",
]

DATATYPE_BITS = 4
"""Width of the datatype field in a group header."""

SPECIAL_LIMIT = 16
"""Largest magnitude of a special value, in the integer units of its datatype."""

SPECIAL = "special"
"""Stands for the value of the negative-zero code of FP3 and FP4: the group's special value."""


def _integers(bits: int) -> tuple[int, ...]:
    """Two's complement."""
    return (*range(1 << bits - 1), *range(-1 << bits - 1, 0))


def _floats(*magnitudes: int) -> tuple[int | str, ...]:
    """Sign and magnitude; the code of -0 is the special value."""
    return (*magnitudes, SPECIAL, *(-magnitude for magnitude in magnitudes[1:]))


class Datatype(IntEnum):
    """Datatype field of a group header. 0 and 12..15 are reserved, so an all-zero header is an error.

    Attributes
    ----------
    terms : int
        Bit-serial terms per weight, which is cycles per beat of lanes (BitMoD section III-D, Eq. 4).
    values : tuple
        What each code stands for: an integer, None (reserved) or :data:`SPECIAL`.
    special_values : tuple of int
        The four special values after reset, indexed by the group's 2-bit select (BitMoD Table IV: FP3 +-3, +-6; FP4
        +-5, +-8). The order is the quantizer's order of preference on equal error.
    bits : int
        Width of a code.
    """

    # field, terms, values, special values
    INT8 = 1, 4, _integers(8)
    INT6 = 2, 3, _integers(6)
    INT5 = 3, 3, _integers(5)
    INT4 = 4, 2, _integers(4)
    INT3 = 5, 2, _integers(3)
    FP4 = 6, 2, _floats(0, 1, 2, 3, 4, 6, 8, 12), (10, -10, 16, -16)
    FP3 = 7, 2, _floats(0, 1, 2, 4), (3, -3, 6, -6)
    TERNARY = 8, 1, (0, 1, None, -1)
    BINARY = 9, 1, (-1, 1)
    U2 = 10, 2, (0, 1, 2, 3)
    S2 = 11, 2, (-3, -1, 1, 3)

    def __new__(cls, field: int, terms: int, values: tuple, special_values: tuple[int, ...] = ()):
        member = int.__new__(cls, field)
        member._value_ = field
        member.terms, member.values, member.special_values = terms, values, special_values
        member.bits = (len(values) - 1).bit_length()
        return member

    def value_of(self, code: int, special: int = 0) -> int | None:
        """Integer value of ``code``, None if it is reserved; ``special`` is the group's special value."""
        checks.whole(f"code of {self.name}", code, 0, len(self.values) - 1)
        return special if self.values[code] is SPECIAL else self.values[code]

    @property
    def magnitudes(self) -> tuple[int, ...]:
        """Of a float: the magnitude of each code below the sign bit."""
        return self.values[: len(self.values) // 2]

    @property
    def limit(self) -> int:
        """Largest magnitude of a value, special values included."""
        return SPECIAL_LIMIT if self.special_values else max(abs(value or 0) for value in self.values)


INTEGERS = tuple(datatype for datatype in Datatype if datatype.values == _integers(datatype.bits))
"""The two's complement datatypes."""
FLOATS = tuple(datatype for datatype in reversed(Datatype) if datatype.special_values)
"""The datatypes with a special value, in the order of the special-value registers: FP3, FP4."""
WEIGHT_DATATYPES = tuple(datatype for datatype in Datatype if datatype in INTEGERS or datatype in FLOATS)
"""The datatypes that BitMoD quantizes weights to; the others carry KV codes."""
MAX_CODE_BITS = max(datatype.bits for datatype in Datatype)
"""Widest code (INT8); decoder ports carry every lane's code right-aligned in this many bits."""


def default_special_values() -> dict[Datatype, tuple[int, ...]]:
    """A new table of the special values after reset."""
    return {datatype: datatype.special_values for datatype in FLOATS}


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

"""The definitions a second time, typed from BitMoD's Table IV and the KV code definitions, for tests alone.

Nothing here comes from ``spec``: a wrong constant there would otherwise be wrong in design, model and test alike.
"""

SPECIAL = "special"

CODES = {
    1: ("INT8", 8, 4, [*range(128), *range(-128, 0)]),
    2: ("INT6", 6, 3, [*range(32), *range(-32, 0)]),
    3: ("INT5", 5, 3, [*range(16), *range(-16, 0)]),
    4: ("INT4", 4, 2, [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1]),
    5: ("INT3", 3, 2, [0, 1, 2, 3, -4, -3, -2, -1]),
    6: ("FP4", 4, 2, [0, 1, 2, 3, 4, 6, 8, 12, SPECIAL, -1, -2, -3, -4, -6, -8, -12]),
    7: ("FP3", 3, 2, [0, 1, 2, 4, SPECIAL, -1, -2, -4]),
    8: ("TERNARY", 2, 1, [0, 1, None, -1]),
    9: ("BINARY", 1, 1, [-1, 1]),
    10: ("U2", 2, 2, [0, 1, 2, 3]),
    11: ("S2", 2, 2, [-3, -1, 1, 3]),
}
"""Datatype field: name, bits per code, bit-serial terms per weight, value of every code."""

SPECIALS = {"FP3": (3, -3, 6, -6), "FP4": (10, -10, 16, -16)}
"""Special values after reset."""

SUMS = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 16)
"""Magnitudes that two terms of one sign can make."""
DIFFERENCES = (7, 14, 15)
"""Further magnitudes that two terms of opposite signs can make: 8 - 1, 16 - 2, 16 - 1."""


def allowed_specials(signed_terms: bool) -> list[int]:
    """Values that a special-value register takes."""
    magnitudes = SUMS + (DIFFERENCES if signed_terms else ())
    return sorted({sign * magnitude for sign in (1, -1) for magnitude in magnitudes})


def value(field: int, code: int, special: int) -> int | None:
    """Value of a code; None where there is none."""
    found = CODES[field][3][code]
    return special if found == SPECIAL else found

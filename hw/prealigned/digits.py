"""Which digits stand for which weight: derived from the set of multiples (docs/prealigned.md, section 3)."""

from collections.abc import Mapping
from functools import cache

from spec.datatypes import INTEGERS, SPECIAL, SPECIAL_LIMIT, Datatype
from spec.digits import MAX_MULTIPLE, DigitSet

__all__ = [
    "allowed_specials",
    "code_digits",
    "derive_digit_set",
    "steps",
    "value_digits",
]

MAX_STEPS = 4


@cache
def value_digits(value: int, planes: int, digits: DigitSet) -> tuple[int, ...] | None:
    """``planes`` digits, lowest first, with ``value = sum d_p * 2**(plane_bits * p)``; None if there are none.

    Of several the lowest digit with the least magnitude is taken, the negative one of two, then the next alike.
    """
    if planes == 0:
        return () if value == 0 else None
    radix = 2**digits.plane_bits
    for digit in sorted((0, *digits.multiples, *(-m for m in digits.multiples)), key=lambda d: (abs(d), d)):
        if (value - digit) % radix == 0:
            rest = value_digits((value - digit) // radix, planes - 1, digits)
            if rest is not None:
                return (digit, *rest)
    return None


def _values(datatype: Datatype) -> set[int]:
    return {*datatype.values, *datatype.special_values} - {None, SPECIAL}


@cache
def steps(datatype: Datatype, digits: DigitSet) -> int:
    """Least number of planes in which every value of the datatype, the default special values too, has its digits."""
    return next(n for n in range(1, 5) if all(value_digits(v, n, digits) is not None for v in _values(datatype)))


def allowed_specials(datatype: Datatype, digits: DigitSet) -> frozenset[int]:
    """Special values up to +-16 that keep the datatype at its steps; a register must refuse all others."""
    limit = range(-SPECIAL_LIMIT, SPECIAL_LIMIT + 1)
    return frozenset(v for v in limit if value_digits(v, steps(datatype, digits), digits) is not None)


def code_digits(datatype: Datatype, code: int, digits: DigitSet, special: int = 0) -> tuple[int, ...]:
    """The digits of a code, lowest plane first; zeros for a reserved code. An integer's are its Booth digits;
    of others, negative values mirror positive ones."""
    value, planes = datatype.value_of(code, special) or 0, steps(datatype, digits)
    if datatype in INTEGERS:
        k = digits.plane_bits
        carried = [(value + (1 << k * p >> 1)) >> k * p for p in range(planes + 1)]
        return tuple(carried[p] - (carried[p + 1] << k) for p in range(planes))
    found = value_digits(abs(value), planes, digits)
    if found is None:
        raise ValueError(f"special must be one of {sorted(allowed_specials(datatype, digits))}, not {special!r}")
    return tuple(-digit for digit in found) if value < 0 else found


def derive_digit_set(wanted: Mapping[Datatype, int]) -> DigitSet:
    """The fewest multiples of a named kind that give every datatype at most the wanted number of steps.

    INT datatypes set the radix; what FP3, FP4 and the small types lack is added from their own magnitudes.

    Raises
    ------
    ValueError
        If a datatype cannot have so few steps, naming it.
    """
    for datatype, count in wanted.items():
        if count not in range(1, MAX_STEPS + 1):
            raise ValueError(f"steps of {datatype.name} must be 1..{MAX_STEPS}, not {count!r}")
    radix_bits = [-(-d.bits // n) for d, n in wanted.items() if d in INTEGERS]
    k = max([2, *radix_bits])
    if k > 4:
        datatype = max((d for d in wanted if d in INTEGERS), key=lambda d: d.bits / wanted[d])
        least = -(-datatype.bits // 4)
        raise ValueError(f"steps of {datatype.name} must be at least {least} (16 is the largest radix)")
    multiples = set(range(1, 2 ** (k - 1) + 1))
    while True:
        known = DigitSet(tuple(sorted(multiples)))
        lacking = _lacking(wanted, known)
        if not lacking:
            return known
        rest = set(range(1, MAX_MULTIPLE + 1)) - multiples
        multiples.add(min(rest, key=lambda m: (len(_lacking(wanted, DigitSet(tuple(sorted({*multiples, m}))))), m)))


def _lacking(wanted: Mapping[Datatype, int], digits: DigitSet) -> list[tuple[Datatype, int]]:
    return [(d, v) for d, count in wanted.items() for v in _values(d) if value_digits(v, count, digits) is None]

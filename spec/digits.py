"""Digit sets: the signed multiples of an activation that a lane of ``PrealignedPE`` can select."""

from dataclasses import dataclass
from functools import cached_property

from spec import checks

__all__ = ["DIGIT_SETS", "MAX_MULTIPLE", "DigitSet", "digit_set"]

MAX_MULTIPLE = 16


@dataclass(frozen=True)
class DigitSet:
    """The digits 0 and ``+-m`` for every m in ``multiples``.

    A weight is a sum of digits times powers of ``2**plane_bits``, one digit per plane. Which digits stand for which
    code is derived in ``hw.prealigned.digits``: results do not depend on it.

    Parameters
    ----------
    multiples : tuple of int
        Ascending, from 1 to 16, with 1 and 2 among them.

    Raises
    ------
    TypeError, ValueError
        Naming the multiples and what is allowed.
    """

    multiples: tuple[int, ...]

    def __post_init__(self):
        checks.ordered("multiples", self.multiples, 1, MAX_MULTIPLE)
        if not {1, 2} <= set(self.multiples):
            raise ValueError(f"multiples must have 1 and 2 among them, not {self.multiples!r}")

    @cached_property
    def plane_bits(self) -> int:
        """The largest k with all of 1..2**(k-1) among the multiples: k bits of a two's complement weight per plane."""
        k = 2
        while set(range(1, 2**k + 1)) <= set(self.multiples):
            k += 1
        return k

    @cached_property
    def odd_multiples(self) -> tuple[int, ...]:
        """The odd numbers whose shifts give every multiple: what has to be computed, and broadcast."""
        return tuple(sorted({m // (m & -m) for m in self.multiples}))


DIGIT_SETS = {
    "radix4": DigitSet((1, 2)),
    "radix4+": DigitSet((1, 2, 4)),
    "radix8": DigitSet((1, 2, 3, 4)),
    "radix8+": DigitSet((1, 2, 3, 4, 6)),
    "radix8-fp4": DigitSet((1, 2, 3, 4, 6, 8, 10, 12, 16)),
    "radix16": DigitSet((1, 2, 3, 4, 5, 6, 7, 8)),
    "radix16-fp4": DigitSet((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)),
}
"""Named digit sets: plain Booth recoding; ``+`` adds what FP3 (radix 8: one step) or FP4 (radix 4: two) wants,
``-fp4`` what FP4 wants in one step."""


def digit_set(name: str) -> DigitSet:
    """The named digit set. Raises ValueError for an unknown name, naming the known."""
    return checks.named("digit set", name, DIGIT_SETS)

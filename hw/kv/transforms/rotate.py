"""Rotation of a pair of integers by the angles of a real DFT."""

import math

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.booth import ColumnSum

__all__ = ["Rotator", "operation_order"]

FRACTION = 12


def operation_order(n: int) -> list[int]:
    """Order in which a level of size n treats its n/4 pairs k, h - k (pair 0: the real ones).

    The second half are the partners of the first in the pairs of the next level, so that a commutator of half the
    length brings them together: S(n) = S(n/2) followed by n/4 - k for each k of S(n/2), n/8 for k = 0.
    """
    if n == 4:
        return [0]
    first = operation_order(n // 2)
    return first + [n // 4 - k if k else n // 8 for k in first]


class Rotator(wiring.Component):
    """``(t C - u S, t S + u C)``, rounded half up from 12 fraction bits; combinational (docs/kv-engine.md T7..T9).

    Three products instead of four: C (t + u) is shared, and stays in carry-save form until the others are added to it.
    Coefficients come out of their table as Booth digits. Exact before the rounding, so that the form does not show. For
    n = 8, one angle of 45 degrees, C = S and two constant multipliers do.

    Parameters
    ----------
    n : int
        Size of the level, 8..128.
    width : int
        Bits of t and u, signed.

    Members
    -------
    t, u : In
    index : In
        Position in `operation_order(n)`; position 0 has no rotation, its output is unspecified.
    real, imaginary : Out
        Of ``width + 1`` bits, which holds both as long as |(t, u)| < 2^width.
    """

    def __init__(self, n: int, width: int):
        self.n, self.width = n, width
        super().__init__(
            {
                "t": In(signed(width)),
                "u": In(signed(width)),
                "index": In(range(n // 4)),
                "real": Out(signed(width + 1)),
                "imaginary": Out(signed(width + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        scale = 1 << FRACTION
        angles = [2 * math.pi * k / self.n for k in operation_order(self.n)]
        cosines = [math.floor(scale * math.cos(angle) + 0.5) for angle in angles]
        sines = [math.floor(scale * math.sin(angle) + 0.5) for angle in angles]
        half = 1 << FRACTION - 1
        if self.n == 8:
            c = cosines[1]
            m.d.comb += [
                self.real.eq(((self.t - self.u) * c + half) >> FRACTION),
                self.imaginary.eq(((self.t + self.u) * c + half) >> FRACTION),
            ]
            return m

        # Nothing is asked of position 0: its coefficients are those of position 1.
        cosines[0], sines[0] = cosines[1], sines[1]
        both = [-c - s for c, s in zip(cosines, sines, strict=True)]
        difference = [s - c for c, s in zip(cosines, sines, strict=True)]
        together = Signal(signed(self.width + 1))
        m.d.comb += together.eq(self.t + self.u)
        width = self.width + 1 + FRACTION
        shared = ColumnSum(m, width, "shared")
        shared.add_product(together, cosines, self.index)
        shared.add_constant(half)
        columns = shared.reduce().columns
        for out, x, values in ((self.real, self.u, both), (self.imaginary, self.t, difference)):
            result = ColumnSum(m, width, out.name, columns)
            result.add_product(x, values, self.index)
            m.d.comb += out.eq(result.total()[FRACTION:].as_signed())
        return m

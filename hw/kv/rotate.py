"""Rotation of a pair of integers by the angles of a real DFT."""

import math

from amaranth import Array, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

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

    Three multipliers instead of four: C (t + u) is shared. Exact before the rounding, so that the form does not show.
    For n = 8, one angle of 45 degrees, C = S and two constant multipliers do.

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

        def table(values):
            low = min(values[1:])
            bits = max(value.bit_length() for value in values[1:])
            shape = signed(bits + 1) if low < 0 else bits
            chosen = Signal(shape)
            m.d.comb += chosen.eq(Array(Const(value, shape) for value in [values[1], *values[1:]])[self.index])
            return chosen

        cosine = table(cosines)
        both = table([c + s for c, s in zip(cosines, sines, strict=True)])
        difference = table([s - c for c, s in zip(cosines, sines, strict=True)])
        shared = Signal(signed(self.width + FRACTION + 3))
        m.d.comb += [
            shared.eq((self.t + self.u) * cosine + half),
            self.real.eq((shared - self.u * both) >> FRACTION),
            self.imaginary.eq((shared + self.t * difference) >> FRACTION),
        ]
        return m

"""Sum of two FP16 numbers."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.fp16_sums import aligned_sum, held_and_rounded
from hw.arith.ripple import add, increment

__all__ = ["Fp16Adder"]

GUARD = 3
"""Two bits and a sticky one: where the smaller loses bits, the larger is normal and the sum loses one leading bit."""


class Fp16Adder(wiring.Component):
    """``R16(a + b)`` (docs/kv-engine.md, section 3): the exact sum rounded once, subnormals exact, zero +0.

    Latency 1: a register lies between sum and rounding, which moves on with ``step``.

    Members
    -------
    a, b : In
        Finite FP16 numbers.
    step : In
    value : Out
    beyond : Out
        The sum was beyond FP16: ``value`` is +-65504.
    """

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "step": In(1), "value": Out(16), "beyond": Out(1)})

    def elaborate(self, platform):
        m = Module()
        significands, exponents = [], []
        for number in (self.a, self.b):
            normal = number[10:15].any()
            significands.append(Cat(number[:10], normal))
            exponents.append(number[10:15] | ~normal)
        # One's complement: the difference less 1 if it is positive, its opposite's complement otherwise.
        difference = Signal(6)
        shift = Signal(5)
        above = difference[5]
        m.d.comb += [
            difference.eq(add(m, exponents[0], ~exponents[1])),
            shift.eq(increment(m, difference[:5] ^ (~above).replicate(5), above)),
        ]
        larger, smaller = (Mux(above ^ swap, *significands) for swap in range(2))
        magnitude, flipped = aligned_sum(m, larger, smaller, shift, self.a[15] ^ self.b[15], GUARD)
        sign = flipped ^ Mux(above, self.a[15], self.b[15])
        # The magnitude's top bit counts one more than the larger operand's exponent.
        value, beyond = held_and_rounded(m, self.step, magnitude, Mux(above, *exponents), sign)
        m.d.comb += [self.value.eq(value), self.beyond.eq(beyond)]
        return m

"""FP16 multiply-add with one rounding, for any factor. For comparison, see docs/kv-engine.md."""

from amaranth import Array, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.booth import ColumnSum
from hw.arith.fp16_sums import aligned_sum, held_and_rounded
from hw.arith.ripple import add, increment

__all__ = ["Fp16MultiplyAdd", "fp16_factor"]

WIDTH = 22
"""Bits of the product of two significands."""
GUARD = 4


def fp16_factor(multiplier: Value, negative: Value) -> Value:
    """A code's multiple of the scale, 0..3 and a sign, as an FP16 number."""
    magnitude = Array(C(bits, 15) for bits in (0x0000, 0x3C00, 0x4000, 0x4200))[multiplier]
    return Cat(magnitude, negative)


class Fp16MultiplyAdd(wiring.Component):
    """``R16(a * b + c)``: exact product and sum, rounded once to nearest even.

    Subnormals are exact, numbers beyond FP16 become +-65504, zero is +0. Of product and addend the one with the smaller
    exponent is shifted. Sticky bits are enough: the product of a subnormal and a normal number has a bit at 2^10 or
    above, so that an addend that loses bits behind it is less than a quarter of it; a product of subnormals is below
    all that FP16 holds. A product of 0 must not shift the addend.

    The product's bits are summed in carry-save form; other carries ripple, as in
    :class:`hw.kv.values.value_unit.ValueArithmetic`. Latency 1: a register lies between sum and rounding, which moves
    on with ``step``.

    Members
    -------
    a, b, c : In
        Finite FP16 numbers.
    step : In
    value : Out
    beyond : Out
        The result was beyond FP16.
    """

    def __init__(self):
        super().__init__({"a": In(16), "b": In(16), "c": In(16), "step": In(1), "value": Out(16), "beyond": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # Values are significand * 2^(max(field, 1) - 25).
        significands, exponents = [], []
        for number in (self.a, self.b, self.c):
            normal = number[10:15].any()
            significands.append(Cat(number[:10], normal))
            exponents.append(number[10:15] | ~normal)
        columns = [[] for _ in range(WIDTH)]
        for j, one in enumerate(significands[0]):
            for k, other in enumerate(significands[1]):
                columns[j + k].append(one & other)
        product = ColumnSum(m, WIDTH, "product", columns).total()

        # Product * 2^(x - 50) and (c's significand << 11) * 2^(y - 36): the difference of x - 14 and y counts.
        both = Signal(6)
        difference = Signal(7)
        m.d.comb += [
            both.eq(add(m, exponents[0], exponents[1])),
            difference.eq(add(m, both, ~Cat(add(m, exponents[2], C(14, 4)), C(0, 0))[:6])),
        ]
        above = difference[6]  # one's complement: the difference less 1 if it is positive
        shift = Signal(6)
        m.d.comb += shift.eq(increment(m, difference[:6] ^ (~above).replicate(6), above))
        product_first = Signal()
        m.d.comb += product_first.eq(above & significands[0].any() & significands[1].any())
        addend = Cat(C(0, 11), significands[2])
        negative = self.a[15] ^ self.b[15]
        magnitude, flipped = aligned_sum(
            m,
            Mux(product_first, product, addend),
            Mux(product_first, addend, product),
            shift,
            negative ^ self.c[15],
            GUARD,
        )
        # The highest bit's biased exponent less 1.
        most = Mux(product_first, add(m, both, C(0x72, 7))[:6], exponents[2])
        sign = flipped ^ Mux(product_first, negative, self.c[15])
        value, beyond = held_and_rounded(m, self.step, magnitude, most, sign)
        m.d.comb += [self.value.eq(value), self.beyond.eq(beyond)]
        return m

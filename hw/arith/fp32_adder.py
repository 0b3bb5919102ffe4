"""FP32 addition, IEEE 754 round to nearest even."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP32
from hw.arith.rounding import leading_zeros, rounded_fp32, shifted_right

__all__ = ["Fp32Adder"]


class Fp32Adder(wiring.Component):
    """Adds two FP32 numbers: round to nearest even, subnormals kept, overflow to Inf.

    An exact zero is +0, also for (-0) + (-0). Any NaN, and Inf - Inf, give the NaN 0x7FC00000. Error at most half a
    unit in the last place. Latency 2 cycles, throughput 1 per cycle; there is no back-pressure.

    Members
    -------
    a, b : FP32, In
    o : FP32, Out
    overflow : Out
        The sum of two finite numbers is too large for FP32.
    """

    latency = 2

    def __init__(self):
        super().__init__({"a": In(FP32), "b": In(FP32), "o": Out(FP32), "overflow": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # Cycle 1: order by magnitude, align the smaller with 3 bits below (guard, round, sticky).
        swap = self.a.as_value()[:31] < self.b.as_value()[:31]
        big = Signal(FP32)
        small = Signal(FP32)
        m.d.comb += [big.eq(Mux(swap, self.b, self.a)), small.eq(Mux(swap, self.a, self.b))]
        big_normal, small_normal = big.exponent.any(), small.exponent.any()
        gap = Signal(8)
        m.d.comb += gap.eq((big.exponent | ~big_normal) - (small.exponent | ~small_normal))
        significand = Cat(C(0, 3), small.fraction, small_normal)
        far = gap[5:].any()
        aligned, lost = shifted_right(m, significand, gap[:5], "aligned")

        one = Signal(27, reset_less=True)
        two = Signal(27, reset_less=True)
        exponent = Signal(8, reset_less=True)
        sign = Signal(reset_less=True)
        subtract = Signal(reset_less=True)
        infinite = Signal(reset_less=True)
        nan = Signal(reset_less=True)
        differ = big.sign ^ small.sign
        big_special, small_special = big.exponent.all(), small.exponent.all()
        m.d.sync += [
            one.eq(Cat(C(0, 3), big.fraction, big_normal)),
            two.eq(Mux(far, significand.any(), aligned | lost)),
            exponent.eq(big.exponent | ~big_normal),
            sign.eq(big.sign),
            subtract.eq(differ),
            infinite.eq(big_special),
            nan.eq((big_special & big.fraction.any()) | (small_special & (small.fraction.any() | differ))),
        ]

        # Cycle 2: add, normalize, round.
        total = Signal(28)
        m.d.comb += total.eq(Mux(subtract, one - two, one + two))
        zeros = leading_zeros(m, total, "zeros")
        # Left by the leading zeros, but no further than a subnormal allows; the exponent below counts from there.
        room = Signal(9)
        shift = Signal(range(29))
        m.d.comb += [room.eq(exponent), shift.eq(Mux(zeros > room, room, zeros))]
        normalized = Signal(28)
        m.d.comb += normalized.eq(total << shift)
        biased = Signal(signed(10))
        m.d.comb += biased.eq(Mux(normalized[-1], exponent + 1 - shift, 0))
        up = normalized[3] & (normalized[4] | normalized[:3].any())
        fraction, sign = normalized[4:27], sign & total.any()
        out, overflow = rounded_fp32(m, biased[:9], fraction, up, sign, nan=nan, infinite=infinite)
        m.d.comb += [self.o.eq(out), self.overflow.eq(overflow)]
        return m

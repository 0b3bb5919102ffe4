"""FP32 addition and conversion, IEEE 754 round to nearest even."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.bitserial.dequantizer import ScaledSum

__all__ = ["CANONICAL_NAN", "FP32", "Fp32Adder", "ScaledSumToFp32"]

CANONICAL_NAN = 0x7FC00000


class FP32(data.Struct):
    """An IEEE 754 binary32 value, by field."""

    fraction: 23
    exponent: 8
    sign: 1


def leading_zeros(m, value, name):
    """Number of zeros above the leading one of ``value``; its length if it is 0."""
    count = Signal(range(len(value) + 1), name=name, init=len(value))
    m.d.comb += count.eq(len(value))
    for bit in range(len(value)):
        with m.If(value[bit]):
            m.d.comb += count.eq(len(value) - 1 - bit)
    return count


class ScaledSumToFp32(wiring.Component):
    """Converts a rescaled group sum to FP32 (equation G2 of docs/weights.md). Exact; combinational; zero gives +0.

    Parameters
    ----------
    accumulator_bits : int
        Width of the PE's accumulator mantissa, at most 17 so that the product with the 8-bit scale is exact.

    Members
    -------
    i : ScaledSum, In
    o : FP32, Out
    """

    def __init__(self, accumulator_bits=15):
        super().__init__({"i": In(ScaledSum(accumulator_bits)), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        width = len(self.i.mantissa)
        magnitude = Signal(width)
        m.d.comb += magnitude.eq(abs(self.i.mantissa))
        zeros = leading_zeros(m, magnitude, "zeros")
        normalized = Signal(width)
        m.d.comb += normalized.eq(magnitude << zeros)
        below = normalized[:-1]  # of the leading one; an odd bit beyond FP32's 23 is 0 in every product that can occur
        fraction = below[-23:] if len(below) >= 23 else Cat(C(0, 23 - len(below)), below)
        with m.If(magnitude.any()):
            m.d.comb += [
                self.o.fraction.eq(fraction),
                # The mantissa's top bit weighs 2**(width - 1), its unit 2**(exponent - 28); the bias is 127.
                self.o.exponent.eq(self.i.exponent + (127 - 28 + width - 1) - zeros),
                self.o.sign.eq(self.i.mantissa < 0),
            ]
        return m


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
        aligned = Signal(27)
        m.d.comb += aligned.eq(Mux(gap[5:].any(), 0, significand >> gap[:5]))
        kept = Mux(gap[5:].any(), 0, (C((1 << 27) - 1, 27) << gap[:5])[:27])
        sticky = (significand & ~kept).any()

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
            two.eq(aligned | sticky),
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
        rounded = Signal(32)
        m.d.comb += rounded.eq(Cat(normalized[4:27], biased[:9]) + up)
        too_large = rounded[23:] >= 255
        out = Signal(32, reset_less=True)
        overflow = Signal(reset_less=True)
        with m.If(nan):
            m.d.sync += out.eq(CANONICAL_NAN)
        with m.Elif(infinite | too_large):
            m.d.sync += out.eq(Cat(C(0, 23), C(0xFF, 8), sign))
        with m.Else():
            m.d.sync += out.eq(Cat(rounded[:31], sign & total.any()))
        m.d.sync += overflow.eq(too_large & ~infinite & ~nan)
        m.d.comb += [self.o.eq(out), self.overflow.eq(overflow)]
        return m

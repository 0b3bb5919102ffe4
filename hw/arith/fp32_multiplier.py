"""FP32 multiplication and narrowing to FP16, IEEE 754 round to nearest even."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP16, FP16_MAX, FP16_NAN, FP32
from hw.arith.rounding import leading_zeros, rounded_fp32, shifted_right

__all__ = ["Fp32Multiplier", "Fp32ToFp16"]


class Fp32Multiplier(wiring.Component):
    """Multiplies two FP32 numbers: round to nearest even, subnormals kept, overflow to Inf.

    An exact zero is +0, and so is a product that rounds to zero. Any NaN, and 0 times Inf, give the NaN 0x7FC00000.
    Error at most half a unit in the last place. Latency 3 cycles, throughput 1 per cycle; no back-pressure.

    Members
    -------
    a, b : FP32, In
    o : FP32, Out
    overflow : Out
        The product of two finite numbers is too large for FP32.
    """

    latency = 3

    def __init__(self):
        super().__init__({"a": In(FP32), "b": In(FP32), "o": Out(FP32), "overflow": Out(1)})

    def elaborate(self, platform):
        m = Module()
        # Cycle 1: significands' product, exponents' sum.
        normal = [operand.exponent.any() for operand in (self.a, self.b)]
        special = [operand.exponent.all() for operand in (self.a, self.b)]
        is_nan = [s & operand.fraction.any() for s, operand in zip(special, (self.a, self.b), strict=True)]
        is_zero = [operand.as_value()[:31] == 0 for operand in (self.a, self.b)]
        product = Signal(48, reset_less=True)
        exponent = Signal(signed(10), reset_less=True)  # of bit 46, unbiased by 127
        sign = Signal(reset_less=True)
        nan = Signal(reset_less=True)
        infinite = Signal(reset_less=True)
        m.d.sync += [
            product.eq(Cat(self.a.fraction, normal[0]) * Cat(self.b.fraction, normal[1])),
            exponent.eq((self.a.exponent | ~normal[0]) + (self.b.exponent | ~normal[1]) - 127),
            sign.eq(self.a.sign ^ self.b.sign),
            nan.eq(is_nan[0] | is_nan[1] | (special[0] & is_zero[1]) | (special[1] & is_zero[0])),
            infinite.eq(special[0] | special[1]),
        ]

        # Cycle 2: to the left by the leading zeros, or to the right as far as a subnormal result needs.
        zeros = leading_zeros(m, product, "zeros")
        top = Signal(signed(10))  # biased exponent of the leading one
        m.d.comb += top.eq(exponent + 1 - zeros)
        right = Signal(6)  # beyond 1 - top, at most what shifts everything out
        with m.If(top < 1):
            m.d.comb += right.eq(Mux(top < -25, 27, 1 - top))
        left = Signal(48)
        m.d.comb += left.eq(product << zeros)
        shifted, lost = shifted_right(m, left, right, "shifted")
        significand = Signal(24, reset_less=True)
        biased = Signal(9, reset_less=True)
        guard = Signal(reset_less=True)
        sticky = Signal(reset_less=True)
        sign2 = Signal(reset_less=True)
        nan2 = Signal(reset_less=True)
        infinite2 = Signal(reset_less=True)
        m.d.sync += [
            significand.eq(shifted[24:]),
            guard.eq(shifted[23]),
            sticky.eq(shifted[:23].any() | lost),
            biased.eq(Mux((top < 1) | ~product.any(), 0, Mux(top > 255, 255, top[:9]))),
            sign2.eq(sign),
            nan2.eq(nan),
            infinite2.eq(infinite),
        ]

        # Cycle 3: round.
        up = guard & (sticky | significand[0])
        out, overflow = rounded_fp32(
            m, biased, significand[:23], up, sign2, nan=nan2, infinite=infinite2, underflows=True
        )
        m.d.comb += [self.o.eq(out), self.overflow.eq(overflow)]
        return m


class Fp32ToFp16(wiring.Component):
    """Narrows FP32 to FP16: round to nearest even, subnormals kept, saturating at 65504; combinational.

    NaN gives 0x7E00, Inf saturates like any number too large; a zero result is +0.

    Members
    -------
    i : FP32, In
    o : FP16, Out
    saturated : Out
        The input is too large for FP16 (not NaN).
    """

    def __init__(self):
        super().__init__({"i": In(FP32), "o": Out(FP16), "saturated": Out(1)})

    def elaborate(self, platform):
        m = Module()
        value = self.i
        # FP16's exponent of this number were it normal; FP32 subnormals are far below half of FP16's smallest.
        top = Signal(signed(10))
        m.d.comb += top.eq(value.exponent - 112)
        right = Signal(4)
        with m.If(top < 1):
            m.d.comb += right.eq(Mux(top < -10, 12, 1 - top))
        significand = Cat(value.fraction, value.exponent.any())  # 24 bits, 13 below FP16's
        shifted, lost = shifted_right(m, significand, right, "shifted")
        sticky = shifted[:12].any() | lost
        up = shifted[12] & (sticky | shifted[13])
        exponent = Mux(top < 1, 0, top[:8])
        rounded = Signal(19)
        m.d.comb += rounded.eq(Cat(shifted[13:23], exponent) + up)
        nan = value.exponent.all() & value.fraction.any()
        m.d.comb += self.saturated.eq((rounded[10:] >= 31) & ~nan)
        with m.If(nan):
            m.d.comb += self.o.as_value().eq(FP16_NAN)
        with m.Elif(self.saturated):
            m.d.comb += self.o.as_value().eq(Cat(C(FP16_MAX, 15), value.sign))
        with m.Else():
            m.d.comb += self.o.as_value().eq(Cat(rounded[:15], value.sign & rounded.any()))
        return m

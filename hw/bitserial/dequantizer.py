"""Bit-serial dequantization: a group's partial sum times its 8-bit scaling factor."""

from amaranth import C, Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP32
from hw.arith.rounding import leading_zeros
from hw.bitserial.pe import EXP_BITS, BitSerialPE, PartialSum, Step
from spec import checks

__all__ = ["BitSerialDequantizer", "RescaledPE", "ScaledSum", "ScaledSumToFp32"]

SCALE_BITS = 8


class ScaledSum(data.StructLayout):
    """A rescaled partial sum, ``mantissa * 2**(exponent - 28)``; exact."""

    def __init__(self, accumulator_bits):
        super().__init__({"mantissa": signed(accumulator_bits + SCALE_BITS), "exponent": unsigned(EXP_BITS)})


class BitSerialDequantizer(wiring.Component):
    """Multiplies a partial sum by its group's scaling factor by shift and add (BitMoD section IV-B).

    Equation G1 of docs/weights.md: exact, 15 x 8 bits give 23. The scaling factor is consumed from its least
    significant digit while the product's low bits take its place in the same register, so the adder spans the
    mantissa only.

    Latency is ``8 / digit_bits`` cycles from ``i_valid`` to ``o_valid``; a partial sum may come that often. One that
    comes earlier replaces the one in work: the caller keeps the distance.

    Parameters
    ----------
    digit_bits : int
        Bits of the scaling factor consumed per cycle: 1, 2, 4 or 8.
    accumulator_bits : int
        Width of the partial sum's mantissa.

    Members
    -------
    i : PartialSum, In
    scale : unsigned 8, In
        Sampled with ``i_valid``.
    i_valid : In
    o : ScaledSum, Out
    o_valid : Out
        High for one cycle.

    Raises
    ------
    ValueError
        For a digit width that is not supported.
    """

    def __init__(self, digit_bits=1, accumulator_bits=15):
        checks.choice("digit_bits", digit_bits, (1, 2, 4, 8))
        self.digit_bits = digit_bits
        self.accumulator_bits = accumulator_bits
        self.cycles = SCALE_BITS // digit_bits
        self.latency = self.cycles
        super().__init__(
            {
                "i": In(PartialSum(accumulator_bits)),
                "scale": In(SCALE_BITS),
                "i_valid": In(1),
                "o": Out(ScaledSum(accumulator_bits)),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.accumulator_bits
        multiplicand = Signal(PartialSum(bits), reset_less=True)
        high = Signal(signed(bits + 1), reset_less=True)  # high part of the product so far
        low = Signal(SCALE_BITS, reset_less=True)  # digits still to come, product bits already final
        stage = Signal(self.cycles)  # one-hot: which digit is consumed in this cycle

        digit = low[: self.digit_bits]
        if self.digit_bits == 1:
            addend = multiplicand.mantissa & digit.replicate(bits).as_signed()
            carry = multiplicand.carry & digit
        else:
            addend = multiplicand.mantissa * digit
            carry = Mux(multiplicand.carry, digit, 0)
        total = Signal(signed(bits + 1 + self.digit_bits))
        m.d.comb += total.eq(high + addend + carry)

        m.d.sync += stage.eq(Cat(self.i_valid, stage[:-1]))
        with m.If(self.i_valid):
            m.d.sync += [multiplicand.eq(self.i), high.eq(0), low.eq(self.scale)]
        with m.Else():
            m.d.sync += Cat(low, high).eq(Cat(low[self.digit_bits :], total))
        m.d.comb += [
            # Taken before the register, which the next group may enter in the cycle of the last digit.
            self.o.mantissa.eq(Cat(low[self.digit_bits :], total)),
            self.o.exponent.eq(multiplicand.exponent),
            self.o_valid.eq(stage[-1]),
        ]
        return m


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


class RescaledPE(wiring.Component):
    """A complete processing element: :class:`BitSerialPE` feeding its :class:`BitSerialDequantizer`.

    The next group accumulates while the last one is rescaled: no bubble as long as a group lasts at least
    ``8 / digit_bits`` steps, which is for the caller to see to.

    ``scale`` is sampled 2 cycles after the group's last step. ``o_valid`` rises ``latency`` cycles after that step.
    Parameters and errors are those of the two parts.
    """

    def __init__(self, lanes=4, rounding="trunc", digit_bits=1, accumulator_bits=15):
        self.pe = BitSerialPE(lanes, rounding, accumulator_bits)
        self.dequantizer = BitSerialDequantizer(digit_bits, accumulator_bits)
        self.latency = self.pe.latency + self.dequantizer.latency
        super().__init__(
            {
                "step": In(Step(lanes)),
                "valid": In(1),
                "scale": In(SCALE_BITS),
                "o": Out(ScaledSum(accumulator_bits)),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.pe = pe = self.pe
        m.submodules.dequantizer = dequantizer = self.dequantizer
        m.d.comb += [
            pe.step.eq(self.step),
            pe.valid.eq(self.valid),
            dequantizer.i.eq(pe.o),
            dequantizer.scale.eq(self.scale),
            dequantizer.i_valid.eq(pe.o_valid),
            self.o.eq(dequantizer.o),
            self.o_valid.eq(dequantizer.o_valid),
        ]
        return m

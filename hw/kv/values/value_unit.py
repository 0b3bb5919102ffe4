"""The values a channel's codes can take, formed once per block: all arithmetic of the formats without a transform."""

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.fp16_sums import aligned_sum, held
from hw.arith.normalize import nearest_fp16
from hw.arith.ripple import above, add, increment
from hw.kv.layouts import Header
from hw.kv.packet.header import has_minima, is_ternary
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat

__all__ = ["ValueArithmetic", "ValueUnit", "multiple_of"]

GUARD = 4
"""Bits below the larger operand's last: three, and a sticky one. Enough for one exact rounding: `ValueArithmetic`."""
WINDOW = 14 + GUARD


def multiple_of(m: Module, code: Value, one_bit: Value, affine: Value, ternary: Value) -> tuple[Value, Value]:
    """What a code asks for: a multiple of the scale, or of its negative (on top of the minimum if ``affine``)."""
    multiplier = Signal(2)
    negative = Signal()
    with m.If(one_bit):
        m.d.comb += [multiplier.eq(1), negative.eq(~code[0])]
    with m.Elif(affine):
        m.d.comb += multiplier.eq(code)
    with m.Elif(ternary):
        m.d.comb += [multiplier.eq(~code[0]), negative.eq(~code[1])]
    with m.Else():
        m.d.comb += [multiplier.eq(Cat(1, code[0] == code[1])), negative.eq(~code[1])]
    return multiplier, negative


class ValueArithmetic(wiring.Component):
    """``R16(minimum +- multiplier * scale)`` on one FP16 adder (docs/kv-engine.md V1..V4, T1).

    The multiple (0, 1, 2 or 3 times the significand) is added to the aligned minimum; the sum is normalized and rounded
    once to nearest even, subnormals exact, beyond FP16 +-65504. In a transformed segment the value is the integer
    multiple itself. Carries ripple: the path is long, and small.

    Exact with three guard bits and a sticky one: whichever operand is shifted by 4 or more loses bits, but is then less
    than half of the other, which is normalized, so that the difference loses at most one leading bit.

    Latency 1 cycle: the sum waits in a register, which takes it with ``step``, for its rounding.

    Parameters
    ----------
    precomputed : bool
        The multiple comes ready as ``significand``, of 13 bits.
    transforms : bool
        There are transformed segments.

    Members
    -------
    significand, exponent : In
        As from :class:`hw.kv.packet.scales.ScaleDecoder`.
    multiplier, negative : In
        What to multiply it by; the sign of the multiple, only without a minimum.
    affine, minimum : In
        There is a minimum.
    transformed : In
    step : In
    value : Out
    beyond : Out
        The value was beyond FP16.
    """

    def __init__(self, *, precomputed: bool = False, transforms: bool = False):
        self.precomputed, self.transforms = precomputed, transforms
        super().__init__(
            {
                "significand": In(13 if precomputed else 11),
                "exponent": In(5),
                "multiplier": In(2),
                "negative": In(1),
                "affine": In(1),
                "minimum": In(16),
                "transformed": In(1),
                "step": In(1),
                "value": Out(16),
                "beyond": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        multiple = Signal(13)
        if self.precomputed:
            m.d.comb += multiple.eq(self.significand)
        else:
            once, twice = (self.significand & bit.replicate(11) for bit in self.multiplier)
            m.d.comb += multiple.eq(add(m, once, Cat(C(0, 1), twice)))
        magnitude, exponent, sign = self._add(m, multiple)
        transformed = C(0, 1)
        if self.transforms:
            opposite = multiple ^ self.negative.replicate(13)
            whole = increment(m, Cat(opposite, self.negative), self.negative).as_signed()
            transformed = self.transformed
            magnitude = Mux(transformed, whole, magnitude)[: len(magnitude)]
        magnitude, exponent, sign, transformed = held(m, self.step, magnitude, exponent, sign, transformed)
        # The window's top bit counts three more than the larger operand's exponent.
        bits, beyond = nearest_fp16(m, magnitude, add(m, exponent, C(2, 2)))
        m.d.comb += [self.value.eq(Cat(bits, sign & (bits != 0))), self.beyond.eq(beyond)]
        if self.transforms:
            with m.If(transformed):
                m.d.comb += [self.value.eq(magnitude), self.beyond.eq(0)]
        return m

    def _add(self, m, multiple):
        """|minimum + multiple| in the window, the larger operand's exponent, the sum's sign."""
        fraction, field = self.minimum[:10], self.minimum[10:15]
        minimum = Signal(11)
        minimum_exponent = Signal(5)
        scale_exponent = Signal(5)
        m.d.comb += [
            minimum.eq(Cat(fraction, field.any()) & self.affine.replicate(11)),
            minimum_exponent.eq(field | ~field.any()),
            scale_exponent.eq(self.exponent | ~self.exponent.any()),
        ]
        # One's complement: the difference less 1 if it is positive, its opposite's complement otherwise.
        difference = Signal(6)
        m.d.comb += difference.eq(add(m, minimum_exponent, ~scale_exponent))
        above = difference[5]
        shift = Signal(5)
        m.d.comb += shift.eq(increment(m, difference[:5] ^ (~above).replicate(5), above))
        # A multiple of 0 must not push the minimum out of the window.
        zero = multiple == 0 if self.precomputed else self.multiplier == 0
        scale_first = Signal()
        m.d.comb += scale_first.eq(~self.affine | ~(above | zero))
        larger = Signal(13)
        smaller = Signal(13)
        m.d.comb += [
            larger.eq(Mux(scale_first, multiple, minimum)),
            smaller.eq(Mux(scale_first, minimum, multiple)),
        ]
        subtract = Signal()
        m.d.comb += subtract.eq(self.minimum[15] & self.affine)
        # In the sign of the larger.
        magnitude, flipped = aligned_sum(m, larger, smaller, shift, subtract, GUARD)
        exponent = Signal(5)
        sign = Signal()
        m.d.comb += [
            exponent.eq(Mux(scale_first, scale_exponent, minimum_exponent)),
            sign.eq((flipped ^ (subtract & ~scale_first)) | self.negative),
        ]
        return magnitude, exponent, sign


class ValueUnit(wiring.Component):
    """Takes a channel's record, gives the values of its codes one after another (docs/kv-engine.md V1..V4, T1).

    A channel takes 2, 3 or 4 cycles, as many as it has values. Latency 1 cycle, with ``multiples`` 0.

    Parameters
    ----------
    config : KvEngineConfig
    multiples : bool
        Give the scale's multiples instead of the values: 13 bits, 5 of exponent, a sign.

    Members
    -------
    there, channel, significand, exponent, minimum : In
        A record; stays until ``last``.
    start : In
        Drop the value on its way.
    header : Header, In
        Of the block.
    last : Out
        This is the last cycle in which the record is needed.
    valid, entry, code, value : Out
        A value, its channel and its code.
    overflow : Out
        The value is beyond FP16.
    """

    def __init__(self, config: KvEngineConfig, multiples: bool = False):
        self.config, self.multiples = config, multiples
        super().__init__(
            {
                "there": In(1),
                "channel": In(7),
                "significand": In(11),
                "exponent": In(5),
                "minimum": In(16),
                "start": In(1),
                "header": In(Header),
                "last": Out(1),
                "valid": Out(1),
                "entry": Out(7),
                "code": Out(2),
                "value": Out(19 if multiples else 16),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header = self.header
        code = Signal(2)
        segment = Signal()
        ternary = Signal()
        one_bit = Signal()
        affine = Signal()
        m.d.comb += [
            segment.eq(above(m, self.channel[3:], header.segment0)),
            ternary.eq(is_ternary(self.config, header)),
            one_bit.eq(segment | (header.format == KvFormat.K1)),
            affine.eq(has_minima(self.config, header) & ~segment),
            self.last.eq((code[0] & one_bit) | (code[1] & (ternary | code[0]))),
        ]
        with m.If(self.last | ~self.there):
            m.d.sync += code.eq(0)
        with m.Else():
            m.d.sync += code.eq(increment(m, code))
        domain = m.d.comb if self.multiples else m.d.sync
        domain += [self.valid.eq(self.there & ~self.start), self.entry.eq(self.channel), self.code.eq(code)]
        multiplier, negative = multiple_of(m, code, one_bit, affine, ternary)
        if self.multiples:
            once, twice = (self.significand & bit.replicate(11) for bit in multiplier)
            m.d.comb += self.value.eq(Cat(add(m, once, Cat(C(0, 1), twice)), self.exponent, negative))
            return m
        transforms = bool(self.config.transforms)
        arithmetic = ValueArithmetic(transforms=transforms)
        m.submodules.arithmetic = arithmetic
        m.d.comb += [
            arithmetic.significand.eq(self.significand),
            arithmetic.exponent.eq(self.exponent),
            arithmetic.multiplier.eq(multiplier),
            arithmetic.negative.eq(negative),
            arithmetic.affine.eq(affine),
            arithmetic.minimum.eq(self.minimum),
            arithmetic.step.eq(1),
            self.value.eq(arithmetic.value),
            self.overflow.eq(self.valid & arithmetic.beyond),
        ]
        if transforms:
            m.d.comb += arithmetic.transformed.eq(Mux(segment, header.transform1, header.transform0) != 0)
        return m

"""The values a channel's codes can take, formed once per block: all arithmetic of the formats without a transform."""

from amaranth import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.kv.fp16 import round_fp16
from hw.spec.kv_formats import KvFormat

__all__ = ["ValueArithmetic", "ValueUnit", "multiple_of"]

GUARD = 4
"""Bits below the larger operand's last: three, and a sticky one. Enough for one exact rounding: `ValueArithmetic`."""


def multiple_of(m: Module, code: Value, one_bit: Value, affine: Value, ternary: Value) -> tuple[Value, Value]:
    """What a code asks for: a multiple of the scale, or of its negative (on top of the minimum if ``affine``)."""
    multiplier, negative = Signal(2), Signal()
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

    The multiple (0, 1, 2 or 3 times the significand) is added to the aligned minimum; after a register the sum is
    normalized and rounded once to nearest even, subnormals exact, beyond FP16 +-65504. In a transformed segment the
    value is the integer multiple itself.

    Exact with three guard bits and a sticky one: whichever operand is shifted by 4 or more loses bits, but is then less
    than half of the other, which is normalized, so that the difference loses at most one leading bit.

    Latency 1 step, throughput one value per step.

    Parameters
    ----------
    precomputed : bool
        The multiple comes ready as ``significand``, of 13 bits.

    Members
    -------
    significand, exponent : In
        As from :class:`hw.kv.scales.ScaleDecoder`.
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

    def __init__(self, precomputed: bool = False):
        self.precomputed = precomputed
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
        added = self._add(m)
        magnitude, place = (Signal.like(part, reset_less=True) for part in added[:2])
        sign, integer = Signal(reset_less=True), Signal(reset_less=True)
        with m.If(self.step):
            m.d.sync += [
                magnitude.eq(added[0]),
                place.eq(added[1]),
                sign.eq(Mux(self.affine, added[2], self.negative)),
                integer.eq(self.transformed),
            ]
        self._round(m, magnitude, place, sign, integer)
        return m

    def _add(self, m):
        """|minimum + multiplier * scale| in a window of 14 + GUARD bits, its exponent, its sign."""
        significand, exponent_field, transformed = self.significand, self.exponent, self.transformed
        minimum = Mux(self.affine, self.minimum, 0)
        fraction, field = minimum[:10], minimum[10:15]
        minimum_significand = Cat(fraction, field.any())
        multiple = Signal(13)
        if self.precomputed:
            m.d.comb += multiple.eq(significand)
        else:
            twice = Mux(self.multiplier[1], significand << 1, 0)
            m.d.comb += multiple.eq(Mux(self.multiplier[0], significand, 0) + twice)
        # Integers need no exponent; the largest keeps them unshifted.
        minimum_exponent, scale_exponent, distance = Signal(5), Signal(5), Signal(signed(6))
        m.d.comb += [
            minimum_exponent.eq(field | ~field.any()),
            scale_exponent.eq(exponent_field | ~exponent_field.any() | transformed.replicate(5)),
            distance.eq(minimum_exponent - scale_exponent),
        ]
        # A multiple of 0 must not push the minimum out of the window.
        scale_first = Signal()
        m.d.comb += scale_first.eq((distance < 0) & (multiple != 0))
        shift = Mux(distance < 0, -distance, distance)[:5]
        larger, smaller = Signal(13), Signal(13)
        m.d.comb += [
            larger.eq(Mux(scale_first, multiple, minimum_significand)),
            smaller.eq(Mux(scale_first, minimum_significand, multiple)),
        ]
        shifted, sticky = Cat(C(0, GUARD - 1), smaller), C(0, 1)
        for k in range(4):
            lost = Mux(shift[k], shifted[: 1 << k].any(), 0)
            sticky = sticky | lost
            shifted = Mux(shift[k], shifted >> (1 << k), shifted)
        aligned = Signal(13 + GUARD)
        m.d.comb += aligned.eq(Mux(shift[4], (shifted != 0) | sticky, Cat(sticky, shifted)))
        negative = minimum[15]
        total = Signal(signed(15 + GUARD))
        m.d.comb += total.eq(
            Cat(C(0, GUARD), larger) + (aligned ^ negative.replicate(15 + GUARD)) + negative
        )  # larger +- smaller, in the sign of the larger
        flipped = total[-1]
        magnitude = Signal(14 + GUARD)
        m.d.comb += magnitude.eq((total[:-1] ^ flipped.replicate(14 + GUARD)) + flipped)
        exponent = Mux(scale_first, scale_exponent, minimum_exponent)
        return magnitude, exponent, Mux(scale_first, flipped, negative ^ flipped)

    def _round(self, m, magnitude, exponent, sign, integer):
        """R16 of the window; the window's top bit counts three more than ``exponent``."""
        bits, beyond = round_fp16(m, magnitude, exponent + 3)
        whole = Signal(signed(14))
        m.d.comb += whole.eq((magnitude[GUARD : GUARD + 13] ^ sign.replicate(14)) + sign)
        with m.If(integer):
            m.d.comb += self.value.eq(whole)
        with m.Else():
            m.d.comb += [
                self.value.eq(Cat(bits, sign & (bits != 0))),
                self.beyond.eq(beyond),
            ]


class ValueUnit(wiring.Component):
    """Takes a channel's scale and minimum, gives the values of its codes one after another (docs/kv-engine.md V1..V4,
    T1).

    A channel takes 2, 3 or 4 cycles, as many as it has values; in formats with a minimum the first of them waits for
    it. Latency 1 cycle from there to the value.

    Parameters
    ----------
    multiples : bool
        Form no values but multiples of the scale: ``value`` is significand (13 bits), exponent (5) and sign.

    Members
    -------
    load_scale, significand, exponent, segment : In
        A channel's scale as from :class:`hw.kv.scales.ScaleDecoder`; only while ``free``.
    load_minimum, minimum : In
        Its minimum is there, and stays; only while ``waiting``.
    format, transformed : In
        Of the block, and of each segment; stable while the unit is not ``idle``.
    free, waiting : Out
        The next channel's scale may come; this one's minimum is missing.
    clear : In
        Give up.
    value, code, strobe, last : Out
        One value: 16 bits and its code; the last of its channel.
    overflow : Out
        With ``strobe``: the value was beyond FP16.
    idle : Out
        All values but one that is there in this cycle have come.
    """

    def __init__(self, multiples: bool = False):
        self.multiples = multiples
        super().__init__(
            {
                "load_scale": In(1),
                "significand": In(11),
                "exponent": In(5),
                "segment": In(1),
                "load_minimum": In(1),
                "minimum": In(16),
                "format": In(3),
                "transformed": In(2),
                "free": Out(1),
                "waiting": Out(1),
                "clear": In(1),
                "value": Out(19 if multiples else 16),
                "code": Out(2),
                "strobe": Out(1),
                "last": Out(1),
                "overflow": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        significand, exponent = Signal(11, reset_less=True), Signal(5, reset_less=True)
        segment = Signal(reset_less=True)
        busy, code = Signal(), Signal(2)

        # What the code asks for: a multiple of the scale, or of its negative, on top of the minimum.
        ternary, one_bit, affine = Signal(), Signal(), Signal()
        m.d.comb += [
            ternary.eq(self.format == KvFormat.V158),
            one_bit.eq(segment | (self.format == KvFormat.K1)),
            affine.eq(((self.format == KvFormat.K2) | (self.format == KvFormat.V2)) & ~segment),
        ]
        run, final = Signal(), Signal()
        m.d.comb += [
            final.eq(code[0] & one_bit | code[1] & (ternary | code[0])),
            self.waiting.eq(busy & affine & (code == 0)),
            run.eq(busy & (~self.waiting | self.load_minimum)),
            self.free.eq(~busy | (run & final)),
            self.idle.eq(~busy),
        ]
        with m.If(self.clear):
            m.d.sync += busy.eq(0)
        with m.Elif(self.free):
            m.d.sync += busy.eq(self.load_scale)
        with m.If(self.free):
            m.d.sync += code.eq(0)
        with m.Elif(run):
            m.d.sync += code.eq(code + 1)
        with m.If(self.load_scale):
            m.d.sync += [significand.eq(self.significand), exponent.eq(self.exponent), segment.eq(self.segment)]

        multiplier, negative = multiple_of(m, code, one_bit, affine, ternary)
        transformed = Signal()
        m.d.comb += transformed.eq(Mux(segment, self.transformed[1], self.transformed[0]))

        m.d.sync += [self.strobe.eq(run & ~self.clear), self.code.eq(code), self.last.eq(final)]
        if self.multiples:
            multiple = Mux(multiplier[0], significand, 0) + Mux(multiplier[1], significand << 1, 0)
            m.d.sync += self.value.eq(Cat(multiple[:13], exponent, negative))
            return m
        m.submodules.arithmetic = arithmetic = ValueArithmetic()
        m.d.comb += [
            arithmetic.significand.eq(significand),
            arithmetic.exponent.eq(exponent),
            arithmetic.multiplier.eq(multiplier),
            arithmetic.negative.eq(negative),
            arithmetic.affine.eq(affine),
            arithmetic.minimum.eq(self.minimum),
            arithmetic.transformed.eq(transformed),
            arithmetic.step.eq(1),
            self.value.eq(arithmetic.value),
            self.overflow.eq(self.strobe & arithmetic.beyond),
        ]
        return m

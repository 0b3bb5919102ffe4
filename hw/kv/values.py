"""The values a channel's codes can take, formed once per block: all arithmetic of the formats without a transform."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.kv.fp16 import round_fp16
from hw.kv.layouts import Record
from hw.spec.kv_formats import KvFormat

__all__ = ["ValueUnit", "value_count"]

GUARD = 4
"""Bits below the larger operand's last: three, and a sticky one. Enough for one exact rounding, see `ValueUnit`."""


def value_count(format, segment):
    """Codes of a channel: 2 in K1, 3 in V158, else 4."""
    one_bit = segment | (format == KvFormat.K1)
    return Mux(one_bit, 2, Mux(format == KvFormat.V158, 3, 4))


class ValueUnit(wiring.Component):
    """Takes a channel's scale and minimum, gives the values of its codes one after another (docs/kv-engine.md V1..V4,
    T1).

    ``R16(minimum + multiplier * scale)`` on one FP16 adder: the multiple (1, 2 or 3 times the significand) is added to
    the aligned minimum, then normalized and rounded once to nearest even, subnormals exact, beyond FP16 +-65504 with
    ``overflow``. In a transformed segment the value is the integer multiple itself.

    Exact with three guard bits and a sticky one: whichever operand is shifted by 4 or more loses bits, but is then less
    than half of the other, which is normalized, so that the difference loses at most one leading bit.

    Accepts a record every 2, 3 or 4 cycles, as many as it has values. Latency 2 cycles from a record to its first
    value.

    Members
    -------
    record, channel, valid, ready : In, In, In, Out
        A channel's metadata and number; taken when both are high.
    format, transformed : In
        Of the block, and of each segment; stable while the unit is not ``idle``.
    value, code, index : Out
        One value: 16 bits, its code, its channel.
    strobe : Out
        A value is there in this cycle.
    overflow : Out
        With ``strobe``: the value was beyond FP16.
    idle : Out
    """

    def __init__(self):
        super().__init__(
            {
                "record": In(Record),
                "channel": In(7),
                "valid": In(1),
                "ready": Out(1),
                "format": In(3),
                "transformed": In(2),
                "value": Out(16),
                "code": Out(2),
                "index": Out(7),
                "strobe": Out(1),
                "overflow": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        record = Signal(Record, reset_less=True)
        channel = Signal(7, reset_less=True)
        busy = Signal()
        code = Signal(2)
        final = Signal()
        m.d.comb += [
            final.eq(code == value_count(self.format, record.segment) - 1),
            self.ready.eq(~busy | final),
        ]
        with m.If(self.ready):
            m.d.sync += [busy.eq(self.valid), code.eq(0)]
            with m.If(self.valid):
                m.d.sync += [record.eq(self.record), channel.eq(self.channel)]
        with m.Else():
            m.d.sync += code.eq(code + 1)

        # What the code asks for: a multiple of the scale, or of its negative, on top of the minimum.
        one_bit = record.segment | (self.format == KvFormat.K1)
        affine = Signal()
        multiplier, negative = Signal(2), Signal()
        m.d.comb += affine.eq(((self.format == KvFormat.K2) | (self.format == KvFormat.V2)) & ~record.segment)
        with m.If(one_bit):
            m.d.comb += [multiplier.eq(1), negative.eq(~code[0])]
        with m.Elif(affine):
            m.d.comb += multiplier.eq(code)
        with m.Elif(self.format == KvFormat.V158):
            m.d.comb += [multiplier.eq(~code[0]), negative.eq(~code[1])]
        with m.Else():
            m.d.comb += [multiplier.eq(Cat(1, code[0] == code[1])), negative.eq(~code[1])]
        transformed = Signal()
        m.d.comb += transformed.eq(Mux(record.segment, self.transformed[1], self.transformed[0]))

        added = self._add(m, record, multiplier, affine, transformed)
        magnitude, exponent, sum_negative = (Signal.like(part, reset_less=True) for part in added)
        sign, integer = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            self.strobe.eq(busy),
            self.code.eq(code),
            self.index.eq(channel),
            magnitude.eq(added[0]),
            exponent.eq(added[1]),
            sign.eq(Mux(affine, added[2], negative)),
            integer.eq(transformed),
        ]
        del sum_negative
        m.d.comb += self.idle.eq(~busy & ~self.strobe)
        self._round(m, magnitude, exponent, sign, integer)
        return m

    def _add(self, m, record, multiplier, affine, transformed):
        """|minimum + multiplier * scale| in a window of 14 + GUARD bits, its exponent, its sign."""
        minimum = Mux(affine, record.minimum, 0)
        fraction, field = minimum[:10], minimum[10:15]
        minimum_significand = Cat(fraction, field.any())
        multiple = Signal(13)
        m.d.comb += multiple.eq(
            Mux(multiplier[0], record.significand, 0) + Mux(multiplier[1], record.significand << 1, 0)
        )
        # Integers need no exponent; the largest keeps them unshifted.
        minimum_exponent, scale_exponent, distance = Signal(5), Signal(5), Signal(signed(6))
        m.d.comb += [
            minimum_exponent.eq(field | ~field.any()),
            scale_exponent.eq(record.exponent | ~record.exponent.any() | transformed.replicate(5)),
            distance.eq(minimum_exponent - scale_exponent),
        ]
        # A multiple of 0 must not push the minimum out of the window.
        scale_first = Signal()
        m.d.comb += scale_first.eq((distance < 0) & (multiplier != 0))
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
                self.overflow.eq(self.strobe & beyond),
            ]

"""Stored scales to FP16 fields or integers."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.normalize import normalize
from hw.arith.ripple import above, increment
from hw.kv.layouts import Header
from hw.kv.packet.header import has_minima
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvMetadata

__all__ = ["ScaleDecoder"]


class ScaleDecoder(wiring.Component):
    """A scale as stored (docs/kv-engine.md, section 1) to what a value unit takes; combinational.

    Q8 and F6 scales ``a * 2^E`` become FP16 exactly: a is shifted to FP16's 11-bit significand, or as far as its
    smallest exponent allows. No multiplier, because the base is a power of two.

    Members
    -------
    whole, byte, field : In
        The scale's 16, 8 or 6 bits.
    header, channel : Header, In
        Of the scale's block; number of its channel.
    segment, affine, last : Out
        The channel's segment; it has a minimum, too; it is the block's last channel.
    significand, exponent : Out
        ``significand * 2^(max(exponent, 1) - 25)`` (FP16's fields with the hidden bit put in), or in a transformed
        segment the integer ``significand``.
    bad : Out
        Negative or not finite; in a transformed segment above 2047.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "whole": In(16),
                "byte": In(8),
                "field": In(6),
                "header": In(Header),
                "channel": In(7),
                "segment": Out(1),
                "affine": Out(1),
                "last": Out(1),
                "significand": Out(11),
                "exponent": Out(5),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header, raw = self.header, self.whole
        transformed = Signal()
        code = Mux(self.segment, header.exponent1, header.exponent0)
        m.d.comb += [
            self.segment.eq(above(m, self.channel[3:], header.segment0)),
            self.affine.eq(has_minima(self.config, header) & ~self.segment),
            self.last.eq((self.channel[3:] == header.channels) & self.channel[:3].all()),
        ]
        if self.config.transforms:
            m.d.comb += transformed.eq(Mux(self.segment, header.transform1, header.transform0) != 0)
        leading = Cat(self.field[:4], self.field[4:].any())
        integer = Signal(8)
        with m.If(header.metadata == KvMetadata.F6):
            m.d.comb += integer.eq(Mux(self.field[5], Mux(self.field[4], leading << 2, leading << 1), leading)[:8])
        with m.Else():
            m.d.comb += integer.eq(self.byte)

        # To 11 bits, but no further than the exponent can pay for.
        shifted, left = normalize(m, Cat(integer, C(0, 3)), code)
        fp16 = header.metadata == KvMetadata.FP16
        field = raw[10:15]
        with m.If(transformed):
            m.d.comb += self.significand.eq(integer)
            if self.config.scale_bits > 8:
                with m.If(fp16):
                    m.d.comb += [self.significand.eq(raw), self.bad.eq(raw[11:] != 0)]
        with m.Elif(fp16):
            m.d.comb += [
                self.significand.eq(Cat(raw[:10], field.any())),
                self.exponent.eq(field),
                self.bad.eq(raw[15] | (field == 31)),
            ]
        with m.Else():
            m.d.comb += [
                self.significand.eq(shifted),
                # A zero never reaches the hidden bit.
                self.exponent.eq(increment(m, left) & shifted[10].replicate(5)),
            ]
        return m

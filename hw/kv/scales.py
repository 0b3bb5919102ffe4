"""Stored scales to FP16 fields or integers."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.kv_config import KvEngineConfig
from hw.spec.kv_formats import KvMetadata

__all__ = ["ScaleDecoder"]


class ScaleDecoder(wiring.Component):
    """A scale as stored (docs/kv-engine.md, section 1) to what a value unit takes; combinational.

    Q8 and F6 scales ``a * 2^E`` become FP16 exactly: a is shifted to FP16's 11-bit significand, or as far as its
    smallest exponent allows. No multiplier, because the base is a power of two.

    Members
    -------
    raw : In
        The field, low bits first, anything above it.
    kind : In
        :class:`KvMetadata` code.
    exponent_code : In
        E + 24.
    transformed : In
        Give the integer a.
    significand, exponent : Out
        As in :class:`hw.kv.layouts.Record`.
    bad : Out
        Negative or not finite; in a transformed segment above 2047.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "raw": In(16),
                "kind": In(2),
                "exponent_code": In(5),
                "transformed": In(1),
                "significand": Out(11),
                "exponent": Out(5),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        raw = self.raw
        integer = Signal(8)
        with m.If(self.kind == KvMetadata.F6):
            leading = Cat(raw[:4], raw[4:6].any())
            with m.Switch(raw[4:6]):
                with m.Case(2):
                    m.d.comb += integer.eq(leading << 1)
                with m.Case(3):
                    m.d.comb += integer.eq(leading << 2)
                with m.Default():
                    m.d.comb += integer.eq(leading)
        with m.Else():
            m.d.comb += integer.eq(raw[:8])

        zeros = Signal(4)
        m.d.comb += zeros.eq(8)
        for k in range(8):
            with m.If(integer[k]):
                m.d.comb += zeros.eq(7 - k)
        code = self.exponent_code
        normal = zeros + 3
        shift = Signal(4)
        is_normal = Signal()
        m.d.comb += [
            is_normal.eq(code >= normal),
            shift.eq(Mux(is_normal, normal, code)),
        ]
        fp16 = self.kind == KvMetadata.FP16
        field = raw[10:15]
        with m.If(self.transformed):
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
                self.significand.eq(integer << shift),
                # A zero never reaches the hidden bit: its exponent does not matter.
                self.exponent.eq(Mux(is_normal, code - shift + 1, 0)),
            ]
        return m

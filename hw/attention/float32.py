"""Integers times powers of two to FP32."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import UNIT_BITS
from hw.fp32 import FP32

__all__ = ["SignedToFp32"]

FRACTION_BITS = 23


class SignedToFp32(wiring.Component):
    """``fl32(i * 2**unit)``: rounds once, to nearest even; zero gives +0. Results must be normal numbers or zero.

    Latency ``latency`` cycles, one per cycle, no back-pressure.

    Parameters
    ----------
    bits : int
        Of ``i``, signed; 26 or more.

    Members
    -------
    i, unit : In
    o : FP32, Out
    """

    latency = 2

    def __init__(self, bits: int):
        self.bits = bits
        super().__init__({"i": In(signed(bits)), "unit": In(signed(UNIT_BITS)), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        width = self.bits - 1
        sign = self.i[-1]
        value = Signal(width, name="magnitude")
        m.d.comb += value.eq((self.i[:-1] ^ sign.replicate(width)) + sign)
        # Cycle 1: the leading one to the top, by powers of two; the exponent falls by as much.
        zeros = []
        for k in reversed(range((width - 1).bit_length())):
            none, moved = Signal(name=f"none{k}"), Signal(width, name=f"moved{k}")
            m.d.comb += none.eq(~value[-min(1 << k, width) :].any())
            m.d.comb += moved.eq(Mux(none, Cat(C(0, min(1 << k, width)), value)[:width], value))
            zeros.insert(0, none)
            value = moved
        normal = Signal(width, reset_less=True)
        exponent, negative = Signal(8, reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            normal.eq(value),
            exponent.eq(self.unit + (127 + width - 1) - Cat(zeros)),
            negative.eq(sign),
        ]
        # Cycle 2: round.
        below = width - 1 - FRACTION_BITS
        guard = normal[below - 1]
        up = guard & (normal[: below - 1].any() | normal[below]) if below > 1 else guard & normal[below]
        rounded = Signal(31)
        m.d.comb += rounded.eq(Cat(normal[below:-1], exponent) + up)
        out = Signal(32, reset_less=True)
        m.d.sync += out.eq(Mux(normal[-1], Cat(rounded, negative), 0))
        m.d.comb += self.o.eq(out)
        return m

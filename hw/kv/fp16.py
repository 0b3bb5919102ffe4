"""Integers to FP16."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["FP16_MAX", "IntegerToFp16", "round_fp16"]

FP16_MAX = 0x7BFF


def round_fp16(m: Module, magnitude: Value, top: Value) -> tuple[Value, Value]:
    """R16 of docs/kv-engine.md: (the lower 15 bits of the FP16 number, it was beyond FP16 and became 65504).

    ``top`` is the biased exponent of a number whose highest bit is the magnitude's top bit; 1 or more. One leading-zero
    count and one shift serve subnormals too: the shift stops where the exponent would fall below 1.
    """
    width = len(magnitude)
    zeros = Signal(range(width + 1), name="zeros")
    m.d.comb += zeros.eq(width)
    for k in range(width):
        with m.If(magnitude[k]):
            m.d.comb += zeros.eq(width - 1 - k)
    most = Signal(range(width + 1), name="most")
    shift = Signal(range(width + 1), name="shift")
    shifted = Signal(width, name="shifted")
    m.d.comb += [
        most.eq(Mux(top > width, width, top - 1)),
        shift.eq(Mux(zeros < most, zeros, most)),
        shifted.eq(magnitude << shift),
    ]
    exponent = Signal(6, name="exponent")
    m.d.comb += exponent.eq(Mux(shifted[-1], top - shift, 0))
    fraction, half, rest = shifted[width - 11 : width - 1], shifted[width - 12], shifted[: width - 12].any()
    rounded = Signal(17, name="rounded")
    m.d.comb += rounded.eq(Cat(fraction, exponent) + (half & (rest | fraction[0])))
    beyond = rounded[10:] >= 31
    return Mux(beyond, FP16_MAX, rounded[:15]), beyond


class IntegerToFp16(wiring.Component):
    """``R16(i * 2^(code - 24 - guard))``; combinational.

    Parameters
    ----------
    width : int
        Bits of ``i``, signed.
    guard : int
        Fraction bits of ``i``.

    Members
    -------
    i : In
    code : In
        Exponent code as in the header, 0..31 and a little beyond.
    o : Out
        FP16; zero is +0.
    beyond : Out
        The number was beyond FP16: ``o`` is +-65504.
    """

    def __init__(self, width: int, guard: int = 0):
        self.width, self.guard = width, guard
        super().__init__({"i": In(signed(width)), "code": In(6), "o": Out(16), "beyond": Out(1)})

    def elaborate(self, platform):
        m = Module()
        sign = self.i[-1]
        magnitude = Signal(self.width)
        m.d.comb += magnitude.eq((self.i ^ sign.replicate(self.width)) + sign)
        # A magnitude of 1 at exponent code 0 is 2^-24, FP16's last place where the biased exponent is 1 or 0.
        top = Signal(range(64))
        m.d.comb += top.eq(self.code + self.width - 10 - self.guard)
        bits, beyond = round_fp16(m, magnitude, top)
        m.d.comb += [self.o.eq(Cat(bits, sign & (bits != 0))), self.beyond.eq(beyond)]
        return m

"""Integers to FP16."""

from amaranth import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.formats import FP16_MAX

__all__ = ["IntegerToFp16"]


def _leading_zeros(bits: list[Value]) -> tuple[list[Value], Value]:
    """Zeros before the first 1 of ``bits``, their count a power of two; (count's bits, highest first; any is 1)."""
    if len(bits) == 1:
        return [], bits[0]
    half = len(bits) // 2
    (high, in_high), (low, in_low) = _leading_zeros(bits[:half]), _leading_zeros(bits[half:])
    return [~in_high, *(Mux(in_high, a, b) for a, b in zip(high, low, strict=True))], in_high | in_low


class IntegerToFp16(wiring.Component):
    """``R16(i * 2^(code - 24 - guard))``; combinational.

    Negative numbers are normalized as their one's complement, filled with ones from below; the missing 1 is added with
    the rounding. Subnormals: a 1 in the place of 2^-14 ends the search for the leading one, so that the shift stops
    there; the bit itself stays what it is, and tells if the result is normal.

    Parameters
    ----------
    width : int
        Bits of ``i``, signed; 13 or more.
    guard : int
        Fraction bits of ``i``.
    whole : bool
        ``i`` is a multiple of 2^-24 after scaling, so that nothing but zero becomes zero.

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

    def __init__(self, width: int, guard: int = 0, whole: bool = False):
        self.width, self.guard, self.whole = width, guard, whole
        super().__init__({"i": In(signed(width)), "code": In(6), "o": Out(16), "beyond": Out(1)})

    def elaborate(self, platform):
        m = Module()
        size, lowest = self.width - 1, 10 + self.guard
        sign = self.i[-1]
        flipped = Signal(size)
        m.d.comb += flipped.eq(self.i[:-1] ^ sign.replicate(size))
        marks = [flipped[k] | (self.code == lowest - k if k <= lowest else 0) for k in range(size)]
        padding = (1 << ceil_log2(size + 1)) - size
        found, _ = _leading_zeros([*reversed(marks), *[C(1, 1)] * padding])
        zeros = Signal(len(found))
        m.d.comb += zeros.eq(Cat(reversed(found)))

        # Where a shift comes from is zero: its bits are added by OR.
        kept = flipped
        for k in reversed(range(len(zeros))):
            moved, distance = Signal(size, name=f"moved{k}"), 1 << k
            for bit in range(size):
                source = kept[bit - distance] if bit >= distance else sign
                joined = kept[bit] | (zeros[k] & source)
                m.d.comb += moved[bit].eq(joined if bit >= size - distance else Mux(zeros[k], source, kept[bit]))
            kept = moved

        normal, fraction, half, rest = kept[-1], kept[-11:-1], kept[-12], kept[:-12]
        up = Mux(sign, half | (rest.all() & fraction[0]), half & (rest.any() | fraction[0]))
        exponent = Signal(6)
        far = Signal()
        bits = Signal(15)
        largest = Signal()
        m.d.comb += [
            # The leading one at place p counts p + code - 9 - guard.
            exponent.eq(self.code + (size - 10 - self.guard) - zeros),
            far.eq(normal & (exponent >= 31)),
            bits.eq(Mux(far, FP16_MAX, Cat(fraction, Mux(normal, exponent[:5], 0)))),
            largest.eq(bits == FP16_MAX),
            self.beyond.eq(far | (largest & up)),
        ]
        rounded = (bits + (up & ~largest))[:15]
        m.d.comb += self.o.eq(Cat(rounded, sign if self.whole else sign & (rounded != 0)))
        return m

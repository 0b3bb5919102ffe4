"""Five ternary digits out of a byte."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.ripple import add
from spec.kv_block import TRITS_PER_BYTE

__all__ = ["TritDecoder"]


class TritDecoder(wiring.Component):
    """Digits of ``byte`` in base 3, the lowest first; combinational.

    The highest digit first: each is whether what is left of the byte reaches once and twice its weight. The digits of
    an invalid byte, 243 or more, mean nothing.

    Members
    -------
    byte : In
    digits : Out
    invalid : Out
    """

    def __init__(self):
        super().__init__({"byte": In(8), "digits": Out(data.ArrayLayout(2, TRITS_PER_BYTE)), "invalid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.invalid.eq(self.byte >= 3**TRITS_PER_BYTE)
        rest = self.byte
        for k in reversed(range(1, TRITS_PER_BYTE)):
            weight, width = 3**k, (3**k - 1).bit_length()
            once, twice = Signal(len(rest) + 1, name=f"once{k}"), Signal(len(rest) + 1, name=f"twice{k}")
            left = Signal(width, name=f"left{k}")
            m.d.comb += [
                once.eq(add(m, rest, C(-weight, len(rest)))),
                twice.eq(add(m, rest, C(-2 * weight, len(rest)))),
                self.digits[k].eq(Cat(once[-1] & ~twice[-1], twice[-1])),
                left.eq(Mux(twice[-1], twice, Mux(once[-1], once, rest))),
            ]
            rest = left
        m.d.comb += self.digits[0].eq(rest)
        return m

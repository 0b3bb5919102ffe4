"""Five ternary digits out of a byte."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.spec.kv_block import TRITS_PER_BYTE

__all__ = ["TritDecoder"]


class TritDecoder(wiring.Component):
    """Digits of ``byte`` in base 3, the lowest first; combinational.

    Members
    -------
    byte : In
    digits : Out
        Five of 0..2; unspecified with ``invalid``.
    invalid : Out
        The byte is 243 or more.
    """

    def __init__(self):
        super().__init__({"byte": In(8), "digits": Out(data.ArrayLayout(2, TRITS_PER_BYTE)), "invalid": Out(1)})

    def elaborate(self, platform):
        m = Module()
        rest = self.byte
        for k in reversed(range(TRITS_PER_BYTE)):
            power = 3**k
            two, one = Signal(name=f"two{k}"), Signal(name=f"one{k}")
            less = Signal(range(3 * power), name=f"rest{k}")
            m.d.comb += [
                two.eq(rest >= 2 * power),
                one.eq(~two & (rest >= power)),
                self.digits[k].eq(Cat(one, two)),
                less.eq(rest - Mux(two, 2 * power, Mux(one, power, 0))),
            ]
            rest = less[: max(1, (power - 1).bit_length())]
        m.d.comb += self.invalid.eq(self.byte >= 3**TRITS_PER_BYTE)
        return m

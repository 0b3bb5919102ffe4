"""Five ternary digits out of a byte."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.spec.kv_block import TRITS_PER_BYTE

__all__ = ["INVALID_DIGIT", "TritDecoder"]

INVALID_DIGIT = 3


class TritDecoder(wiring.Component):
    """Digits of ``byte`` in base 3, the lowest first; combinational.

    Long division by 3, bit by bit, of the byte and then of each quotient: the remainders are the digits. A byte of 243
    or more is invalid and gives :data:`INVALID_DIGIT` five times.

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
        dividend = list(self.byte)
        for k in range(TRITS_PER_BYTE):
            remainder = Cat(dividend[-1], 0)
            quotient = []
            for place in reversed(range(len(dividend) - 1)):
                step = Signal(2, name=f"step{k}_{place}")
                high, low, bit = remainder[1], remainder[0], dividend[place]
                m.d.comb += step.eq(Cat((high & ~bit) | (~high & ~low & bit), (low & ~bit) | (high & bit)))
                quotient.append(high | (low & bit))
                remainder = step
            m.d.comb += self.digits[k].eq(remainder | self.invalid.replicate(2))
            limit = (3 ** (TRITS_PER_BYTE - 1 - k) - 1).bit_length()
            dividend = list(reversed(quotient))[:limit]
            if not dividend:
                break
        return m

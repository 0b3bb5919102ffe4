"""Odd multiples of aligned activations, computed once for all PEs that share them."""

from amaranth import C, Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.carry import add_select
from hw.prealigned.pe import MultipleBeat
from spec.prealigned import PrealignedConfig

__all__ = ["OddMultiples"]

# Each as sign, shift of a second term to be added to the first: 3 = 1 + 2, 5 = 1 + 4, 7 = -1 + 8.
_RECIPES = {3: (1, 1), 5: (1, 2), 7: (-1, 3), 9: (1, 3), 15: (-1, 4)}


class OddMultiples(wiring.Component):
    """Computes 3q, 5q, ... of a beat of aligned activations, as many as the digit set has; exact.

    Latency ``latency`` cycles, throughput a beat per cycle; there is no back-pressure.

    Parameters
    ----------
    config : PrealignedConfig

    Members
    -------
    integers : array of signed, In
        One per lane, ``activation_bits`` each.
    o : MultipleBeat, Out

    Raises
    ------
    ValueError
        For a digit set with the odd multiples 11 or 13, which take more than one addition.
    """

    latency = 2

    def __init__(self, config: PrealignedConfig):
        unknown = set(config.digits.odd_multiples) - {1, *_RECIPES}
        if unknown:
            raise ValueError(f"digits must have no odd multiple but 1, 3, 5, 7, 9 and 15, not {sorted(unknown)}")
        self.config = config
        super().__init__(
            {
                "i": In(data.StructLayout({"integers": data.ArrayLayout(config.activation_bits, config.lanes)})),
                "o": Out(MultipleBeat(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        for lane in range(config.lanes):
            integer = self.i.integers[lane]
            delayed = Signal(config.activation_bits, name=f"x1_{lane}_held", reset_less=True)
            m.d.sync += delayed.eq(integer)
            for odd in config.digits.odd_multiples:
                width = config.multiple_bits(odd)
                result = delayed
                if odd != 1:
                    sign, shift = _RECIPES[odd]
                    extended = Cat(integer, integer[-1].replicate(width))[:width]
                    other = Cat(C(0, shift), extended)[:width]
                    if sign < 0:
                        extended = ~extended
                    carry = C(int(sign < 0), 1)
                    result = add_select(m, extended, other, f"x{odd}_{lane}", carry, segment_bits=6)[:width]
                register = Signal(width, name=f"x{odd}_{lane}", reset_less=True)
                m.d.sync += register.eq(result)
                m.d.comb += self.o[f"x{odd}"][lane].eq(register)
        return m

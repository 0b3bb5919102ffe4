"""The programmable special values that FP3's and FP4's negative-zero codes stand for."""

from amaranth import Cat, Const, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from spec.datatypes import SPECIAL_LIMIT, Datatype, special_value_allowed

__all__ = ["SPECIAL_VALUES", "Special", "SpecialValueRegisters", "SpecialWrite"]

SPECIAL_VALUES = 8
"""Registers: FP3's four, then FP4's four."""


class Special(data.Struct):
    """A special value in sign and magnitude, in integer units of its datatype (FP4: half-units)."""

    magnitude: 5
    sign: 1


class SpecialWrite(data.Struct):
    """A write: two's complement ``value`` to register ``index`` (0..3 FP3, 4..7 FP4)."""

    value: signed(8)
    index: 3


class SpecialValueRegisters(wiring.Component):
    """Eight registers of special values.

    They reset to BitMoD's (Table IV): FP3 +3, -3, +6, -6; FP4 +10, -10, +16, -16 half-units. A value that the decoder's
    two terms cannot represent (``spec.datatypes.special_value_allowed``) is refused: the register keeps what it had
    and ``refused`` is high in the cycle of the transfer. A write takes effect in the next cycle.

    Parameters
    ----------
    signed_special_terms : bool
        Whether differences of two terms are representable (7 = 8 - 1).

    Members
    -------
    i : stream of SpecialWrite, In
        Always ready.
    refused : Out
    o : array of 8 Special, Out
    """

    def __init__(self, signed_special_terms=False):
        self.signed_special_terms = signed_special_terms
        super().__init__(
            {
                "i": In(stream.Signature(SpecialWrite)),
                "refused": Out(1),
                "o": Out(data.ArrayLayout(Special, SPECIAL_VALUES)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        defaults = Datatype.FP3.special_values + Datatype.FP4.special_values
        registers = Signal(
            data.ArrayLayout(Special, SPECIAL_VALUES),
            init=[{"magnitude": abs(value), "sign": value < 0} for value in defaults],
        )
        write = self.i.payload
        magnitude = Signal(8)
        m.d.comb += magnitude.eq(abs(write.value))
        allowed = Signal()
        with m.Switch(magnitude):
            for value in range(SPECIAL_LIMIT + 1):
                if special_value_allowed(value, signed_terms=self.signed_special_terms):
                    with m.Case(Const(value, 8).value):
                        m.d.comb += allowed.eq(1)
            with m.Default():
                pass
        m.d.comb += [self.o.eq(registers), self.i.ready.eq(1), self.refused.eq(self.i.valid & ~allowed)]
        with m.If(self.i.valid & allowed):
            m.d.sync += registers[write.index].eq(Cat(magnitude[:5], write.value < 0))
        return m

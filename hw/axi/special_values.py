"""Special values behind the bus: checked when written, kept for reading back."""

from collections.abc import Collection

from amaranth import Cat, Const, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.special_values import SPECIAL_VALUES
from spec import checks
from spec.datatypes import SPECIAL_LIMIT, Datatype

__all__ = ["SpecialValueFile"]


class SpecialValueFile(wiring.Component):
    """Special values of FP3 (0..3) and FP4 (4..7) as the bus writes and reads them.

    They reset to BitMoD's (Table IV). A value that is not allowed, or one written while ``locked``, is refused: the old
    one stays.

    Parameters
    ----------
    allowed : collection of int
        Values that the build's decoder can represent, within +-16.
    allowed_fp4 : collection of int
        The same for FP4, where that differs.

    Members
    -------
    write : In, 8
        One cycle, bit i: write ``data`` to value i.
    data : signed 8, In
    locked : In
    values : array of 8 signed 8, Out
    changed : Out, 8
        With ``write``: value i is accepted, and on ``values`` in the next cycle.
    refused : Out
        With ``write``: ``data`` is not allowed. Writes while ``locked`` are not reported here.
    """

    def __init__(self, allowed: Collection[int], allowed_fp4: Collection[int] | None = None):
        allowed_fp4 = allowed if allowed_fp4 is None else allowed_fp4
        for value in (*allowed, *allowed_fp4):
            checks.whole("each of allowed", value, -SPECIAL_LIMIT, SPECIAL_LIMIT)
        self.allowed = (frozenset(allowed), frozenset(allowed_fp4))
        super().__init__(
            {
                "write": In(SPECIAL_VALUES),
                "data": In(signed(8)),
                "locked": In(1),
                "values": Out(signed(8)).array(SPECIAL_VALUES),
                "changed": Out(SPECIAL_VALUES),
                "refused": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        half = SPECIAL_VALUES // 2
        representable = Signal(len(self.allowed))
        for index, allowed in enumerate(self.allowed):
            with m.Switch(self.data):
                with m.Case(*(Const(value, signed(8)) for value in sorted(allowed))):
                    m.d.comb += representable[index].eq(1)
                with m.Default():
                    pass
        good = Cat(bit.replicate(half) for bit in representable) & (~self.locked).replicate(SPECIAL_VALUES)
        m.d.comb += [
            self.changed.eq(self.write & good),
            self.refused.eq((self.write & ~good).any() & ~self.locked),
        ]
        defaults = Datatype.FP3.special_values + Datatype.FP4.special_values
        for index, default in enumerate(defaults):
            held = Signal(signed(8), name=f"special_{index}", init=default)
            m.d.comb += self.values[index].eq(held)
            with m.If(self.changed[index]):
                m.d.sync += held.eq(self.data)
        return m

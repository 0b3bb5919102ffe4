"""Sticky error code and counter."""

from amaranth import C, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.ripple import add
from hw.kv.layouts import ERROR_BITS

__all__ = ["ErrorLog"]

COUNTER_BITS = 16


class ErrorLog(wiring.Component):
    """Keeps the first error code since the last clear, and counts bad packets up to 65535.

    Members
    -------
    code, strobe : In
        An error; of two in one cycle, `late`'s comes second.
    late, late_strobe : In
        Another source, further down the pipeline.
    bad : In
        A bad packet has left.
    clear : In
        Forget everything; an error of the same cycle is kept.
    error, count : Out
    """

    def __init__(self):
        super().__init__(
            {
                "code": In(ERROR_BITS),
                "strobe": In(1),
                "late": In(ERROR_BITS),
                "late_strobe": In(1),
                "bad": In(1),
                "clear": In(1),
                "error": Out(ERROR_BITS),
                "count": Out(COUNTER_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        following = add(m, self.count & (~self.clear).replicate(COUNTER_BITS), C(0, 0), self.bad)
        with m.If(~following[-1]):
            m.d.sync += self.count.eq(following)
        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        with m.If((self.error == 0) | self.clear):
            with m.If(self.strobe):
                m.d.sync += self.error.eq(self.code)
            with m.Elif(self.late_strobe):
                m.d.sync += self.error.eq(self.late)
        return m

"""When groups may end: sums leave through the drain chains, and wait for their running sums."""

from functools import reduce
from operator import or_

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.prealigned.accumulator import RunningSums
from spec.core import CoreConfig

__all__ = ["MOST_DELAY", "SumSchedule"]

MOST_DELAY = 8
"""Cycles that a group's sums may wait for their running sums."""


class SumSchedule(wiring.Component):
    """Plans for each group that ends when its sums are added, and says whether a group may end.

    Equations R1 and R2 of docs/core.md: a group that ends in cycle t is added in cycle ``t + w`` (both in the same
    pipeline), w the least number of 0 to ``MOST_DELAY`` for which that is ``config.drain_cycles`` after the group
    before, and ``RunningSums.interval`` after every group of the same sums. With no such w, or
    ``config.drain_cycles`` not yet over, it may not end.

    Waiting times are kept in unary, bit k saying that k cycles are not enough: so the latest of several is their or.

    Members
    -------
    index : In
        The running sums of the group that may end next.
    may_end : Out
    ended : In
        It ends; only with ``may_end``.
    adds : Out
        Registered: the next group's sums are added, groups in order.
    """

    def __init__(self, config: CoreConfig, index_bits: int):
        self.config = config
        super().__init__({"index": In(index_bits), "may_end": Out(1), "ended": In(1), "adds": Out(1)})

    def elaborate(self, platform):
        m = Module()
        drain, interval = self.config.drain_cycles, RunningSums.interval
        drains = Signal(drain - 1)
        adding = Signal(MOST_DELAY + drain - 1)  # until another group's sums can be added
        # Until the same sums can be again, for each of the groups that may be younger than the interval.
        entry = data.StructLayout({"wait": MOST_DELAY + interval - 1, "index": len(self.index)})
        recent = [Signal(entry, name=f"recent{k}") for k in range(-(-interval // drain) - 1)]
        wait = Signal(MOST_DELAY + 1)
        same = (one.wait & (one.index == self.index).replicate(len(one.wait)) for one in recent)
        m.d.comb += [
            wait.eq(reduce(or_, (one[: len(wait)] for one in same), adding[: len(wait)])),
            self.may_end.eq(~wait[-1] & ~drains[0]),
        ]
        planned = Signal(MOST_DELAY)  # bit k: sums to be added k cycles from now
        now = Signal(MOST_DELAY + 1)
        chosen = ~wait & Cat(C(1, 1), wait[:-1])  # one-hot
        m.d.comb += now.eq(planned | (chosen & self.ended.replicate(len(chosen))))
        m.d.sync += [
            planned.eq(now[1:]),
            self.adds.eq(now[0]),
            drains.eq(Mux(self.ended, -1, drains >> 1)),
            adding.eq(Mux(self.ended, Cat(C(-1, drain - 1), wait[:-1]), adding >> 1)),
            *(one.wait.eq(one.wait >> 1) for one in recent),
        ]
        with m.If(self.ended):
            for one, before in zip(recent[1:], recent[:-1], strict=True):
                m.d.sync += [one.wait.eq(before.wait >> 1), one.index.eq(before.index)]
            for one in recent[:1]:
                m.d.sync += [one.wait.eq(Cat(C(-1, interval - 1), wait[:-1])), one.index.eq(self.index)]
        return m

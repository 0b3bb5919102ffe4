"""What goes with the sums that leave the drain chains."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.core.column import DrainedSum, GroupAddress
from hw.core.sequencer import EndedGroup, end_distances
from hw.spec.core import CoreConfig

__all__ = ["DrainControl"]


class DrainControl(wiring.Component):
    """Holds what is known of the groups under way until their sums come out, then gives it row by row.

    Parameters
    ----------
    config : CoreConfig
    latency : int
        Cycles from ``ended`` to the sum of row 0.

    Members
    -------
    ended : EndedGroup, In
    ended_valid : In
    group : GroupAddress, Out
    group_read : Out
        One cycle before row 0.
    drained : DrainedSum, Out
    drained_valid : Out
        R cycles, row 0 first.
    """

    def __init__(self, config: CoreConfig, latency: int):
        self.config = config
        self.latency = latency
        super().__init__(
            {
                "ended": In(EndedGroup(config)),
                "ended_valid": In(1),
                "group": Out(GroupAddress(config)),
                "group_read": Out(1),
                "drained": Out(DrainedSum(config)),
                "drained_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, rows = self.config, self.config.rows
        shape = EndedGroup(config)
        depth = 2 + self.latency // min(end_distances(config))
        waiting = [Signal(shape, name=f"waiting{k}", reset_less=True) for k in range(depth)]
        head, tail = Signal(range(depth)), Signal(range(depth))
        due = self.ended_valid
        for k in range(self.latency - 1):
            later = Signal(name=f"due{k}")
            m.d.sync += later.eq(due)
            due = later
        first = Signal(shape)
        with m.Switch(head):
            for k in range(depth):
                with m.Case(k):
                    m.d.comb += first.eq(waiting[k])
            with m.Default():
                m.d.comb += first.eq(waiting[0])
        with m.If(self.ended_valid):
            m.d.sync += tail.eq(Mux(tail == depth - 1, 0, tail + 1))
            for k in range(depth):
                with m.If(tail == k):
                    m.d.sync += waiting[k].eq(self.ended)
        m.d.comb += [self.group.eq(first.group), self.group_read.eq(due)]

        scales, faults = Signal(8 * rows, reset_less=True), Signal(rows, reset_less=True)
        index, flags = Signal.like(self.drained.index), Signal(2, reset_less=True)
        row, busy = Signal(range(rows)), Signal()
        m.d.sync += [scales.eq(scales[8:]), faults.eq(faults[1:]), row.eq(row + 1)]
        with m.If(due):
            m.d.sync += [
                head.eq(Mux(head == depth - 1, 0, head + 1)),
                scales.eq(first.scales),
                faults.eq(first.faults),
                index.eq(first.index),
                flags.eq(Cat(first.first, first.last)),
                row.eq(0),
                busy.eq(1),
            ]
        with m.Elif(row == rows - 1):
            m.d.sync += busy.eq(0)
        m.d.comb += [
            self.drained.scale.eq(scales[:8]),
            self.drained.fault.eq(faults[0]),
            self.drained.index.eq(index | row),
            self.drained.first.eq(flags[0]),
            self.drained.last.eq(flags[1]),
            self.drained_valid.eq(busy),
        ]
        return m

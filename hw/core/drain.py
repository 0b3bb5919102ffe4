"""What goes with the sums that leave the drain chains."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.core.schedule import MOST_DELAY
from hw.core.sequencer import EndedGroup
from hw.core.tile_column import DrainedSum, GroupAddress, SumStart
from spec.core import CoreConfig

__all__ = ["DrainControl"]


class DrainControl(wiring.Component):
    """Holds what is known of the groups under way until their sums come out, then gives it row by row; and again when
    these are added to the running sums.

    Parameters
    ----------
    config : CoreConfig
    latency : int
        Cycles from ``ended`` to the sums of the first rows.
    drained_latency : int
        Cycles from there until they may be added: ``TileColumn.drained_latency``.

    Members
    -------
    ended : EndedGroup, In
    ended_valid : In
        At least ``config.drain_cycles`` apart.
    adds : In
        The next group's sums are to be added as soon as those of a group are that ends now. As ``ended_valid``.
    group : GroupAddress, Out
    group_read : Out
        One cycle before the first rows.
    freed : Out
        With ``group_read``: units of the chunk memories that are not needed any more.
    drained : array of DrainedSum, Out
        One for each drain chain.
    drained_valid : Out
        ``config.drain_cycles`` cycles, rows in order.
    start : SumStart, Out
    start_valid : Out
        The same for the running sums.
    """

    def __init__(self, config: CoreConfig, latency: int, drained_latency: int):
        self.config = config
        self.latency, self.drained_latency = latency, drained_latency
        super().__init__(
            {
                "ended": In(EndedGroup(config)),
                "ended_valid": In(1),
                "adds": In(1),
                "group": Out(GroupAddress(config)),
                "group_read": Out(1),
                "freed": Out(range(config.stored_units + 1)),
                "drained": Out(DrainedSum).array(config.drain_chains),
                "drained_valid": Out(1),
                "start": Out(SumStart(config)),
                "start_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, chains = self.config, self.config.drain_chains
        due = self._later(m, self.ended_valid, self.latency - 1, "due")
        first = self._queue(m, "waiting", self.ended, self.ended_valid, due, self.latency)
        m.d.comb += [
            self.group.eq(first.group),
            self.group_read.eq(due),
            self.freed.eq(Mux(due, first.frees, 0)),
        ]
        scales = Signal(8 * config.rows, reset_less=True)
        faults = Signal(config.rows, reset_less=True)
        m.d.sync += [scales.eq(scales[8 * chains :]), faults.eq(faults[chains:])]
        with m.If(due):
            m.d.sync += [scales.eq(first.scales), faults.eq(first.faults)]
        m.d.comb += self.drained_valid.eq(self._rows(m, due, "drained")[0])
        for chain, drained in enumerate(self.drained):
            m.d.comb += [drained.scale.eq(scales[8 * chain : 8 * chain + 8]), drained.fault.eq(faults[chain])]

        latency = self.latency + self.drained_latency
        adds = self._later(m, self.adds, latency - 1, "add")
        next_sums = self._queue(m, "sums", self.ended.sums, self.ended_valid, adds, latency + MOST_DELAY)
        start = Signal.like(self.start, reset_less=True)
        with m.If(adds):
            m.d.sync += start.eq(next_sums)
        valid, row = self._rows(m, adds, "start")
        m.d.comb += [self.start.eq(start), self.start.index.eq(start.index | row), self.start_valid.eq(valid)]
        return m

    def _rows(self, m, begins, name):
        """From the cycle after ``begins``: valid for each row of a chain, and the row."""
        rows = self.config.drain_cycles
        row, valid = Signal(range(max(2, rows)), name=f"{name}_row"), Signal(name=f"{name}_rows")
        m.d.sync += row.eq(row + 1)
        with m.If(begins):
            m.d.sync += [row.eq(0), valid.eq(1)]
        with m.Elif(row == rows - 1):
            m.d.sync += valid.eq(0)
        return valid, row[: max(0, (rows - 1).bit_length())]

    def _queue(self, m, name, i, put, take, latency):
        """What came with ``put``, in order, from ``take`` to ``take``; each at most ``latency`` cycles old."""
        depth = 2 + latency // self.config.drain_cycles
        places = [Signal.like(i, name=f"{name}{k}", reset_less=True) for k in range(depth)]
        head, tail = Signal(range(depth), name=f"{name}_head"), Signal(range(depth), name=f"{name}_tail")
        first = Signal.like(i, name=f"{name}_first")
        with m.Switch(head):
            for k in range(depth):
                with m.Case(k):
                    m.d.comb += first.eq(places[k])
            with m.Default():
                m.d.comb += first.eq(places[0])
        with m.If(put):
            m.d.sync += tail.eq(Mux(tail == depth - 1, 0, tail + 1))
            for k in range(depth):
                with m.If(tail == k):
                    m.d.sync += places[k].eq(i)
        with m.If(take):
            m.d.sync += head.eq(Mux(head == depth - 1, 0, head + 1))
        return first

    @staticmethod
    def _later(m, value, cycles, name):
        for k in range(cycles):
            later = Signal(name=f"{name}{k}")
            m.d.sync += later.eq(value)
            value = later
        return value

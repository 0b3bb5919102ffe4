"""The order of all steps: group after group, for each set of tokens, plane after plane or beat after beat."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.core.activations import chunk_units
from hw.core.groups import SIDES, CodeGroup, GroupStep
from hw.core.job import MACS_BITS
from hw.core.parts import parts
from hw.core.plan import PlaceCounter, Plan
from hw.core.results import SLOTS
from hw.core.schedule import SumSchedule
from hw.core.tile_column import ChunkAddress, GroupAddress, SumStart
from spec.core import CoreConfig
from spec.packet import GROUP_SIZES

__all__ = ["EndedGroup", "Sequencer"]


class EndedGroup(data.StructLayout):
    """A group whose last step is under way: where its exponents are, how many units of the chunk memories it ``frees``,
    its running ``sums`` (index: that of the first row), and each row's ``scales`` and ``faults``."""

    def __init__(self, config: CoreConfig):
        super().__init__(
            {
                "group": GroupAddress(config),
                "frees": range(config.stored_units + 1),
                "sums": SumStart(config),
                "scales": data.ArrayLayout(8, config.rows),
                "faults": config.rows,
            }
        )


class _Group(data.StructLayout):
    """What there is to do for a group."""

    def __init__(self, config):
        most = config.rows * config.columns
        super().__init__(
            {
                "side": range(SIDES),
                "sets": 1,  # minus 1
                "beats": range(max(2, config.datapath.beats)),  # minus 1
                "rest": range(config.datapath.lanes + 1),  # lanes in use in the last beat
                "planes": 2,  # minus 1
                "base": ChunkAddress(config)["beat"].shape,
                "group": GroupAddress(config)["group"].shape,
                "sums": SumStart(config),  # of the first set
                "frees": range(config.stored_units + 1),
                "outputs": data.ArrayLayout(range(most + 1), 2),  # useful ones, for each set
            }
        )


class Sequencer(wiring.Component):
    """Gives a step per cycle, as long as codes, activations and room for results are there.

    While one group runs, the next is made ready. A group's last step waits until :class:`SumSchedule` lets it end.

    Members
    -------
    plan : Plan, In
    load : In
        A job begins.
    full : array of SIDES-bit, In
        Each channel's sides that hold a group.
    groups : array of arrays of SIDES CodeGroup, In
    release : Out, SIDES
        For all channels.
    chunk_full : In
        One cycle: a chunk is complete.
    result_free : In
        One cycle: there is room for the results of another block (and set).
    step : GroupStep, Out
    read : ChunkAddress, Out
    step_valid : Out
    ended : EndedGroup, Out
    ended_valid : Out
        With a group's last step.
    adds : Out
        As ``ended_valid``, so many cycles later as the group's sums wait.
    working, stalled : Out
    macs : Out
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__(
            {
                "plan": In(Plan(config)),
                "load": In(1),
                "full": In(SIDES).array(config.rows),
                "groups": In(data.ArrayLayout(CodeGroup, SIDES)).array(config.rows),
                "release": Out(SIDES),
                "chunk_full": In(1),
                "result_free": In(1),
                "step": Out(GroupStep(config)),
                "read": Out(ChunkAddress(config)),
                "step_valid": Out(1),
                "ended": Out(EndedGroup(config)),
                "ended_valid": Out(1),
                "adds": Out(1),
                "working": Out(1),
                "stalled": Out(1),
                "macs": Out(MACS_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        next_group = Signal(_Group(self.config), reset_less=True)
        next_valid = Signal()
        take = Signal()
        ahead = Signal()  # groups are still to be made ready
        self._make_ready(m, next_group, next_valid, take, ahead)
        self._run(m, next_group, next_valid, take, ahead)
        return m

    def _make_ready(self, m, group, valid, take, ahead):
        config, datapath = self.config, self.config.datapath
        lanes, log_lanes = datapath.lanes, ceil_log2(datapath.lanes)
        m.submodules.counter = counter = PlaceCounter(config)
        place = counter.place
        m.d.comb += [counter.plan.eq(self.plan), counter.load.eq(self.load)]
        side = Signal(range(SIDES))
        chunks = Signal(range(config.stored_units + 1))
        has_chunk = Signal()
        unit = Signal(range(config.stored_units))  # the chunk's first
        units = Signal.like(group.frees)  # how many
        index = Signal.like(group.group)  # of the group in its pass
        base = Signal.like(group.base)
        passed = Signal(13)
        size = Signal(8)
        left = Signal(13)
        weights = Signal(8)
        last = Signal()
        m.d.comb += [
            size.eq(Const(GROUP_SIZES[0], 8) << self.plan.group_size),
            left.eq(place.length - passed),
            last.eq(left <= size),
            weights.eq(Mux(last, left, size)),
        ]
        present = Signal()
        m.d.comb += units.eq(chunk_units(config, place.length))
        m.d.comb += present.eq(
            Cat((sides & ~self.release).bit_select(side, 1) for sides in self.full).all() & (has_chunk | (chunks != 0))
        )
        planes = Cat(groups[side].planes for groups in self.groups)
        planes = [planes[2 * row : 2 * row + 2] for row in range(config.rows)]
        three = Signal()
        highest = Signal(2)
        m.d.comb += [
            three.eq(Cat(p[1] for p in planes).any()),
            highest.eq(Cat(Mux(three, Cat(p.all() for p in planes).any(), Cat(p[0] for p in planes).any()), three)),
        ]
        tokens = [Signal(range(config.columns + 1), name=f"tokens{k}") for k in range(2)]
        two = place.tokens > config.columns if config.token_sets == 2 else Const(0)
        m.d.comb += [
            tokens[0].eq(Mux(two, config.columns, place.tokens)),
            tokens[1].eq(Mux(two, place.tokens - config.columns, 0)),
        ]
        make = Signal()
        m.d.comb += make.eq(ahead & counter.settled & present & ~valid)
        with m.If(take):
            m.d.sync += valid.eq(0)
        with m.If(make):
            m.d.sync += [
                valid.eq(1),
                group.side.eq(side),
                group.sets.eq(two),
                group.beats.eq((weights + (lanes - 1) >> log_lanes) - 1),
                group.rest.eq(((weights - 1)[:log_lanes]) + 1),
                group.planes.eq(highest),
                group.base.eq((unit << exact_log2(datapath.beats)) + base),
                group.group.eq((unit << len(group.group) - len(unit)) + index),
                group.sums.index.eq(place.block << exact_log2(config.drain_cycles)),
                group.sums.first.eq(place.first_chunk & (passed == 0)),
                group.sums.last.eq(place.last_chunk & last),
                group.frees.eq(Mux(place.last_block & last, units, 0)),
                *(group.outputs[k].eq(place.rows * tokens[k]) for k in range(2)),
                side.eq(side + 1),
                index.eq(index + 1),
                passed.eq(passed + size),
                base.eq(base + (size >> log_lanes)),
                has_chunk.eq(1),
            ]
            with m.If(last):
                m.d.sync += [index.eq(0), passed.eq(0), base.eq(0)]
                m.d.comb += counter.next.eq(1)
                with m.If(place.last_block):
                    m.d.sync += [unit.eq(unit + units), has_chunk.eq(0)]
                with m.If(place.last):
                    m.d.sync += ahead.eq(0)
        with m.If(self.load):
            m.d.sync += ahead.eq(1)
        m.d.sync += chunks.eq(chunks + self.chunk_full - (make & ~has_chunk))

    def _run(self, m, next_group, next_valid, take, ahead):
        config, plane_major = self.config, parts(self.config.datapath).plane_major
        group = Signal(_Group(config), reset_less=True)
        active = Signal()
        set_ = Signal()
        plane = Signal(2)
        beat = Signal.like(group.beats)
        credits = Signal(range(SLOTS + 1), init=SLOTS)
        sums = Signal(SumStart(config))
        m.d.comb += [sums.eq(group.sums), sums.index.eq(group.sums.index + Mux(set_, self._set_sums, 0))]
        last_beat = Signal()
        ends = Signal()
        apart = Signal()
        room = Signal()
        issue = Signal()
        m.d.comb += [
            last_beat.eq(beat == group.beats),
            ends.eq(last_beat & (plane == 0)),
            room.eq(~group.sums.last | (credits != 0)),
            issue.eq(active & (~ends | (apart & room))),
            take.eq(next_valid & (~active | (issue & ends & (set_ == group.sets)))),
        ]
        ended = issue & ends
        m.d.sync += [
            credits.eq(credits - (ended & group.sums.last) + self.result_free),
        ]
        m.submodules.schedule = schedule = SumSchedule(config, len(sums.index))
        m.d.comb += [
            schedule.index.eq(sums.index),
            schedule.ended.eq(ended),
            apart.eq(schedule.may_end),
            self.adds.eq(schedule.adds),
        ]
        with m.If(issue):
            if plane_major:
                m.d.sync += [beat.eq(Mux(last_beat, 0, beat + 1)), plane.eq(plane - last_beat)]
            else:
                m.d.sync += [beat.eq(beat + (plane == 0)), plane.eq(Mux(plane == 0, group.planes, plane - 1))]
            with m.If(ends):
                m.d.sync += [beat.eq(0), plane.eq(group.planes), set_.eq(1)]
                with m.If(set_ == group.sets):
                    m.d.sync += active.eq(0)
        with m.If(take):
            m.d.sync += [
                group.eq(next_group),
                active.eq(1),
                set_.eq(0),
                plane.eq(next_group.planes),
                beat.eq(0),
            ]
        self._drive(m, group, set_, plane, beat, issue, last_beat, ended, sums)
        m.d.sync += [self.working.eq(issue), self.stalled.eq((active & ends & ~room) | (ahead & ~active & ~next_valid))]

    @property
    def _set_sums(self):
        """Running sums of a chain for each set of tokens."""
        return self.config.block_outputs // self.config.drain_chains

    def _drive(self, m, group, set_, plane, beat, issue, last_beat, ended, sums):
        config, lanes = self.config, self.config.datapath.lanes
        done = ended & (set_ == group.sets)
        m.d.sync += [
            self.step_valid.eq(issue),
            self.step.side.eq(group.side),
            self.step.beat.eq(beat),
            self.step.plane.eq(plane),
            self.step.first.eq(beat == 0),
            self.step.last.eq(last_beat),
            self.read.beat.eq(group.base + beat),
            self.release.eq(Cat(done & (group.side == side) for side in range(SIDES))),
            self.ended_valid.eq(ended),
            self.ended.group.group.eq(group.group),
            self.ended.frees.eq(Mux(set_ == group.sets, group.frees, 0)),
            self.ended.sums.eq(sums),
        ]
        if config.token_sets > 1:
            m.d.sync += [self.read.set.eq(set_), self.ended.group.set.eq(set_)]
        for row, groups in enumerate(self.groups):
            chosen = Signal(CodeGroup, name=f"chosen{row}")
            m.d.comb += chosen.eq(groups[group.side])
            m.d.sync += [self.ended.scales[row].eq(chosen.scale), self.ended.faults[row].eq(chosen.fault)]
        # The useful MACs are counted in the last plane.
        outputs = Signal.like(group.outputs[0])
        used = Signal(range(lanes + 1))
        m.d.sync += [
            outputs.eq(Mux(issue, Mux(set_, group.outputs[1], group.outputs[0]), 0)),
            used.eq(Mux(issue & (plane == 0), Mux(last_beat, group.rest, lanes), 0)),
            self.macs.eq(outputs * used),
        ]

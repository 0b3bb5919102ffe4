"""The order of all steps: group after group, for each set of tokens, plane after plane."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.axi.core_registers import MACS_BITS
from hw.core.channel import CodeGroup, GroupStep
from hw.core.column import ChunkAddress, DrainedSum, GroupAddress
from hw.core.plan import PlaceCounter, Plan
from hw.core.results import SLOTS
from hw.prealigned.accumulator import RunningSums
from hw.spec.core import CoreConfig
from hw.spec.packet import GROUP_SIZES

__all__ = ["EndedGroup", "Sequencer", "end_distances"]


def end_distances(config: CoreConfig) -> tuple[int, int]:
    """Least distances between two group ends: of different sums, and where both may belong to the same sums.

    The drain takes R cycles. Sums return after at most two others, and must be `RunningSums.interval` apart.
    """
    return max(config.rows, -(-RunningSums.interval // 2)), max(config.rows, RunningSums.interval)


class EndedGroup(data.StructLayout):
    """A group whose last step is under way: where its exponents are, its first running sum, ``first`` and ``last``
    group of these sums, and each row's ``scales`` and ``faults``."""

    def __init__(self, config: CoreConfig):
        super().__init__(
            {
                "group": GroupAddress(config),
                "index": DrainedSum(config)["index"].shape,
                "first": 1,
                "last": 1,
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
                "side": 1,
                "bank": 1,
                "sets": 1,  # minus 1
                "beats": range(max(2, config.datapath.beats)),  # minus 1
                "rest": range(config.datapath.lanes + 1),  # lanes in use in the last beat
                "planes": 2,  # minus 1
                "base": ceil_log2(config.chunk // config.datapath.lanes),
                "group": GroupAddress(config)["group"].shape,
                "index": DrainedSum(config)["index"].shape,
                "first": 1,
                "last": 1,
                "frees": 1,  # the chunk has been used
                "close": 1,  # the sums may be those of the group before
                "outputs": data.ArrayLayout(range(most + 1), 2),  # useful ones, for each set
            }
        )


class Sequencer(wiring.Component):
    """Gives a step per cycle, as long as codes, activations and room for results are there.

    While one group runs, the next is made ready. Group ends keep the distances of :func:`end_distances`: a shorter
    group's last step waits.

    Members
    -------
    plan : Plan, In
    load : In
        A job begins.
    full : array of 2-bit, In
        Each channel's sides that hold a group.
    groups : array of arrays of 2 CodeGroup, In
    release : Out, 2
        For all channels.
    chunk_full : In
        One cycle: a chunk is complete.
    chunk_free : Out
        One cycle, with the last step of the chunk's last group.
    result_free : In
        One cycle: there is room for the results of another block (and set).
    step : GroupStep, Out
    read : ChunkAddress, Out
    step_valid : Out
    ended : EndedGroup, Out
    ended_valid : Out
        With a group's last step.
    working, stalled : Out
    macs : Out
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__(
            {
                "plan": In(Plan(config)),
                "load": In(1),
                "full": In(2).array(config.rows),
                "groups": In(data.ArrayLayout(CodeGroup, 2)).array(config.rows),
                "release": Out(2),
                "chunk_full": In(1),
                "chunk_free": Out(1),
                "result_free": In(1),
                "step": Out(GroupStep(config)),
                "read": Out(ChunkAddress(config)),
                "step_valid": Out(1),
                "ended": Out(EndedGroup(config)),
                "ended_valid": Out(1),
                "working": Out(1),
                "stalled": Out(1),
                "macs": Out(MACS_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        next_group, next_valid, take = Signal(_Group(self.config), reset_less=True), Signal(), Signal()
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
        side, bank = Signal(), Signal()
        chunks, has_chunk = Signal(2), Signal()
        index, base = Signal.like(group.group), Signal.like(group.base)  # of the group in its pass
        passed = Signal(13)
        size, left, weights = Signal(8), Signal(13), Signal(8)
        last = Signal()
        m.d.comb += [
            size.eq(Const(GROUP_SIZES[0], 8) << self.plan.group_size),
            left.eq(place.length - passed),
            last.eq(left <= size),
            weights.eq(Mux(last, left, size)),
        ]
        present = Signal()
        m.d.comb += present.eq(
            Cat((sides & ~self.release).bit_select(side, 1) for sides in self.full).all() & (has_chunk | (chunks != 0))
        )
        planes = Cat(Mux(side, groups[1].planes, groups[0].planes) for groups in self.groups)
        planes = [planes[2 * row : 2 * row + 2] for row in range(config.rows)]
        three, highest = Signal(), Signal(2)
        m.d.comb += [
            three.eq(Cat(p[1] for p in planes).any()),
            highest.eq(Cat(Mux(three, Cat(p.all() for p in planes).any(), Cat(p[0] for p in planes).any()), three)),
        ]
        tokens = [Signal(range(config.columns + 1), name=f"tokens{k}") for k in range(2)]
        two = place.tokens > config.columns
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
                group.bank.eq(bank),
                group.sets.eq(two),
                group.beats.eq((weights + (lanes - 1) >> log_lanes) - 1),
                group.rest.eq(((weights - 1)[:log_lanes]) + 1),
                group.planes.eq(highest),
                group.base.eq(base),
                group.group.eq(index),
                group.index.eq(place.block << ceil_log2(config.rows)),
                group.first.eq(place.first_chunk & (index == 0)),
                group.last.eq(place.last_chunk & last),
                group.frees.eq(place.last_block & last),
                group.close.eq(~two & (place.only_block | (index != 0))),
                *(group.outputs[k].eq(place.rows * tokens[k]) for k in range(2)),
                side.eq(~side),
                index.eq(index + 1),
                passed.eq(passed + size),
                base.eq(base + (size >> log_lanes)),
                has_chunk.eq(1),
            ]
            with m.If(last):
                m.d.sync += [index.eq(0), passed.eq(0), base.eq(0)]
                m.d.comb += counter.next.eq(1)
                with m.If(place.last_block):
                    m.d.sync += [bank.eq(~bank), has_chunk.eq(0)]
                with m.If(place.last):
                    m.d.sync += ahead.eq(0)
        with m.If(self.load):
            m.d.sync += ahead.eq(1)
        m.d.sync += chunks.eq(chunks + self.chunk_full - (make & ~has_chunk))

    def _run(self, m, next_group, next_valid, take, ahead):
        config = self.config
        group, active = Signal(_Group(config), reset_less=True), Signal()
        set_, plane, beat = Signal(), Signal(2), Signal.like(group.beats)
        other, same = end_distances(config)
        since = Signal(range(same + 1), init=same)
        credits = Signal(range(SLOTS + 1), init=SLOTS)
        last_beat, ends, apart, room, issue = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            last_beat.eq(beat == group.beats),
            ends.eq(last_beat & (plane == 0)),
            apart.eq(Mux(group.close, since >= same, since >= other)),
            room.eq(~group.last | (credits != 0)),
            issue.eq(active & (~ends | (apart & room))),
            take.eq(next_valid & (~active | (issue & ends & (set_ == group.sets)))),
        ]
        ended = issue & ends
        m.d.sync += [
            since.eq(Mux(ended, 1, Mux(since == same, same, since + 1))),
            credits.eq(credits - (ended & group.last) + self.result_free),
        ]
        with m.If(issue):
            m.d.sync += beat.eq(beat + 1)
            with m.If(last_beat):
                m.d.sync += [beat.eq(0), plane.eq(plane - 1)]
                with m.If(plane == 0):
                    m.d.sync += [plane.eq(group.planes), set_.eq(1)]
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
        self._drive(m, group, set_, plane, beat, issue, last_beat, ended)
        m.d.sync += [self.working.eq(issue), self.stalled.eq((active & ends & ~room) | (ahead & ~active & ~next_valid))]

    def _drive(self, m, group, set_, plane, beat, issue, last_beat, ended):
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
            self.read.bank.eq(group.bank),
            self.release.eq(done.replicate(2) & Mux(group.side, 0b10, 0b01)),
            self.chunk_free.eq(done & group.frees),
            self.ended_valid.eq(ended),
            self.ended.group.group.eq(group.group),
            self.ended.group.bank.eq(group.bank),
            self.ended.index.eq(group.index + Mux(set_, config.block_outputs, 0)),
            self.ended.first.eq(group.first),
            self.ended.last.eq(group.last),
        ]
        if config.token_sets > 1:
            m.d.sync += [self.read.set.eq(set_), self.ended.group.set.eq(set_)]
        for row, groups in enumerate(self.groups):
            chosen = data.View(CodeGroup, Mux(group.side, groups[1].as_value(), groups[0].as_value()))
            m.d.sync += [self.ended.scales[row].eq(chosen.scale), self.ended.faults[row].eq(chosen.fault)]
        # The useful MACs are counted in the last plane.
        outputs, used = Signal.like(group.outputs[0]), Signal(range(lanes + 1))
        m.d.sync += [
            outputs.eq(Mux(set_, group.outputs[1], group.outputs[0])),
            used.eq(Mux(issue & (plane == 0), Mux(last_beat, group.rest, lanes), 0)),
            self.macs.eq(outputs * used),
        ]

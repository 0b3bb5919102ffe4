"""Dot products of a block to result packets: turned round, times the channel scale, narrowed to FP16 if wanted."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.fp32_multiplier import Fp32Multiplier, Fp32ToFp16
from hw.core.plan import PlaceCounter, Plan
from hw.core.tile_column import ColumnResult
from spec.core import CoreConfig

__all__ = ["SLOTS", "ResultBeat", "ResultWriter"]

SLOTS = 16
"""Blocks of R x C results between the last step that makes one and the last beat that takes it away: some 75 cycles."""


class ResultBeat(data.StructLayout):
    """A beat of the result stream: ``data``, ``keep`` (one bit per byte), ``marks`` (one per result), ``last``."""

    def __init__(self, lanes: int):
        super().__init__({"data": 32 * lanes, "keep": 4 * lanes, "marks": 2 * lanes, "last": 1})


class ResultWriter(wiring.Component):
    """Stores results as they come, C tokens of a channel of each drain chain at a time, and sends them token by token.

    Equations C1 to C3 of docs/core.md. ``drain_cycles`` valid inputs may come for each of ``SLOTS`` blocks, and for
    one more after every ``free``. Throughput P results per cycle.

    Members
    -------
    plan : Plan, In
    load : In
        A job begins.
    i : array of arrays of C ColumnResult, In
        Results of the next channels in order, as many as there are drain chains.
    i_valid : In
    free : Out
        One cycle: a block has gone.
    scales : array of R streams of 32 bits, In
        The channels' scales for each block.
    o : stream of ResultBeat, Out
    overflow, saturated : Out
    done : Out
        One cycle: the job's last beat has gone.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__(
            {
                "plan": In(Plan(config)),
                "load": In(1),
                "i": In(ColumnResult).array(config.drain_chains, config.columns),
                "i_valid": In(1),
                "free": Out(1),
                "scales": In(stream.Signature(32)).array(config.rows),
                "o": Out(stream.Signature(ResultBeat(config.result_lanes))),
                "overflow": Out(1),
                "saturated": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, lanes = self.config, self.config.result_lanes
        pieces = config.rows // lanes
        slot_bits, piece_bits = ceil_log2(SLOTS), ceil_log2(pieces)

        # Channel r of a slot goes to bank r mod P, all columns' results at one address.
        chains, per_bank = config.drain_chains, lanes // config.drain_chains
        row = Signal(range(config.drain_cycles * SLOTS))
        filled = Signal(range(SLOTS + 1))
        fills = Signal()
        m.d.comb += fills.eq(self.i_valid & (row[:-slot_bits] == config.drain_cycles - 1))
        with m.If(self.i_valid):
            m.d.sync += row.eq(row + 1)
        self._emptied = Signal()
        m.d.sync += [filled.eq(filled + fills - self._emptied), self.free.eq(self._emptied)]
        shape = data.ArrayLayout(ColumnResult, config.columns)
        slot = Signal(slot_bits)
        piece = Signal(piece_bits)
        column = Signal(range(max(2, config.columns)))
        reads = []
        for lane in range(lanes):
            m.submodules[f"bank{lane}"] = bank = memory.Memory(shape=shape, depth=pieces * SLOTS, init=[])
            write, read = bank.write_port(), bank.read_port()
            here = (row[: ceil_log2(per_bank)] == lane // chains) if per_bank > 1 else 1
            m.d.comb += [
                write.en.eq(self.i_valid & here),
                write.addr.eq(row[ceil_log2(per_bank) :]),
                *(write.data[k].eq(result) for k, result in enumerate(self.i[lane % chains])),
                read.en.eq(1),
                read.addr.eq(Cat(piece, slot)),
            ]
            reads.append(read)
        issue, about, beat_ends = self._walk(m, filled, slot, piece, column)
        self._send(m, reads, issue, about, beat_ends, piece, column)
        return m

    def _walk(self, m, filled, slot, piece, column):
        """Which results are read: the slot's tokens, and of each its channels, P at a time."""
        config, lanes = self.config, self.config.result_lanes
        m.submodules.counter = counter = PlaceCounter(config, chunks=False)
        place = counter.place
        m.d.comb += [counter.plan.eq(self.plan), counter.load.eq(self.load)]
        set_ = Signal()
        half = Signal()
        tokens = Signal(range(config.columns + 1))
        channels = Signal(range(config.rows + 1))
        last_set = Mux(set_, 1, place.tokens <= config.columns) if config.token_sets == 2 else Const(1)
        m.d.comb += [
            tokens.eq(Mux(last_set, place.tokens - Mux(set_, config.columns, 0), config.columns)),
            channels.eq(place.rows - (piece << ceil_log2(lanes))),
        ]
        last_piece = Signal()
        last_token = Signal()
        self._room = Signal()
        issue = Signal()
        beat_ends = Signal()
        running = Signal()
        about = Signal(data.StructLayout({"keep": lanes, "half": 1, "ends": 1, "last": 1}))
        m.d.comb += [
            last_piece.eq(channels <= lanes),
            last_token.eq(column + 1 == tokens),
            issue.eq(running & counter.settled & (filled != 0) & self._room),
            beat_ends.eq(~self.plan.fp16 | half | last_piece),
            about.keep.eq(Cat(channels > lane for lane in range(lanes))),
            about.half.eq(half),
            about.ends.eq(beat_ends),
            about.last.eq(last_piece & last_token & last_set),
        ]
        self._finished = Signal()  # every result of the job is on its way
        with m.If(issue):
            m.d.sync += [piece.eq(piece + 1), half.eq(~half & self.plan.fp16)]
            with m.If(last_piece):
                m.d.sync += [piece.eq(0), half.eq(0), column.eq(column + 1)]
                with m.If(last_token):
                    m.d.comb += self._emptied.eq(1)
                    m.d.sync += [column.eq(0), slot.eq(slot + 1), set_.eq(~last_set)]
                    with m.If(last_set):
                        m.d.comb += [counter.next.eq(1), *(scale.ready.eq(1) for scale in self.scales)]
                        with m.If(place.last):
                            m.d.sync += [running.eq(0), self._finished.eq(1)]
        with m.If(self.load):
            m.d.sync += [running.eq(1), self._finished.eq(0)]
        return issue, about, beat_ends

    def _send(self, m, reads, issue, about, beat_ends, piece, column):
        config, lanes = self.config, self.config.result_lanes
        depth = Fp32Multiplier.latency + 6
        beat = Signal(ResultBeat(lanes))
        m.submodules.queue = queue = SyncFIFOBuffered(width=len(beat.as_value()), depth=depth)
        promised = Signal(range(depth + 1), init=depth)  # places in the queue that no beat under way will take
        sent = self.o.valid & self.o.ready
        m.d.sync += promised.eq(promised - (issue & beat_ends) + sent)
        m.d.comb += [
            self._room.eq(promised != 0),
            self.done.eq(self._finished & (promised == depth)),
        ]
        with m.If(self.done):
            m.d.sync += self._finished.eq(0)

        # Cycle 1: memory, channel scales.
        chosen_column = Signal.like(column)
        m.d.sync += chosen_column.eq(column)
        scales = [Signal(32, name=f"scale{lane}", reset_less=True) for lane in range(lanes)]
        with m.Switch(piece):
            for k in range(config.rows // lanes):
                with m.Case(k):
                    m.d.sync += [scale.eq(self.scales[lanes * k + lane].payload) for lane, scale in enumerate(scales)]
        # Then the product.
        values, errors, overflows = [], [], []
        delay = 2 + Fp32Multiplier.latency
        for lane, read in enumerate(reads):
            result = Signal(ColumnResult, reset_less=True)
            scale = Signal(32, reset_less=True, name=f"factor{lane}")
            m.d.sync += [
                result.eq(read.data[chosen_column]),
                scale.eq(scales[lane]),
            ]
            m.submodules[f"multiplier{lane}"] = multiplier = Fp32Multiplier()
            m.d.comb += [multiplier.a.eq(result.value), multiplier.b.eq(scale)]
            error = result.error
            for k in range(Fp32Multiplier.latency):
                later = Signal(name=f"error{lane}_{k}", reset_less=True)
                m.d.sync += later.eq(error)
                error = later
            values.append(multiplier.o)
            errors.append(error)
            overflows.append(multiplier.overflow)
        valid = issue
        for k in range(delay):
            later, later_valid = Signal.like(about, name=f"about{k}"), Signal(name=f"valid{k}")
            m.d.sync += [later.eq(about), later_valid.eq(valid)]
            about, valid = later, later_valid
        self._pack(m, queue, beat, values, errors, overflows, about, valid)

    def _pack(self, m, queue, beat, values, errors, overflows, about, valid):
        lanes, fp16 = self.config.result_lanes, self.plan.fp16
        wide, narrow, saturated = [], [], []
        for lane, value in enumerate(values):
            m.submodules[f"narrow{lane}"] = convert = Fp32ToFp16()
            kept = about.keep[lane]
            m.d.comb += convert.i.eq(value)
            wide.append(value.as_value() & kept.replicate(32))
            narrow.append(convert.o.as_value() & kept.replicate(16))
            saturated.append(convert.saturated & kept)
        marks = Cat(errors) & about.keep
        keep_wide = Cat(kept.replicate(4) for kept in about.keep)
        keep_narrow = Cat(kept.replicate(2) for kept in about.keep)
        first = Signal(data.StructLayout({"data": 16 * lanes, "keep": 2 * lanes, "marks": lanes}), reset_less=True)
        with m.If(valid & ~about.half):
            m.d.sync += [first.data.eq(Cat(narrow)), first.keep.eq(keep_narrow), first.marks.eq(marks)]
        with m.If(~fp16):
            m.d.comb += [beat.data.eq(Cat(wide)), beat.keep.eq(keep_wide), beat.marks.eq(marks)]
        with m.Elif(about.half):
            m.d.comb += [
                beat.data.eq(Cat(first.data, *narrow)),
                beat.keep.eq(Cat(first.keep, keep_narrow)),
                beat.marks.eq(Cat(first.marks, marks)),
            ]
        with m.Else():
            m.d.comb += [beat.data.eq(Cat(narrow)), beat.keep.eq(keep_narrow), beat.marks.eq(marks)]
        m.d.comb += [
            beat.last.eq(about.last),
            queue.w_data.eq(beat),
            queue.w_en.eq(valid & about.ends),
            self.o.payload.eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        # Marked results are NaN, which neither overflows nor saturates.
        m.d.sync += [
            self.overflow.eq(valid & (Cat(overflows) & about.keep).any()),
            self.saturated.eq(valid & fp16 & Cat(saturated).any()),
        ]

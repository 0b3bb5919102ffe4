"""FP32 accumulation of rescaled group sums, one adder for all PEs of a column."""

import itertools

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.fp32_adder import CANONICAL_NAN, FP32, Fp32Adder, ScaledSumToFp32
from hw.bitserial.column_pe import GroupResult
from spec.config import ColumnConfig

__all__ = ["ColumnResult", "GroupAccumulator"]


class ColumnResult(data.StructLayout):
    """A row's dot product: ``data`` (FP32), the ``pe`` that made it, ``error`` (marked: data is the NaN 0x7FC00000)."""

    def __init__(self, pes):
        super().__init__({"data": FP32, "pe": max(1, ceil_log2(pes)), "error": 1})


class GroupAccumulator(wiring.Component):
    """Adds each PE's group sums in FP32 and queues the finished rows (equations G2 and G3 of docs/weights.md).

    One addition starts per cycle, lowest PE first; a sum is back in its place 3 cycles later. A PE is served within
    ``pes`` cycles, provided that its results lie at least ``config.group_interval`` cycles apart. A row's result
    reaches ``o`` 5 cycles after its last group sum was taken, or waits there; at most ``2 * pes`` wait.

    Members
    -------
    i : array of streams of GroupResult, In
    row_issued : unsigned pes, In
        A PE's row is under way: its result will need room.
    room : Out
        Every PE may have another row under way.
    o : stream of ColumnResult, Out
        Rows as they finish: in order for each PE.
    """

    def __init__(self, config: ColumnConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(GroupResult(config.accumulator_bits))).array(config.pes),
                "row_issued": In(config.pes),
                "room": Out(1),
                "o": Out(stream.Signature(ColumnResult(config.pes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pes = self.config.pes
        m.submodules.convert = convert = ScaledSumToFp32(self.config.accumulator_bits)
        m.submodules.adder = adder = Fp32Adder()
        m.submodules.sums = sums = memory.Memory(shape=FP32, depth=pes, init=[])
        m.submodules.results = results = SyncFIFOBuffered(width=len(self.o.p.as_value()), depth=2 * pes)
        read, write = sums.read_port(), sums.write_port()

        # Cycle 1: lowest PE first.
        granted = Signal(pes)
        waiting = Cat(port.valid for port in self.i)
        chosen = Signal.like(self.i[0].p)
        index = Signal(range(pes))
        for k in reversed(range(pes)):
            with m.If(waiting[k]):
                m.d.comb += [granted.eq(1 << k), chosen.eq(self.i[k].p), index.eq(k)]
        m.d.comb += [port.ready.eq(granted[k]) for k, port in enumerate(self.i)]
        m.d.comb += [read.addr.eq(index), read.en.eq(1)]
        fresh = Signal(pes, init=(1 << pes) - 1)  # no sum yet for this row
        with m.If(waiting.any()):
            m.d.sync += fresh.eq(Mux(chosen.row_last, fresh | granted, fresh & ~granted))

        # Cycle 2: convert; cycles 2 and 3: add; cycle 4: write back.
        side = data.StructLayout({"valid": 1, "row_last": 1, "error": 1, "pe": len(index)})
        stages = [Signal(side, name=f"stage{k}") for k in range(1 + Fp32Adder.latency)]
        first = Signal()
        converting = Signal.like(chosen.sum, reset_less=True)
        m.d.sync += [
            stages[0].valid.eq(waiting.any()),
            stages[0].row_last.eq(chosen.row_last),
            stages[0].error.eq(chosen.error),
            stages[0].pe.eq(index),
            converting.eq(chosen.sum),
            first.eq((fresh & granted).any()),
        ]
        for before, after in itertools.pairwise(stages):
            m.d.sync += after.eq(before)
        m.d.comb += convert.i.eq(converting)
        m.d.comb += [adder.a.eq(Mux(first, 0, read.data.as_value())), adder.b.eq(convert.o)]
        done = stages[-1]
        m.d.comb += [write.addr.eq(done.pe), write.data.eq(adder.o), write.en.eq(done.valid)]

        result = Signal(ColumnResult(pes))
        m.d.comb += [
            result.data.eq(Mux(done.error, C(CANONICAL_NAN, 32), adder.o.as_value())),
            result.pe.eq(done.pe),
            result.error.eq(done.error),
            results.w_data.eq(result),
            results.w_en.eq(done.valid & done.row_last),
            self.o.valid.eq(results.r_rdy),
            self.o.p.eq(results.r_data),
            results.r_en.eq(self.o.ready),
        ]

        # Rows under way or in the queue. All PEs may end a row in the same cycle.
        rows = Signal(range(2 * pes + 1))
        ending = sum(self.row_issued[k] for k in range(pes))
        m.d.sync += rows.eq(rows + ending - (self.o.valid & self.o.ready))
        m.d.comb += self.room.eq(rows <= pes)
        return m

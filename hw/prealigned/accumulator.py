"""FP32 accumulation over groups for the PEs that share a dequantizer."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.formats import FP32, FP32_NAN
from hw.arith.fp32_pipeline import NormalFp32Adder
from spec import checks

__all__ = ["RunningSums", "ScaledGroup"]


class ScaledGroup(data.StructLayout):
    """A dequantized group sum: ``value`` (FP32), which running sum it belongs to (``index``), whether it is the sum's
    ``first`` or ``last`` group, and ``error`` (marks the sum)."""

    def __init__(self, depth):
        super().__init__({"value": FP32, "index": max(1, ceil_log2(depth)), "first": 1, "last": 1, "error": 1})


class RunningSums(wiring.Component):
    """Adds group sums to running sums in FP32, one rounding per group in the order in which they come (equation Q3).

    One group per cycle; two groups of one sum must lie at least ``interval`` = 16 cycles apart, and more are not kept
    apart: the caller sees to it. ``o`` carries a sum ``latency`` cycles after its last group, for one cycle.

    Parameters
    ----------
    depth : int
        Running sums, 1 or more.

    Members
    -------
    i : ScaledGroup, In
    i_valid : In
    o : Out
        ``value`` (FP32; the NaN 0x7FC00000 for a marked sum), ``index``, ``error``.
    o_valid : Out

    Raises
    ------
    ValueError
        For a depth that is not positive.
    """

    interval = NormalFp32Adder.latency + 2
    latency = NormalFp32Adder.latency + 2

    def __init__(self, depth: int = 8):
        checks.whole("depth", depth, 1)
        self.depth = depth
        index = max(1, ceil_log2(depth))
        super().__init__(
            {
                "i": In(ScaledGroup(depth)),
                "i_valid": In(1),
                "o": Out(data.StructLayout({"value": FP32, "index": index, "error": 1})),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry = data.StructLayout({"value": FP32, "error": 1})
        m.submodules.sums = sums = memory.Memory(shape=entry, depth=self.depth, init=[])
        m.submodules.adder = adder = NormalFp32Adder()
        read, write = sums.read_port(), sums.write_port()
        m.d.comb += [read.addr.eq(self.i.index), read.en.eq(1)]

        side = data.StructLayout({"valid": 1, "last": 1, "error": 1, "index": len(self.i.index)})
        fresh = Signal(reset_less=True)
        value = Signal(FP32, reset_less=True)
        stages = [Signal(side, name="stage0")]
        m.d.sync += [
            fresh.eq(self.i.first),
            value.eq(self.i.value),
            stages[0].valid.eq(self.i_valid),
            stages[0].last.eq(self.i.last),
            stages[0].error.eq(self.i.error),
            stages[0].index.eq(self.i.index),
        ]
        m.d.comb += [adder.a.eq(read.data.value), adder.b.eq(value), adder.alone.eq(fresh)]
        error = stages[0].error | (read.data.error & ~fresh)
        for k in range(adder.latency):
            before, stage = stages[-1], Signal(side, name=f"stage{k + 1}")
            m.d.sync += stage.eq(before)
            if k == 0:
                m.d.sync += stage.error.eq(error)
            stages.append(stage)

        done = stages[-1]
        m.d.comb += [
            write.addr.eq(done.index),
            write.en.eq(done.valid),
            write.data.eq(Cat(adder.o.as_value(), done.error)),
        ]
        o = Signal.like(self.o, reset_less=True)
        o_valid = Signal()
        m.d.sync += [
            o_valid.eq(done.valid & done.last),
            o.value.eq(adder.o),
            o.index.eq(done.index),
            o.error.eq(done.error),
        ]
        m.d.comb += [
            self.o.eq(o),
            self.o.value.eq(Mux(o.error, FP32_NAN, o.value.as_value())),
            self.o_valid.eq(o_valid),
        ]
        return m

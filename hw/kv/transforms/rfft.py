"""Inverse real DFT of the segments that ask for it, four elements per cycle."""

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.fp16 import IntegerToFp16
from hw.kv.layouts import Coefficients, Tag
from hw.kv.transforms.rfft_gather import Gather
from hw.kv.transforms.rfft_layouts import MAX_QUARTERS
from hw.kv.transforms.rfft_pipeline import RESULT_BITS, DftLevels
from hw.kv.transforms.rfft_scatter import Scatter
from spec.kv_config import KvEngineConfig

__all__ = ["InverseRfft"]

GUARD = 5
COARSE_GUARD = 2
"""Fraction bits F of docs/kv-engine.md T3, the second with FP16-sized scales."""
IN_FLIGHT = 6 * MAX_QUARTERS


class InverseRfft(wiring.Component):
    """Transforms rfft segments, passes everything else on, in order (docs/kv-engine.md T3..T10).

    ```
    i -+-> quarters -> Gather -> DftLevels -> R16 -> Scatter -> beats -+-> o
       +-> [tags in a fifo] -------------------------------------------+
       +---------- blocks without an rfft segment ---------------------+
    ```

    A block with an rfft segment goes through whole, cut into quarters of four lanes: with more than 4 lanes it takes
    ``lanes / 4`` cycles per beat. Other blocks pass beside it as soon as it is empty, a beat per cycle. Latency: about
    40 slots and the largest transform twice.

    Members
    -------
    i, o : stream of Coefficients(lanes), In, Out
    overflow : Out
        A beat of a transform with a number beyond FP16 is at ``o``; it is marked, and so are the block's later ones.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        signature = stream.Signature(Coefficients(config.lanes))
        super().__init__({"i": In(signature), "o": Out(signature), "overflow": Out(1)})

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        m.submodules.gather = gather = Gather()
        m.submodules.levels = levels = DftLevels()
        m.submodules.scatter = scatter = Scatter()
        m.submodules.tags = tags = fifo.SyncFIFOBuffered(width=len(Value.cast(self.i.payload.tag)), depth=IN_FLIGHT)
        wiring.connect(m, gather.o, levels.i)
        self._round(m, levels, scatter)

        beat, plan = self.i.payload, self.i.payload.plan
        quarters = lanes // 4
        inside = Signal()
        outside = Signal()
        m.d.comb += [
            inside.eq(self.i.valid & plan.narrow),
            # Beside the transforms only what does not overtake them.
            outside.eq(self.i.valid & ~plan.narrow & (tags.level == 0)),
        ]

        # In: a quarter per cycle; the tag goes with the first.
        part = Signal(range(quarters))
        half = part >> 2 if lanes == 32 else 0
        word = beat.data.as_value().word_select(part, 64)
        rfft = plan.rfft.bit_select(half, 1)
        coarse = plan.coarse
        entering = gather.i.payload
        for k in range(4):
            value = word[16 * k : 16 * k + 16]
            shifted = Mux(coarse, (value << COARSE_GUARD)[:16], (value << GUARD)[:16])
            m.d.comb += entering.data[k].eq(Mux(rfft, shifted, value))
        exponent = Array(plan.exponent)[half] if lanes == 32 else plan.exponent[0]
        first, last = part == 0, part == self._parts(beat.tag) - 1
        accept = Signal()
        m.d.comb += [
            entering.plain.rfft.eq(rfft),
            entering.plain.size.eq(plan.size),
            # A block stays marked, so that the last quarter of a transform knows of all of them.
            entering.plain.marked.eq(beat.tag.marked),
            entering.plain.exponent.eq(exponent + Mux(coarse, GUARD - COARSE_GUARD, 0)),
            gather.i.valid.eq(inside & (tags.w_rdy | ~first)),
            accept.eq(gather.i.valid & gather.i.ready),
            tags.w_en.eq(accept & first),
            tags.w_data.eq(beat.tag),
            self.i.ready.eq(Mux(plan.narrow, accept & last, self.o.ready & outside)),
        ]
        with m.If(accept):
            m.d.sync += part.eq(Mux(last, 0, part + 1))

        # Out: quarters back to beats.
        tag = Signal(Tag)
        out = self.o.payload
        collected = Signal(range(quarters))
        kept = Signal(64 * (quarters - 1), reset_less=True)
        overflowed = Signal()
        bad = Signal()
        spoiled = Signal()
        complete = Signal()
        elements = scatter.o.payload
        m.d.comb += [
            tag.eq(tags.r_data),
            complete.eq(scatter.o.valid & tags.r_rdy & (collected == self._parts(tag) - 1)),
            scatter.o.ready.eq(tags.r_rdy & (~complete | self.o.ready)),
            tags.r_en.eq(complete & self.o.ready),
        ]
        parts = [kept[64 * k : 64 * k + 64] for k in range(quarters - 1)]
        with m.If(scatter.o.valid & scatter.o.ready):
            m.d.sync += [
                collected.eq(Mux(complete, 0, collected + 1)),
                overflowed.eq(~complete & (overflowed | elements.overflow)),
                bad.eq(~complete & (bad | elements.marked)),
            ]
            for k in range(quarters - 1):
                with m.If(collected == k):
                    m.d.sync += parts[k].eq(elements.data)
        words = [Mux(collected == k, elements.data.as_value(), parts[k]) for k in range(quarters - 1)]
        with m.If(outside):
            m.d.comb += [out.eq(beat), self.o.valid.eq(1)]
        with m.Else():
            m.d.comb += [
                out.data.eq(Cat(*words, elements.data)),
                out.tag.eq(tag),
                self.o.valid.eq(complete),
                self.overflow.eq(complete & (overflowed | elements.overflow)),
                out.tag.marked.eq(tag.marked | self.overflow | bad | elements.marked | spoiled),
            ]
            with m.If(complete & self.o.ready):
                m.d.sync += spoiled.eq(~tag.last & (spoiled | self.overflow))
        return m

    def _parts(self, tag):
        """Quarters of a beat."""
        if self.config.lanes == 4:
            return 1
        groups = self.config.lanes // 8
        return 2 * sum(tag.groups[k] for k in range(groups))

    def _round(self, m, levels, scatter):
        """R16 of the results."""
        got, rounded = levels.o.payload, scatter.i.payload
        rfft = got.slot.plain.rfft
        overflows = []
        for k in range(4):
            m.submodules[f"fp16_{k}"] = convert = IntegerToFp16(RESULT_BITS, GUARD)
            m.d.comb += [
                convert.i.eq(got.data[k]),
                convert.code.eq(got.slot.plain.exponent),
                rounded.data[k].eq(Mux(rfft, convert.o, got.data[k][:16])),
            ]
            overflows.append(convert.beyond)
        m.d.comb += [
            rounded.overflow.eq(rfft & Cat(overflows).any()),
            rounded.marked.eq(rfft & got.slot.plain.marked),
            rounded.slot.eq(got.slot),
            scatter.i.valid.eq(levels.o.valid),
            levels.o.ready.eq(scatter.i.ready),
        ]

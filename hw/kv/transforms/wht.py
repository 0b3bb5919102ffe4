"""Inverse Walsh-Hadamard transform at line rate: butterflies across beats and across lanes, then FP16."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.fp16 import IntegerToFp16
from hw.kv.layouts import Coefficients
from hw.kv.transforms.wht_beats import BeatButterfly
from hw.streams.delay import DelayLine
from spec.kv_config import KvEngineConfig

__all__ = ["InverseWht", "coefficient_bits"]


def coefficient_bits(scale_bits: int) -> int:
    """Width of a signed coefficient, 3 times the largest scale."""
    return (3 * ((1 << scale_bits) - 1)).bit_length() + 1


class InverseWht(wiring.Component):
    """Transforms the segments that ask for it, passes everything else on, in order (docs/kv-engine.md T2, T10).

    A Hadamard matrix is a product of one butterfly stage per bit of the index, in any order. The high bits of a
    coefficient's index are its beat: those stages pair a beat with the one d beats later (d = 16, 8, .. 1 for n = 128
    on 4 lanes), see :class:`BeatButterfly`. The low bits are its lane: those stages are plain adders, and stand before
    the last across beats, where words are narrow still and no path has both them and the conversion. All sums are
    exact; words grow a bit per stage. A stage across beats that is too long for a transform doubles its words, which
    the exponent takes back. Other elements wait in a delay line.

    ```
    i -+-> [d = 4] -> [d = 2] -> lanes: 1, 2, 4, 8 -> [d = 1] -> R16 -+-> o      (16 lanes, n = 128)
       +-> [delay] ---------------------------------------------------+
    ```

    Beats move through in lockstep, one per cycle. Between tokens, empty slots push the last ones out; within a token
    the pipeline waits for its input. Latency: the sum of d + 2 over the stages across beats.

    Members
    -------
    i : stream of Coefficients(lanes), In
        Tokens complete.
    o : stream of Coefficients(lanes), Out
        With FP16 instead of the integers of wht, the rest as it was.
    overflow : Out
        A beat with a number beyond FP16 is at ``o``; it is marked, and so are the block's later ones.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.distances = [1 << k for k in reversed(range(ceil_log2(config.max_channels // config.lanes)))]
        self.latency = sum(distance + 2 for distance in self.distances)
        super().__init__(
            {
                "i": In(stream.Signature(Coefficients(config.lanes))),
                "o": Out(stream.Signature(Coefficients(config.lanes))),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        step = Signal()
        inside = Signal()
        slots = Signal(self.latency)  # which hold a beat; the first is the oldest
        free = ~slots[0] | self.o.ready
        m.d.comb += [
            step.eq(free & (self.i.valid | ~inside)),
            self.i.ready.eq(free),
            self.o.valid.eq(slots[0]),
        ]
        with m.If(step):
            m.d.sync += [
                slots.eq(Cat(slots[1:], self.i.valid)),
                inside.eq(self.i.valid & ~self.i.payload.tag.token_last),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += slots[0].eq(0)

        entering = self.i.payload
        m.submodules.beside = beside = DelayLine(len(Value.cast(entering)), self.latency)
        left = Signal(Coefficients(lanes))
        m.d.comb += [beside.i.eq(entering), beside.step.eq(step), left.eq(beside.o)]

        width = coefficient_bits(self.config.scale_bits)
        words = [entering.data[k][:width].as_signed() for k in range(lanes)]
        mark, orders = entering.tag.marked, self._orders()
        for distance in self.distances:
            if distance == 1:
                words, width = self._across_lanes(m, words, width, orders[2:])
            m.submodules[f"beats{distance}"] = stage = BeatButterfly(lanes, width, distance, len(orders) - 2)
            m.d.comb += [stage.i[k].eq(word) for k, word in enumerate(words)]
            m.d.comb += [stage.mark.eq(mark), stage.orders.eq(orders), stage.step.eq(step)]
            words, mark, orders = [stage.o[k] for k in range(lanes)], stage.o_mark, stage.o_orders
            width += 1
        self._convert(m, words, width, left, mark)
        return m

    def _orders(self):
        """For each stage across beats (add, subtract), for the beat that enters; with 32 lanes, if their halves go
        together."""
        plan, lanes = self.i.payload.plan, self.config.lanes
        orders = []
        for distance in self.distances:
            span = 2 * distance * lanes
            active = plan.wht[0] & ((plan.size >= ceil_log2(span // 16)) if span > 16 else 1)
            second = plan.place[ceil_log2(distance)]
            orders += [active & ~second, active & second]
        return Cat(orders, plan.size != 0) if lanes == 32 else Cat(orders)

    def _across_lanes(self, m, words, width, together):
        """The stages within a beat; the one between the halves of 32 lanes only where they go together."""
        lanes = self.config.lanes
        distance = 1
        while distance < lanes:
            results = [Signal(signed(width + 1), name=f"lane{distance}_{k}") for k in range(lanes)]
            for k in range(lanes):
                if k & distance:
                    continue
                low, high = words[k], words[k + distance]
                sums = low + high, low - high
                if distance == 16:
                    sums = Mux(together, sums[0], low), Mux(together, sums[1], high)
                m.d.comb += [results[k].eq(sums[0]), results[k + distance].eq(sums[1])]
            words = results
            width += 1
            distance *= 2
        return words, width

    def _convert(self, m, words, width, left, mark):
        out, plan = self.o.payload, left.plan
        # Stages that doubled: at n = 16, where all that can, `guard`; one less for each size.
        guard = ceil_log2(self.config.max_channels // max(16, self.config.lanes))
        active = plan.size if self.config.lanes <= 16 else Mux(plan.size[1], plan.size - 1, 0)[:2]
        overflows = []
        for k, word in enumerate(words):
            m.submodules[f"fp16_{k}"] = convert = IntegerToFp16(width, guard, whole=True)
            on = plan.wht[k // 16]
            m.d.comb += [
                convert.i.eq(word),
                convert.code.eq(plan.exponent[k // 16] + active),
                out.data[k].eq(Mux(on, convert.o, left.data[k])),
            ]
            overflows.append(convert.beyond & on)
        spoiled = Signal()
        m.d.comb += [
            out.tag.eq(left.tag),
            out.plan.eq(plan),
            self.overflow.eq(self.o.valid & Cat(overflows).any()),
            out.tag.marked.eq(mark | self.overflow | spoiled),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += spoiled.eq(~left.tag.last & (spoiled | self.overflow))

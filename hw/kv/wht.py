"""Inverse Walsh-Hadamard transform at line rate: butterflies across beats, then across lanes, then FP16."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.fp16 import IntegerToFp16
from hw.kv.layouts import Beside, Coefficients
from hw.spec.kv_config import KvEngineConfig

__all__ = ["InverseWht", "coefficient_bits"]


def coefficient_bits(scale_bits: int) -> int:
    """Width of a signed coefficient, 3 times the largest scale."""
    return (3 * ((1 << scale_bits) - 1)).bit_length() + 1


class InverseWht(wiring.Component):
    """Transforms the segments that ask for it, passes everything else on, in order (docs/kv-engine.md T2, T10).

    A Hadamard matrix is a product of one butterfly stage per bit of the index, in any order. The high bits of a
    coefficient's index are its beat: those stages pair a beat with the one d beats later (d = 16, 8, .. 1 for n = 128
    on 4 lanes), with a delay line of d beats each. The low bits are its lane: those stages are plain adders. All sums
    are exact; words grow a bit per stage.

    ```
    i -> [d = 4] -> [d = 2] -> [d = 1] -> register -> lanes: 1, 2, 4, 8 -> register -> R16 -> o       (16 lanes, n =
    128) ```

    Beats move through in lockstep, one per cycle. Between tokens, empty slots push the last ones out; within a token
    the pipeline waits for its input. Latency: 2 slots and the sum of the delays, ``max_channels / lanes - 1``.

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
        self.latency = 2 + sum(self.distances)
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
        step, inside = Signal(), Signal()
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

        width = coefficient_bits(self.config.scale_bits)
        words = [Signal(signed(16), name=f"in{k}") for k in range(lanes)]
        m.d.comb += [words[k].eq(self.i.payload.data[k]) for k in range(lanes)]
        side = Signal(Beside(lanes))
        m.d.comb += [side.tag.eq(self.i.payload.tag), side.plan.eq(self.i.payload.plan)]
        here, delay = self.i.valid, 0
        for distance in self.distances:
            words, side = self._across_beats(m, step, distance, words, side, width, here)
            width += 1
            delay += distance
            here = slots[self.latency - delay]
        words, side = self._register(m, step, words, side, "beats")
        words, side, width = self._across_lanes(m, words, side, width)
        words, side = self._register(m, step, words, side, "lanes")
        self._convert(m, words, side, width)
        return m

    def _register(self, m, step, words, side, name):
        kept = [Signal.like(word, name=f"{name}{k}", reset_less=True) for k, word in enumerate(words)]
        kept_side = Signal(Beside(self.config.lanes), name=f"{name}_side", reset_less=True)
        with m.If(step):
            m.d.sync += [register.eq(word) for register, word in zip(kept, words, strict=True)]
            m.d.sync += kept_side.eq(side)
        return kept, kept_side

    def _across_beats(self, m, step, distance, words, side, width, here):
        """One stage between beats ``distance`` apart. Sums leave at once, differences take the place of what was
        delayed; an empty slot (not ``here``) must leave both alone."""
        lanes = self.config.lanes
        span = 2 * distance * lanes
        shape = signed(max(16, width + 1))
        active, second = Signal(name=f"active{distance}"), Signal(name=f"second{distance}")
        m.d.comb += [
            active.eq(here & side.plan.wht[0] & ((side.plan.size >= ceil_log2(span // 16)) if span > 16 else 1)),
            second.eq(active & side.plan.place[ceil_log2(distance)]),
        ]
        entering = Cat(
            *(Signal(shape, name=f"enter{distance}_{k}") for k in range(lanes)),
            Signal(Beside(lanes), name=f"enter{distance}_side"),
        )
        parts = [entering[shape.width * k : shape.width * (k + 1)] for k in range(lanes)]
        leaving = self._line(m, step, distance, entering)
        delayed = [leaving[shape.width * k : shape.width * (k + 1)].as_signed() for k in range(lanes)]
        results = []
        for k in range(lanes):
            # Only the low `width` bits are numbers when a stage is active.
            old, new = delayed[k][:width].as_signed(), words[k][:width].as_signed()
            result = Signal(shape, name=f"sum{distance}_{k}")
            m.d.comb += [
                parts[k].eq(Mux(second, old - new, words[k])),
                result.eq(Mux(second, old + new, delayed[k])),
            ]
            results.append(result)
        # What is made of a bad coefficient is bad: of the two beats, either's mark goes on both.
        old_side, first, last = (Signal(Beside(lanes), name=f"{n}{distance}") for n in ("old", "side", "new"))
        either = second & (side.tag.marked | old_side.tag.marked)
        m.d.comb += [
            old_side.eq(leaving[shape.width * lanes :]),
            first.eq(old_side),
            first.tag.marked.eq(old_side.tag.marked | either),
            last.eq(side),
            last.tag.marked.eq(side.tag.marked | either),
            entering[shape.width * lanes :].eq(last),
        ]
        return results, first

    def _line(self, m, step, distance, entering):
        """``entering`` of ``distance`` steps ago."""
        if distance == 1:
            line = Signal(len(entering), name="line1", reset_less=True)
            with m.If(step):
                m.d.sync += line.eq(entering)
            return line
        m.submodules[f"line{distance}"] = line = memory.Memory(shape=len(entering), depth=distance, init=[])
        write, read = line.write_port(), line.read_port()
        pointer = Signal(range(distance), name=f"pointer{distance}")
        with m.If(step):
            m.d.sync += pointer.eq(pointer + 1)
        m.d.comb += [
            write.addr.eq(pointer),
            write.data.eq(entering),
            write.en.eq(step),
            read.addr.eq(pointer + 1),
            read.en.eq(step),
        ]
        return read.data

    def _across_lanes(self, m, words, side, width):
        """The stages within a beat; the one between the halves of 32 lanes only from n = 32 on."""
        lanes = self.config.lanes
        raw = [word[:16] for word in words]
        distance = 1
        while distance < lanes:
            results = [Signal(signed(width + 1), name=f"lane{distance}_{k}") for k in range(lanes)]
            for k in range(lanes):
                if k & distance:
                    continue
                low, high = words[k][:width].as_signed(), words[k + distance][:width].as_signed()
                sums = low + high, low - high
                if distance == 16:
                    together = side.plan.size != 0
                    sums = Mux(together, sums[0], low), Mux(together, sums[1], high)
                m.d.comb += [results[k].eq(sums[0]), results[k + distance].eq(sums[1])]
            words = results
            width += 1
            distance *= 2
        chosen = []
        for k in range(lanes):
            word = Signal(signed(max(16, width)), name=f"chosen{k}")
            m.d.comb += word.eq(Mux(side.plan.wht[k // 16], words[k], raw[k].as_signed()))
            chosen.append(word)
        return chosen, side, width

    def _convert(self, m, words, side, width):
        out, plan = self.o.payload, side.plan
        beyond = []
        for k, word in enumerate(words):
            m.submodules[f"fp16_{k}"] = convert = IntegerToFp16(width)
            on = plan.wht[k // 16]
            m.d.comb += [
                convert.i.eq(word),
                convert.code.eq(plan.exponent[k // 16]),
                out.data[k].eq(Mux(on, convert.o, word[:16])),
            ]
            beyond.append(convert.beyond & on)
        spoiled = Signal()
        m.d.comb += [
            out.tag.eq(side.tag),
            out.plan.eq(plan),
            self.overflow.eq(self.o.valid & Cat(beyond).any()),
            out.tag.marked.eq(side.tag.marked | self.overflow | spoiled),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += spoiled.eq(~side.tag.last & (spoiled | self.overflow))

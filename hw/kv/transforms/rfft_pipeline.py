"""The levels of the inverse real DFT, one butterfly and one rotation per cycle and level."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.transforms.rfft_gather import Gathered
from hw.kv.transforms.rfft_layouts import INPUT_BITS, Slot, Words
from hw.kv.transforms.rotate import Rotator
from hw.streams.delay import DelayLine

__all__ = ["RESULT_BITS", "DftLevel", "DftLevels", "DftResult"]

LEVELS = (128, 64, 32, 16, 8)
RESULT_BITS = 23
"""|y| <= n/sqrt(2) * 2^15 at n = 128."""


class DftLevel(wiring.Component):
    """One level of the recursion (docs/kv-engine.md T5..T9): a pair in, its even part and its rotated odd part out;
    combinational.

    Words out are two bits wider at the first level a transform meets, where pairs become complex numbers, and one bit
    at the others: the magnitude of a complex number at most doubles. An inactive level passes its words on.

    Members
    -------
    i : Words(width), In
        r_k, i_k, r_(h-k), i_(h-k); at index 0: r_0, r_h, r_q, i_q.
    active, index : In
        Index is the pair's position in `operation_order(n)`.
    o : Words(width_out), Out
        Even r, even i, odd r, odd i.
    """

    def __init__(self, n: int, width: int, width_out: int):
        self.n, self.width, self.width_out = n, width, width_out
        super().__init__(
            {"i": In(Words(width)), "active": In(1), "index": In(range(n // 4)), "o": Out(Words(width_out))}
        )

    def elaborate(self, platform):
        m = Module()
        words = self.i
        m.submodules.rotator = rotator = Rotator(self.n, self.width + 1)
        m.d.comb += [
            rotator.t.eq(words.a - words.c),
            rotator.u.eq(words.b + words.d),
            rotator.index.eq(self.index),
        ]
        o = self.o
        with m.If(~self.active):
            m.d.comb += [o.a.eq(words.a), o.b.eq(words.b), o.c.eq(words.c), o.d.eq(words.d)]
        with m.Elif(self.index == 0):
            m.d.comb += [o.a.eq(words.a + words.b), o.b.eq(words.c), o.c.eq(words.a - words.b), o.d.eq(-words.d)]
        with m.Else():
            m.d.comb += [
                o.a.eq(words.a + words.c),
                o.b.eq(words.b - words.d),
                o.c.eq(rotator.real),
                o.d.eq(rotator.imaginary),
            ]
        return m


class DftResult(data.Struct):
    """Four outputs y_j of a transform, j = rev(slot.index) + 0, 1, 2, 3 times n/4.

    Elements that are passed on are in the low 16 bits.
    """

    data: data.ArrayLayout(signed(RESULT_BITS), 4)
    slot: Slot


class DftLevels(wiring.Component):
    """Levels for n = 128, 64, 32, 16, 8, each followed by a commutator, then n = 4 (T4..T9). A transform enters at its
    size.

    A commutator of distance d = n/8 brings the results of pairs d apart together, for the even and then for the odd
    half-size transform:

    ```
    even  -----------[x]--[delay d]--> first of the pair
                     [ ]
    odd --[delay d]--[x]-------------> second
    ```

    Slots move in lockstep, one per cycle. Between transforms empty slots push the last ones out. Latency: a slot per
    level and the sum of the delays, 36.

    Members
    -------
    i : stream of Gathered, In
    o : stream of DftResult, Out
    """

    def __init__(self):
        self.latency = sum(n // 8 + 1 for n in LEVELS) + 1
        super().__init__({"i": In(stream.Signature(Gathered)), "o": Out(stream.Signature(DftResult))})

    def elaborate(self, platform):
        m = Module()
        entering = self.i.payload
        step = Signal()
        inside = Signal()
        slots = Signal(self.latency)  # which are not empty; the first is the oldest
        free = ~slots[0] | self.o.ready
        plain = entering.slot.plain
        final = Signal()
        with m.Switch(plain.size):
            for size in range(4):
                with m.Case(size):
                    m.d.comb += final.eq(entering.slot.index == (4 << size) - 1)
        m.d.comb += [
            step.eq(free & (self.i.valid | ~inside)),
            self.i.ready.eq(free),
            self.o.valid.eq(slots[0]),
        ]
        with m.If(step):
            m.d.sync += [slots.eq(Cat(slots[1:], self.i.valid)), inside.eq(self.i.valid & plain.rfft & ~final)]
        with m.Elif(self.o.ready):
            m.d.sync += slots[0].eq(0)

        width = INPUT_BITS
        words = Signal(Words(width))
        m.d.comb += words.eq(Cat(*(entering.data[k] for k in range(4))))
        slot, here, delay = entering.slot, self.i.valid, 0
        for number, n in enumerate(LEVELS):
            width_out = INPUT_BITS + 2 + number
            words, slot = self._level(m, step, n, words, slot, here, width, width_out)
            width = width_out
            delay += n // 8 + 1
            here = slots[self.latency - delay]

        total = words.a + words.b, words.a - words.b
        result = Signal(DftResult, reset_less=True)
        with m.If(step):
            m.d.sync += result.slot.eq(slot)
            with m.If(slot.plain.rfft):
                m.d.sync += [
                    result.data[0].eq(total[0] + words.c),
                    result.data[1].eq(total[1] - words.d),
                    result.data[2].eq(total[0] - words.c),
                    result.data[3].eq(total[1] + words.d),
                ]
            with m.Else():
                m.d.sync += [result.data[k].eq(words[name]) for k, name in enumerate("abcd")]
        m.d.comb += self.o.payload.eq(result)
        return m

    def _level(self, m, step, n, words, slot, here, width, width_out):
        """A level, its register and its commutator."""
        m.submodules[f"level{n}"] = level = DftLevel(n, width, width_out)
        distance = n // 8
        active = Signal(name=f"active{n}")
        m.d.comb += [
            active.eq(here & slot.plain.rfft & ((slot.plain.size >= ceil_log2(n // 16)) if n > 16 else 1)),
            level.i.eq(words),
            level.active.eq(active),
            level.index.eq(slot.index),
        ]
        after, after_slot = Signal(Words(width_out), name=f"after{n}"), Signal(Slot, name=f"after{n}_slot")
        cross = Signal(name=f"cross{n}", reset_less=True)
        with m.If(step):
            m.d.sync += [
                after.eq(level.o),
                after_slot.eq(slot),
                cross.eq(active & slot.index[ceil_log2(distance)]),
            ]
        even, odd = Cat(after.a, after.b), Cat(after.c, after.d)
        m.submodules[f"odd{n}"] = early = DelayLine(2 * width_out, distance)
        m.submodules[f"first{n}"] = late = DelayLine(2 * width_out + len(Value.cast(after_slot)), distance)
        leaving, leaving_slot = Signal(Words(width_out), name=f"pair{n}"), Signal(Slot, name=f"slot{n}")
        m.d.comb += [
            early.i.eq(odd),
            early.step.eq(step),
            late.i.eq(Cat(Mux(cross, early.o, even), after_slot)),
            late.step.eq(step),
            leaving.eq(Cat(late.o[: 2 * width_out], Mux(cross, even, early.o))),
            leaving_slot.eq(late.o[2 * width_out :]),
        ]
        return leaving, leaving_slot

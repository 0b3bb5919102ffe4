"""Probabilities to integers that share their group's exponent (docs/attention.md, equations P1 and P2)."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.arith.adders import prefix_sum
from hw.arith.compressor import compress
from hw.arith.rounding import round_shift
from hw.attention.layouts import WEIGHT_EXPONENT_BITS, Weight
from spec.attention import GROUP_ROWS, AttentionConfig

__all__ = ["AlignedWeights", "WeightAligner"]

SIGNIFICAND_BITS = 11
GROUPS = 3
"""Groups that wait, all of their weights stored."""
DIGIT_BITS = 4
"""Bits of the scale that an exact row's product takes in per cycle."""


class AlignedWeights(wiring.Signature):
    """A group's weights, row by row.

    ``valid``: a whole group is stored, and all that follows is right; ``release``: it is done with. ``y``: P2 of the
    current row, unsigned; ``last``: it is the group's last; ``next``: go on to the next. ``exponent``: L of the group.

    ``exact``, ``final``, ``bad``: the group's rows are exact ones; it is its list's last; a weight was negative or not
    finite, rows of both kinds, or too many rows.
    """

    def __init__(self, config: AttentionConfig):
        super().__init__(
            {
                "valid": Out(1),
                "y": Out(config.weight_bits),
                "last": Out(1),
                "next": In(1),
                "exponent": Out(WEIGHT_EXPONENT_BITS),
                "exact": Out(1),
                "final": Out(1),
                "bad": Out(1),
                "release": In(1),
            }
        )


class WeightAligner(wiring.Component):
    """Stores groups of weights as they come, finds each group's largest exponent, then gives them aligned, one by one.

    Weights lie in a ring of two groups of the largest size; a row's place is free once the next row is read, so that
    short groups come in well ahead. A packed row's weight takes a cycle to come in, an exact one's 4: its significand
    is multiplied with the scale's, 4 bits per cycle. A group's first row is there 2 cycles after its last weight came,
    and the cycle after the group before was released.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    i : stream of Weight, In
    o : AlignedWeights, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(Weight)), "o": Out(AlignedWeights(config))})

    def elaborate(self, platform):
        m = Module()
        entry = data.StructLayout({"significand": SIGNIFICAND_BITS, "exponent": WEIGHT_EXPONENT_BITS})
        depth = 2 * GROUP_ROWS
        group_layout = data.StructLayout(
            {"end": range(2 * depth), "exponent": WEIGHT_EXPONENT_BITS, "exact": 1, "final": 1, "bad": 1}
        )
        m.submodules.store = store = memory.Memory(shape=entry, depth=depth, init=[])
        write, read = store.write_port(), store.read_port()
        m.submodules.groups = groups = SyncFIFOBuffered(width=group_layout.size, depth=GROUPS)
        # Places of the row that comes in and of the one that is read; the top bit tells a full ring from an empty one.
        place = Signal(range(2 * depth))
        row = Signal(range(2 * depth))

        # In.
        weight = self.i.payload
        full = (place ^ row) == depth
        significand, exponent, done = self._weight(m, full | ~groups.w_rdy)
        count = Signal(range(GROUP_ROWS))
        largest = Signal(WEIGHT_EXPONENT_BITS)
        crowded = Signal()
        mixed = Signal()
        before = Signal()
        wrong = weight.value[15] | weight.value[10:15].all()
        wrong_scale = weight.exact & (weight.scale[15] | weight.scale[10:15].all())
        bad = Signal()
        above = Signal(WEIGHT_EXPONENT_BITS)
        entering = data.View(group_layout, groups.w_data)
        m.d.comb += [
            above.eq(Mux((significand != 0) & (exponent > largest), exponent, largest)),
            bad.eq(mixed | crowded | wrong | wrong_scale | ((count != 0) & (weight.exact != before))),
            write.addr.eq(place),
            write.data.significand.eq(significand),
            write.data.exponent.eq(exponent),
            write.en.eq(done),
            self.i.ready.eq(done),
            entering.end.eq(place),
            entering.exponent.eq(above),
            entering.exact.eq(weight.exact),
            entering.final.eq(weight.final),
            entering.bad.eq(bad),
            groups.w_en.eq(done & weight.last),
        ]
        with m.If(done):
            m.d.sync += [count.eq(count + 1), largest.eq(above), mixed.eq(bad), before.eq(weight.exact)]
            # Rows that are too many overwrite the last one.
            with m.If(count.all() | crowded):
                m.d.sync += crowded.eq(1)
            with m.If(~(count.all() | crowded) | weight.last):
                m.d.sync += place.eq(place + 1)
            with m.If(weight.last):
                m.d.sync += [count.eq(0), largest.eq(0), mixed.eq(0), crowded.eq(0)]

        # Out.
        group = data.View(group_layout, groups.r_data)
        following = Signal(range(2 * depth))
        m.d.comb += [
            following.eq(Mux(self.o.release, group.end, row) + (self.o.release | self.o.next)),
            read.addr.eq(following),
            read.en.eq(1),
            groups.r_en.eq(self.o.release),
            self.o.valid.eq(groups.r_rdy),
            self.o.exponent.eq(group.exponent),
            self.o.exact.eq(group.exact),
            self.o.final.eq(group.final),
            self.o.bad.eq(group.bad),
            self.o.last.eq(row == group.end),
        ]
        m.d.sync += row.eq(following)
        self._align(m, read.data, group.exponent)
        return m

    def _weight(self, m, blocked):
        """P1 of the weight at the input: (significand, exponent l, it is done in this cycle)."""
        weight = self.i.payload
        p, g = (Cat(part[:10], part[10:15].any()) for part in (weight.value, weight.scale))
        e_p, e_g = (Cat(part[10] | ~part[10:15].any(), part[11:15]) for part in (weight.value, weight.scale))
        steps = -(-SIGNIFICAND_BITS // DIGIT_BITS)
        width = steps * DIGIT_BITS
        step = Signal(range(steps + 1))
        high = Signal(SIGNIFICAND_BITS, reset_less=True)
        low = Signal(width, reset_less=True)
        rest = Signal(width)
        partial = Signal(SIGNIFICAND_BITS + DIGIT_BITS)
        wide = len(partial)
        rows = [Mux(step == 0, 0, high), *(Mux(rest[k], p << k, 0) for k in range(DIGIT_BITS))]
        rows = [Cat(row, C(0, wide))[:wide] for row in rows]
        while len(rows) > 2:
            rows = [*(r[:wide] for r in compress(m, *rows[:3], wide, f"product{len(rows)}")), *rows[3:]]
        m.d.comb += [rest.eq(Mux(step == 0, g, low)), partial.eq(prefix_sum(m, *rows, wide, "partial_sum"))]
        finished = step == steps
        with m.If(self.i.valid & weight.exact & ~blocked):
            m.d.sync += step.eq(Mux(finished, 0, step + 1))
        m.d.sync += [high.eq(partial[DIGIT_BITS:]), low.eq(Cat(rest[DIGIT_BITS:], partial[:DIGIT_BITS]))]

        # To 11 bits, nearest even; a carry out of them leaves 2^10 and raises the exponent.
        product = Cat(low, high)[: 2 * SIGNIFICAND_BITS]
        long = product[-1]
        kept = Mux(long, product[11:], product[10:21])
        half = Mux(long, product[10], product[9])
        sticky = product[:9].any() | (long & product[9])
        rounded = Signal(SIGNIFICAND_BITS + 1)
        m.d.comb += rounded.eq(kept + (half & (sticky | kept[0])))
        significand = Signal(SIGNIFICAND_BITS)
        exponent = Signal(WEIGHT_EXPONENT_BITS)
        with m.If(weight.exact):
            m.d.comb += [
                significand.eq(Mux(rounded[-1], 1 << SIGNIFICAND_BITS - 1, rounded)),
                exponent.eq(e_p + e_g + Mux(long, 11, 10) + rounded[-1]),
            ]
        with m.Else():
            m.d.comb += [significand.eq(p), exponent.eq(e_p + 25)]
        return significand, exponent, self.i.valid & ~blocked & (~weight.exact | finished)

    def _align(self, m, weight, largest):
        """P2. A weight of 0 may have a larger exponent: whatever its shift, it stays 0."""
        bits = self.config.weight_bits
        amount = Signal(WEIGHT_EXPONENT_BITS)
        m.d.comb += amount.eq(largest - weight.exponent + (SIGNIFICAND_BITS - bits))
        floor, up = round_shift(m, weight.significand, amount[:4], "align")
        rounded = Signal(SIGNIFICAND_BITS + 1)
        m.d.comb += rounded.eq(Mux(amount[4:].any(), 0, floor + up))
        m.d.comb += self.o.y.eq(Mux(rounded[bits:].any(), (1 << bits) - 1, rounded[:bits]))

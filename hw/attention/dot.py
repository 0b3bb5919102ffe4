"""The array of `ScoreCore`: 2-bit codes of 64 channels times integers, a row and a step per cycle."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.fold import PAIRS_PER_WORD, PairLayout
from hw.prealigned.compressor import PipelinedTree, compress
from hw.prealigned.pe import RedundantSum
from hw.spec.attention import LANES, AttentionConfig

__all__ = ["DotArray"]

REGISTERS = (10,)
"""Rows of the adder tree at which its pipeline register lies: about half its depth."""


class DotArray(wiring.Component):
    """``sum over 64 channels of (2 c - 3) z``, accumulated over steps; exact.

    A code c = 2 b1 + b0 has the multiplier 2 (2 b1 - 1) + (2 b0 - 1): two signs. Two neighbouring channels with signs s
    and t give s z + t z' = +-(z + z') or +-(z - z'): with sums and differences held instead of the channels, one row of
    the adder tree serves two of them. A row is selected and complemented; the 1 that negation lacks goes into a carry
    that the tree leaves free. Rows are added in offset binary, as in `PrealignedPE`.

    ```
    codes --> select, xor (64 rows) --> 3:2 tree, one register --> accumulator (carry-save) --> o
    ```

    One step per cycle. ``o`` carries a sum from ``latency`` cycles after its last step on, until after the next step.
    ``keep`` adds to the steps before, ``shift`` to four times them; with neither a new sum begins.

    Members
    -------
    load, word, pairs : In
        Takes over ``PAIRS_PER_WORD`` pairs.
    codes : In
    half : In
        Which 64 channels, in builds for 128.
    step, keep, shift : In
    o : RedundantSum, Out
    """

    latency = 2

    def __init__(self, config: AttentionConfig):
        self.config = config
        words = config.channels // (2 * PAIRS_PER_WORD)
        super().__init__(
            {
                "load": In(1),
                "word": In(range(words)),
                "pairs": In(data.ArrayLayout(PairLayout(config), PAIRS_PER_WORD)),
                "codes": In(data.ArrayLayout(2, LANES)),
                "half": In(1),
                "step": In(1),
                "keep": In(1),
                "shift": In(1),
                "o": Out(RedundantSum(config.score_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        count, width = LANES // 2, config.score_bits
        held = [Signal(PairLayout(config), name=f"pair{k}", reset_less=True) for k in range(config.channels // 2)]
        for k, pair in enumerate(held):
            with m.If(self.load & (self.word == k // PAIRS_PER_WORD)):
                m.d.sync += pair.eq(self.pairs[k % PAIRS_PER_WORD])
        chosen = held[:count]
        if config.steps == 2:
            chosen = []
            for k in range(count):
                pair = Signal(PairLayout(config), name=f"chosen{k}")
                m.d.comb += pair.eq(Mux(self.half, held[count + k].as_value(), held[k].as_value()))
                chosen.append(pair)

        bits = config.fold_bits + 1
        rows, negatives = [], []
        for plane in range(2):
            for k, pair in enumerate(chosen):
                first, second = self.codes[2 * k][plane], self.codes[2 * k + 1][plane]
                negative = Signal(name=f"negative{plane}_{k}")
                row = Signal(bits + plane, name=f"row{plane}_{k}")
                value = Mux(first ^ second, pair.difference, pair.sum).as_unsigned()[:bits]
                offset = Cat(C(0, plane), value[:-1], ~value[-1])
                m.d.comb += [negative.eq(~first), row.eq(offset ^ negative.replicate(bits + plane))]
                rows.append(row)
                negatives.append(negative)
        # A row of the low plane is 2**(bits - 1) too large, one of the high plane twice that.
        place = bits - 1 + count.bit_length() - 1
        rows[0] = Cat(rows[0], C(0, place - bits), C(-3, width - place))
        tree = PipelinedTree(m, rows, negatives, Cat(self.keep, self.shift, self.step), width, set(REGISTERS))
        keep, shift = tree.flags[0], tree.flags[1]
        total, carry = Signal(width, reset_less=True), Signal(width, reset_less=True)
        old = []
        for name, half in (("total", total), ("carry", carry)):
            value = Signal(width, name=f"old_{name}")
            m.d.comb += value.eq((half & keep.replicate(width)) | (Cat(C(0, 2), half)[:width] & shift.replicate(width)))
            old.append(value)
        one, two = tree.carries
        inner = compress(m, *tree.rows, old[0], width, "inner", one)
        outer = compress(m, *inner, old[1], width, "outer", two)
        with m.If(tree.flags[2]):
            m.d.sync += [total.eq(outer[0]), carry.eq(outer[1])]
        m.d.comb += [self.o.total.eq(total), self.o.carry.eq(carry)]
        return m

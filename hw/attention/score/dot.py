"""The array of `ScoreCore`: 2-bit codes of 64 channels times integers, a row and a step per cycle."""

from amaranth import C, Cat, Module, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.compressor import PipelinedTree, compress
from hw.prealigned.pe import RedundantSum
from spec.attention import LANES, AttentionConfig

__all__ = ["QUAD", "DotArray", "DotSteps", "TableWrite", "TableWrites"]

QUAD = 4
"""Neighbouring channels that share a table."""
ENTRIES = 1 << QUAD - 1


class TableWrite(data.StructLayout):
    """Two entries of a table: ``plus`` and ``minus`` differ in the sign of the quad's last channel.

    ``entry``: signs of its channels 1 and 2 against channel 0's, 1 where they differ. ``set``: which of two.
    """

    def __init__(self, config: AttentionConfig):
        number = signed(config.fold_bits + 2)
        super().__init__(
            {"quad": range(config.channels // QUAD), "entry": QUAD - 2, "set": 1, "plus": number, "minus": number}
        )


class TableWrites(wiring.Signature):
    """Entries on their way into the tables: ``entries`` are written where ``valid``."""

    def __init__(self, config: AttentionConfig):
        super().__init__({"entries": Out(TableWrite(config)), "valid": Out(1)})


class DotSteps(wiring.Signature):
    """What the array does in a cycle.

    ``codes`` of 64 channels, ``half``: which, in builds for 128; ``set`` of tables. With ``step`` they are added: with
    ``keep`` to the steps before, with ``shift`` to four times them, with neither to nothing.
    """

    def __init__(self):
        codes = data.ArrayLayout(2, LANES)
        super().__init__({"codes": Out(codes), **{name: Out(1) for name in ("half", "set", "step", "keep", "shift")}})


class DotArray(wiring.Component):
    """``sum over 64 channels of (2 c - 3) z``, accumulated over steps; exact.

    A code c = 2 b1 + b0 has the multiplier 2 (2 b1 - 1) + (2 b0 - 1): two signs, so the row is two planes of signs, the
    upper one worth twice. The sums of four channels with all signs lie in a table: 8 of them, for the first channel's
    sign is taken out (distributed arithmetic). Per plane 16 tables give 16 rows of the adder tree in place of 64. A row
    is complemented where the first sign is negative; the 1 that negation lacks goes into a carry that the tree leaves
    free. Rows are added in offset binary, as in `PrealignedPE`.

    ```
    codes --> 16 tables, read twice --> xor (32 rows) --> 3:2 tree --> accumulator (carry-save) --> o
    ```

    One step per cycle. ``o`` carries a sum from ``latency`` cycles after its last step on, until after the next step.
    There are two sets of tables: one can be written while the other is in use.

    Members
    -------
    tables : TableWrites, In
    steps : DotSteps, In
    o : RedundantSum, Out
    """

    latency = 2

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "tables": In(TableWrites(config)),
                "steps": In(DotSteps()),
                "o": Out(RedundantSum(config.score_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        steps, write = self.steps, self.tables.entries
        count, width = LANES // QUAD, config.score_bits
        bits = config.fold_bits + 2
        several = config.steps == 2
        number = (count - 1).bit_length()

        low, high = [], []
        for j in range(count):
            m.submodules[f"table{j}"] = table = memory.Memory(shape=bits, depth=2 * config.steps * ENTRIES, init=[])
            half = write.quad[number:] if several else C(0, 0)
            for last in range(2):
                port = table.write_port()
                m.d.comb += [
                    port.addr.eq(Cat(write.entry, C(last, 1), half, write.set)),
                    port.data.eq(write.minus if last else write.plus),
                    port.en.eq(self.tables.valid & (write.quad[:number] == j)),
                ]
            for plane, rows in enumerate((low, high)):
                port = table.read_port()
                first, *others = (steps.codes[QUAD * j + k][plane] for k in range(QUAD))
                m.d.comb += [
                    port.addr.eq(Cat(*(first ^ other for other in others), steps.half[:several], steps.set)),
                    port.en.eq(1),
                ]
                negative = Signal(name=f"negative{plane}_{j}", reset_less=True)
                row = Signal(bits + plane, name=f"row{plane}_{j}")
                m.d.sync += negative.eq(~first)
                offset = Cat(C(0, plane), port.data[:-1], ~port.data[-1])
                m.d.comb += row.eq(offset ^ negative.replicate(bits + plane))
                rows.append((row, negative))
        rows, negatives = (list(x) for x in zip(*low, *high, strict=True))
        # A row of the low plane is 2**(bits - 1) too large, one of the high plane twice that.
        place = bits - 1 + count.bit_length() - 1
        rows[0] = Cat(rows[0], C(0, place - bits), C(-3, width - place))
        flags = Signal(3)
        m.d.sync += flags.eq(Cat(steps.keep, steps.shift, steps.step))
        tree = PipelinedTree(m, rows, negatives, flags, width, ())
        keep, shift = tree.flags[0], tree.flags[1]
        total = Signal(width, reset_less=True)
        carry = Signal(width, reset_less=True)
        old = []
        for name, held in (("total", total), ("carry", carry)):
            value = Signal(width, name=f"old_{name}")
            m.d.comb += value.eq((held & keep.replicate(width)) | (Cat(C(0, 2), held)[:width] & shift.replicate(width)))
            old.append(value)
        one, two = tree.carries
        inner = compress(m, *tree.rows, old[0], width, "inner", one)
        outer = compress(m, *inner, old[1], width, "outer", two)
        with m.If(tree.flags[2]):
            m.d.sync += [total.eq(outer[0]), carry.eq(outer[1])]
        m.d.comb += [self.o.total.eq(total), self.o.carry.eq(carry)]
        return m

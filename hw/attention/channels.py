"""Sums of value codes times weights, per channel, over a group of rows (docs/attention.md, equation V1)."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.spec.attention import GROUP_ROWS, LANES, PLANES, AttentionConfig

__all__ = ["BATCH", "SUM_LANES", "ChannelSums"]

BATCH = 4
"""Rows that are added at a time: a whole exact token's planes."""
SUM_LANES = LANES // BATCH
"""Channels that are added at a time."""


class ChannelSums(wiring.Component):
    """Adds rows, 64 channels of one row per cycle, as 16 channels of four rows: a fourth of the accumulators' adders.

    ```
    codes -> four rows (two sets) -> 16 codes of each -> 4 products added -> register -> + -> sums (two sets)
    ```

    Rows are gathered to batches of four; while one is gathered, the batch before goes through the adders, 16 channels
    per cycle. Its weights are multiplied by 2-bit codes as they are selected: nothing, y, 2y or 3y. An exact token's
    four planes are a batch whose weights are 64, 16, 4 and 1 times y. Sums lie in memory, those of one group beside
    those of the group before, which are read meanwhile.

    Throughput: a step per cycle while ``ready``. Sums of a group are there 4 cycles after its last step was taken for
    channels 0..15, and a cycle later for each 16 more.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    groups : In
        Groups of 16 channels in a row, minus 1.
    codes, y : In
        2-bit codes of a step of 64 channels (``step`` 1: of the upper ones), and the row's weight.
    row_last, last : In
        The row's last step; that of the group's last row, too.
    exact : In
        The row is a plane of an exact token.
    valid, ready : In, Out
        A step is taken when both are high.
    abort : In
        Forget the rows of the group in work.
    total : Out
        Sum of the weights of the rows taken, a token's planes counted once; of the next group from its first row on.
    set : Out
        Where the group in work adds.
    address, sums : In, Out
        Reads 16 channels' sums: set on top of the group of channels. A cycle's latency.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        self.total_bits = (GROUP_ROWS * ((1 << config.weight_bits) - 1)).bit_length()
        self.group_bits = ceil_log2(config.channels // SUM_LANES)
        super().__init__(
            {
                "groups": In(self.group_bits),
                "codes": In(data.ArrayLayout(2, LANES)),
                "y": In(config.weight_bits),
                "step": In(1),
                "row_last": In(1),
                "last": In(1),
                "exact": In(1),
                "valid": In(1),
                "ready": Out(1),
                "abort": In(1),
                "total": Out(self.total_bits),
                "set": Out(1),
                "address": In(self.group_bits + 1),
                "sums": Out(data.ArrayLayout(config.sum_bits, SUM_LANES)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        steps, bits = self.config.steps, self.config.weight_bits
        rows, writes, reads = [], [], []
        for r in range(BATCH):
            m.submodules[f"row{r}"] = row = memory.Memory(shape=2 * LANES, depth=2 * steps, init=[])
            rows.append(row)
            writes.append(row.write_port())
            reads.append(row.read_port())

        # Gather.
        slot, half = Signal(range(BATCH)), Signal()
        fresh = Signal(init=1)  # nothing of this group is in the sums yet
        counted = Signal()  # something of it is in the total
        weights = [Signal(bits, name=f"gathered{r}", reset_less=True) for r in range(BATCH)]
        run, phase = Signal(), Signal(self.group_bits)
        taken, complete = Signal(), Signal()
        m.d.comb += [
            # A sum is read the cycle before it is written: batches of one cycle must not follow at once.
            self.ready.eq(~complete | ~run | ((phase == self.groups) & (self.groups != 0))),
            taken.eq(self.valid & self.ready),
            complete.eq(self.row_last & (self.last | (slot == BATCH - 1))),
        ]
        for r in range(BATCH):
            m.d.comb += [
                writes[r].addr.eq(Cat(half, self.step)[: len(writes[r].addr)]),
                writes[r].data.eq(self.codes),
                writes[r].en.eq(taken & (slot == r)),
            ]
            with m.If(taken & (slot == r)):
                m.d.sync += weights[r].eq(self.y)
        with m.If(taken & self.row_last):
            m.d.sync += slot.eq(slot + 1)
            with m.If(~self.exact | (slot == 0)):
                m.d.sync += [self.total.eq(Mux(counted, self.total, 0) + self.y), counted.eq(1)]

        # A batch on its way: 16 channels per cycle, first reads, then adds.
        filled, batch_exact = Signal(range(BATCH), reset_less=True), Signal(reset_less=True)
        batch_half, batch_set, batch_fresh = Signal(), Signal(), Signal()
        with m.If(run):
            m.d.sync += phase.eq(phase + 1)
            with m.If(phase == self.groups):
                m.d.sync += run.eq(0)
        with m.If(taken & complete):
            m.d.sync += [run.eq(1), phase.eq(0), slot.eq(0), half.eq(~half), fresh.eq(self.last)]
            m.d.sync += [filled.eq(slot), batch_exact.eq(self.exact)]
            m.d.sync += [batch_half.eq(half), batch_set.eq(self.set), batch_fresh.eq(fresh)]
            with m.If(self.last):
                m.d.sync += [self.set.eq(~self.set), counted.eq(0)]
        with m.If(self.abort):
            m.d.sync += [slot.eq(0), fresh.eq(1), counted.eq(0)]

        m.submodules.memory = store = memory.Memory(
            shape=data.ArrayLayout(self.config.sum_bits, SUM_LANES), depth=2 << self.group_bits, init=[]
        )
        write, before, out = store.write_port(), store.read_port(), store.read_port()
        m.d.comb += [out.addr.eq(self.address), out.en.eq(1), self.sums.eq(out.data)]
        part = ceil_log2(BATCH)
        for read in reads:
            m.d.comb += [read.addr.eq(Cat(batch_half, phase[part:])[: len(read.addr)]), read.en.eq(1)]
        about = data.StructLayout({"place": self.group_bits, "set": 1, "fresh": 1})
        now, then = Signal(about, reset_less=True), Signal(about, reset_less=True)
        multiplying, adding = Signal(), Signal()
        m.d.sync += [now.eq(Cat(phase, batch_set, batch_fresh)), multiplying.eq(run)]
        m.d.sync += [then.eq(now), adding.eq(multiplying)]
        shifts = [2 * (PLANES - 1 - r) for r in range(BATCH)]
        factors = [Signal(bits + shift, name=f"factor{r}", reset_less=True) for r, shift in enumerate(shifts)]
        with m.If(run & (phase == 0)):
            for r, shift in enumerate(shifts):
                there = (filled >= r) | batch_exact if r else C(1, 1)
                weight = Mux(there, weights[r], 0)
                m.d.sync += factors[r].eq(Mux(batch_exact, weight << shift, weight))
        triples = []
        for r, factor in enumerate(factors):
            triple = Signal(len(factor) + 2, name=f"triple{r}")
            m.d.comb += triple.eq(factor + (factor << 1))
            triples.append(triple)

        m.d.comb += [
            before.addr.eq(Cat(now.place, now.set)),
            before.en.eq(1),
            write.addr.eq(Cat(then.place, then.set)),
            write.en.eq(adding),
        ]
        picked = [Signal(2 * SUM_LANES, name=f"picked{r}") for r in range(BATCH)]
        most = max(BATCH * 3, (1 << 2 * PLANES) - 1) * ((1 << bits) - 1)
        for r, read in enumerate(reads):
            m.d.comb += picked[r].eq(read.data.word_select(now.place[:part], 2 * SUM_LANES))
        for lane in range(SUM_LANES):
            products = []
            for r, (factor, triple) in enumerate(zip(factors, triples, strict=True)):
                code = picked[r].word_select(lane, 2)
                product = Signal(len(triple), name=f"product{r}_{lane}")
                m.d.comb += product.eq(Mux(code[1], Mux(code[0], triple, factor << 1), Mux(code[0], factor, 0)))
                products.append(product)
            part_sum = Signal(range(most + 1), name=f"part{lane}", reset_less=True)
            m.d.sync += part_sum.eq(products[0] + products[1] + products[2] + products[3])
            held = Mux(then.fresh, 0, before.data[lane])
            m.d.comb += write.data[lane].eq(held + part_sum)
        return m

"""Sums of value codes times weights, per channel, over a group of rows (docs/attention.md, equation V1)."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.adders import prefix_sum, ripple_sum, select
from spec.attention import LANES, PLANES, AttentionConfig

__all__ = ["SUM_LANES", "ChannelSums", "SumsPort", "SumsReads", "SumsStep"]

BATCH = 8
"""Rows that are added at a time: the planes of two exact tokens."""
SUM_LANES = LANES // BATCH
"""Channels that are added at a time."""


class SumsStep(data.StructLayout):
    """2-bit ``codes`` of a step of 64 channels (``step`` 1: of the upper ones), and the row's weight ``y``.

    ``row_last``, ``last``: the row's last step; that of the group's last row, too. ``exact``: the row is a plane of an
    exact token.
    """

    def __init__(self, config: AttentionConfig):
        codes = data.ArrayLayout(2, LANES)
        super().__init__({"codes": codes, "y": config.weight_bits, "step": 1, "row_last": 1, "last": 1, "exact": 1})


class SumsPort(wiring.Signature):
    """What adds to the sums.

    ``abort``: forget the rows of the group in work. ``total``: sum of the weights of the rows taken, a token's planes
    counted once; of the next group from its first row on. ``set``: where the group in work adds.
    """

    def __init__(self, config: AttentionConfig):
        steps = stream.Signature(SumsStep(config))
        super().__init__({"steps": Out(steps), "abort": Out(1), "total": In(config.total_bits), "set": In(1)})


class SumsReads(wiring.Signature):
    """Reads 8 channels' ``sums``: ``address`` has the set on top of the group of channels. A cycle's latency."""

    def __init__(self, config: AttentionConfig):
        sums = data.ArrayLayout(config.sum_bits, SUM_LANES)
        super().__init__({"address": Out(1 + ceil_log2(config.channels // SUM_LANES)), "sums": In(sums)})


class ChannelSums(wiring.Component):
    """Adds rows, 64 channels of one row per cycle, as 8 channels of eight rows: an eighth of the accumulators' adders.

    ```
    codes -> eight rows (two sets) -> 8 codes of each -> 8 products added -> register -> + -> sums (two sets)
    ```

    Rows are gathered to batches of eight, each with its weight; while one is gathered, the batch before goes through
    the adders, 8 channels per cycle. Rows four apart share a product: nothing, one weight, the other or both, for
    either bit of their codes. So two exact tokens' planes make a batch whose products are worth 64, 16, 4 and 1. Sums
    lie in memory, those of one group beside those of the group before, which are read meanwhile; their upper halves
    are added a cycle after the lower ones, so that short carry chains do.

    Throughput: a step per cycle while ``ready``. Sums of a group are there 5 cycles after its last step was taken for
    channels 0..7, and a cycle later for each 8 more.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    groups : In
        Groups of 8 channels in a row, minus 1.
    port : SumsPort, In
    reads : SumsReads, In
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        self.group_bits = ceil_log2(config.channels // SUM_LANES)
        super().__init__({"groups": In(self.group_bits), "port": In(SumsPort(config)), "reads": In(SumsReads(config))})

    def elaborate(self, platform):
        m = Module()
        port, step = self.port, self.port.steps.payload
        bits = self.config.weight_bits
        rows, writes, reads = [], [], []
        for r in range(BATCH):
            # A row, its weight and, where a row comes four later, both weights.
            word = data.StructLayout({"codes": 2 * LANES, "y": bits} | ({"both": bits + 1} if r >= PLANES else {}))
            m.submodules[f"row{r}"] = row = memory.Memory(shape=word, depth=2 * self.config.steps, init=[])
            rows.append(row)
            writes.append(row.write_port())
            reads.append(row.read_port())

        # Gather.
        slot = Signal(range(BATCH))
        half = Signal()
        fresh = Signal(init=1)  # nothing of this group is in the sums yet
        counted = Signal()  # something of it is in the total
        weights = [Signal(bits, name=f"before{r}", reset_less=True) for r in range(PLANES)]
        run = Signal()
        phase = Signal(self.group_bits)
        taken = Signal()
        complete = Signal()
        m.d.comb += [
            # A sum is read the cycle before it is written: batches of one cycle must not follow at once.
            port.steps.ready.eq(~complete | ~run | ((phase == self.groups) & (self.groups != 0))),
            taken.eq(port.steps.valid & port.steps.ready),
            complete.eq(step.row_last & (step.last | (slot == BATCH - 1))),
        ]
        both = ripple_sum(m, weights[-1], step.y, bits + 1, "both")
        for r, write in enumerate(writes):
            m.d.comb += [
                write.addr.eq(Cat(half, step.step)[: len(write.addr)]),
                write.data.codes.eq(step.codes),
                write.data.y.eq(step.y),
                write.en.eq(taken & (slot == r)),
            ]
            if r >= PLANES:
                m.d.comb += write.data.both.eq(both)
        with m.If(taken & step.row_last):
            m.d.sync += [after.eq(before) for before, after in zip([step.y, *weights[:-1]], weights, strict=True)]
        so_far = port.total & counted.replicate(self.config.total_bits)
        grown = prefix_sum(m, so_far, step.y, self.config.total_bits, "grown")
        with m.If(taken & step.row_last):
            m.d.sync += slot.eq(slot + 1)
            with m.If(~step.exact | (slot[:2] == 0)):
                m.d.sync += [port.total.eq(grown), counted.eq(1)]

        # A batch on its way: 8 channels per cycle, first reads, then adds.
        filled = Signal(range(BATCH), reset_less=True)
        batch_exact = Signal(reset_less=True)
        batch_half = Signal()
        batch_set = Signal()
        batch_fresh = Signal()
        with m.If(run):
            m.d.sync += phase.eq(phase + 1)
            with m.If(phase == self.groups):
                m.d.sync += run.eq(0)
        with m.If(taken & complete):
            m.d.sync += [run.eq(1), phase.eq(0), slot.eq(0), half.eq(~half), fresh.eq(step.last)]
            m.d.sync += [filled.eq(slot), batch_exact.eq(step.exact)]
            m.d.sync += [batch_half.eq(half), batch_set.eq(port.set), batch_fresh.eq(fresh)]
            with m.If(step.last):
                m.d.sync += [port.set.eq(~port.set), counted.eq(0)]
        with m.If(port.abort):
            m.d.sync += [slot.eq(0), fresh.eq(1), counted.eq(0)]

        part = ceil_log2(BATCH)
        for read in reads:
            m.d.comb += [read.addr.eq(Cat(batch_half, phase[part:])[: len(read.addr)]), read.en.eq(1)]
        batch = data.StructLayout({"place": self.group_bits, "set": 1, "fresh": 1, "exact": 1, "filled": range(BATCH)})
        stages = [Signal(batch, name=f"batch{k}", reset_less=True) for k in range(3)]
        valid = [Signal(name=f"batch_valid{k}") for k in range(3)]
        m.d.sync += stages[0].eq(Cat(phase, batch_set, batch_fresh, batch_exact, filled))
        m.d.sync += [after.eq(before) for before, after in pairwise(stages)]
        m.d.sync += [after.eq(before) for before, after in pairwise([run, *valid])]
        self._accumulate(m, self._add(m, reads, stages[0]), stages, valid)
        return m

    def _add(self, m, reads, batch):
        """Parts of 8 channels' sums: eight rows' products added, a cycle after the rows were read."""
        bits = self.config.weight_bits
        # 8 channels' codes of each row, none of rows that the batch has not got.
        place = Signal(BATCH)
        part = ceil_log2(BATCH)
        m.d.comb += place.eq(1 << batch.place[:part])
        picked = []
        for r, read in enumerate(reads):
            chosen = place & (batch.filled >= r).replicate(BATCH) if r else place
            codes = Signal(2 * SUM_LANES, name=f"picked{r}")
            groups = [read.data.codes.word_select(k, 2 * SUM_LANES) for k in range(BATCH)]
            m.d.comb += codes.eq(select(zip(chosen, groups, strict=True)))
            picked.append(codes)
        pairs = [(reads[r].data.y, reads[r + PLANES].data.y, reads[r + PLANES].data.both) for r in range(PLANES)]
        parts = []
        for lane in range(SUM_LANES):
            codes = [x.word_select(lane, 2) for x in picked]
            products = [
                self._product(m, pair, codes[r], codes[r + PLANES], f"product{r}_{lane}")
                for r, pair in enumerate(pairs)
            ]
            # An exact token's planes are worth four times each other.
            upper, lower = (
                ripple_sum(
                    m, Mux(batch.exact, products[r] << 2, products[r]), products[r + 1], bits + 5, f"two{r}_{lane}"
                )
                for r in (0, 2)
            )
            four = ripple_sum(m, Mux(batch.exact, upper << 4, upper), lower, bits + 9, f"four{lane}")
            part_sum = Signal(bits + 9, name=f"part{lane}", reset_less=True)
            m.d.sync += part_sum.eq(four)
            parts.append(part_sum)
        return parts

    def _accumulate(self, m, parts, stages, valid):
        """Adds to the sums: their lower halves in one cycle, with the carries the upper ones in the next."""
        bits = self.config.sum_bits
        cut = bits // 2
        carries, found = [], []
        for stage, (name, width) in enumerate((("lower", cut), ("upper", bits - cut)), 1):
            batch, following = stages[stage], stages[stage - 1]
            shape = data.ArrayLayout(width, SUM_LANES)
            m.submodules[name] = store = memory.Memory(shape=shape, depth=2 << self.group_bits, init=[])
            write, before, out = store.write_port(), store.read_port(), store.read_port()
            m.d.comb += [
                out.addr.eq(self.reads.address),
                out.en.eq(1),
                before.addr.eq(Cat(following.place, following.set)),
                before.en.eq(1),
                write.addr.eq(Cat(batch.place, batch.set)),
                write.en.eq(valid[stage]),
            ]
            found.append(out.data)
            for lane, part in enumerate(parts):
                held = Signal(width, name=f"held_{name}{lane}")
                m.d.comb += held.eq(Mux(batch.fresh, 0, before.data[lane]))
                if name == "lower":
                    total = ripple_sum(m, held, part[:cut], cut + 1, f"sum_lower{lane}")
                    rest = Signal(len(part) - cut + 1, name=f"rest{lane}", reset_less=True)
                    m.d.sync += rest.eq(Cat(total[-1], part[cut:]))
                    carries.append(rest)
                else:
                    rest = carries[lane]
                    total = ripple_sum(m, held, rest[1:], width, f"sum_upper{lane}", rest[0])
                m.d.comb += write.data[lane].eq(total)
        m.d.comb += [self.reads.sums[lane].eq(Cat(*(half[lane] for half in found))) for lane in range(SUM_LANES)]

    def _product(self, m, pair, code, other_code, name):
        """``code * first + other_code * second``."""
        first, second, both = pair
        rows = []
        for plane in range(2):
            x, y = code[plane], other_code[plane]
            width = len(both)
            row = Signal(width, name=f"{name}_row{plane}")
            m.d.comb += row.eq(
                (first & (x & ~y).replicate(width))
                | (second & (y & ~x).replicate(width))
                | (both & (x & y).replicate(width))
            )
            rows.append(row)
        return ripple_sum(m, rows[0], rows[1] << 1, len(both) + 2, name)

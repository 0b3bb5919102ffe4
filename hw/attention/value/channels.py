"""Sums of value codes times weights, per channel, over a group of rows (docs/attention.md, equation V1)."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.adders import prefix_sum, ripple_sum, select
from spec.attention import GROUP_ROWS, LANES, PLANES, AttentionConfig

__all__ = ["BATCH", "SUM_LANES", "ChannelSums"]

BATCH = 8
"""Rows that are added at a time: the planes of two exact tokens."""
SUM_LANES = LANES // BATCH
"""Channels that are added at a time."""


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
        Reads 8 channels' sums: set on top of the group of channels. A cycle's latency.
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
            # A row, its weight and, where a row comes four later, both weights.
            word = {"codes": 2 * LANES, "y": bits} | ({"both": bits + 1} if r >= PLANES else {})
            m.submodules[f"row{r}"] = row = memory.Memory(shape=data.StructLayout(word), depth=2 * steps, init=[])
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
            self.ready.eq(~complete | ~run | ((phase == self.groups) & (self.groups != 0))),
            taken.eq(self.valid & self.ready),
            complete.eq(self.row_last & (self.last | (slot == BATCH - 1))),
        ]
        both = ripple_sum(m, weights[-1], self.y, bits + 1, "both")
        for r, write in enumerate(writes):
            m.d.comb += [
                write.addr.eq(Cat(half, self.step)[: len(write.addr)]),
                write.data.codes.eq(self.codes),
                write.data.y.eq(self.y),
                write.en.eq(taken & (slot == r)),
            ]
            if r >= PLANES:
                m.d.comb += write.data.both.eq(both)
        with m.If(taken & self.row_last):
            m.d.sync += [after.eq(before) for before, after in zip([self.y, *weights[:-1]], weights, strict=True)]
        so_far = self.total & counted.replicate(self.total_bits)
        grown = prefix_sum(m, so_far, self.y, self.total_bits, "grown")
        with m.If(taken & self.row_last):
            m.d.sync += slot.eq(slot + 1)
            with m.If(~self.exact | (slot[:2] == 0)):
                m.d.sync += [self.total.eq(grown), counted.eq(1)]

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
            m.d.sync += [run.eq(1), phase.eq(0), slot.eq(0), half.eq(~half), fresh.eq(self.last)]
            m.d.sync += [filled.eq(slot), batch_exact.eq(self.exact)]
            m.d.sync += [batch_half.eq(half), batch_set.eq(self.set), batch_fresh.eq(fresh)]
            with m.If(self.last):
                m.d.sync += [self.set.eq(~self.set), counted.eq(0)]
        with m.If(self.abort):
            m.d.sync += [slot.eq(0), fresh.eq(1), counted.eq(0)]

        part = ceil_log2(BATCH)
        for read in reads:
            m.d.comb += [read.addr.eq(Cat(batch_half, phase[part:])[: len(read.addr)]), read.en.eq(1)]
        about = data.StructLayout({"place": self.group_bits, "set": 1, "fresh": 1, "exact": 1, "filled": range(BATCH)})
        now, then, last = (Signal(about, name=name, reset_less=True) for name in ("now", "then", "later"))
        multiplying = Signal()
        adding = Signal()
        carrying = Signal()
        m.d.sync += [now.eq(Cat(phase, batch_set, batch_fresh, batch_exact, filled)), multiplying.eq(run)]
        m.d.sync += [then.eq(now), adding.eq(multiplying), last.eq(then), carrying.eq(adding)]

        # 8 channels' codes of each row, none of rows that the batch has not got.
        place = Signal(BATCH)
        m.d.comb += place.eq(1 << now.place[:part])
        picked = []
        for r, read in enumerate(reads):
            chosen = place & (now.filled >= r).replicate(BATCH) if r else place
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
                    m, Mux(now.exact, products[r] << 2, products[r]), products[r + 1], bits + 5, f"two{r}_{lane}"
                )
                for r in (0, 2)
            )
            four = ripple_sum(m, Mux(now.exact, upper << 4, upper), lower, bits + 9, f"four{lane}")
            part_sum = Signal(bits + 9, name=f"part{lane}", reset_less=True)
            m.d.sync += part_sum.eq(four)
            parts.append(part_sum)
        self._accumulate(m, parts, now, (then, adding), (last, carrying))
        return m

    def _accumulate(self, m, parts, now, lower, upper):
        """Adds to the sums: their lower halves in one cycle, with the carries the upper ones in the next."""
        bits = self.config.sum_bits
        cut = bits // 2
        carries, found = [], []
        for name, width, (about, valid), following in (
            ("lower", cut, lower, now),
            ("upper", bits - cut, upper, lower[0]),
        ):
            shape = data.ArrayLayout(width, SUM_LANES)
            m.submodules[name] = store = memory.Memory(shape=shape, depth=2 << self.group_bits, init=[])
            write, before, out = store.write_port(), store.read_port(), store.read_port()
            m.d.comb += [
                out.addr.eq(self.address),
                out.en.eq(1),
                before.addr.eq(Cat(following.place, following.set)),
                before.en.eq(1),
                write.addr.eq(Cat(about.place, about.set)),
                write.en.eq(valid),
            ]
            found.append(out.data)
            for lane, part in enumerate(parts):
                held = Signal(width, name=f"held_{name}{lane}")
                m.d.comb += held.eq(Mux(about.fresh, 0, before.data[lane]))
                if name == "lower":
                    total = ripple_sum(m, held, part[:cut], cut + 1, f"sum_lower{lane}")
                    rest = Signal(len(part) - cut + 1, name=f"rest{lane}", reset_less=True)
                    m.d.sync += rest.eq(Cat(total[-1], part[cut:]))
                    carries.append(rest)
                else:
                    rest = carries[lane]
                    total = ripple_sum(m, held, rest[1:], width, f"sum_upper{lane}", rest[0])
                m.d.comb += write.data[lane].eq(total)
        m.d.comb += [self.sums[lane].eq(Cat(*(half[lane] for half in found))) for lane in range(SUM_LANES)]

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

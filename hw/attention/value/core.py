"""P.V straight from packed value codes: a list of blocks and runs of exact tokens against their probabilities."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import PacketBeat, Weight
from hw.attention.packets import PacketFront
from hw.attention.value.channels import ChannelSums
from hw.attention.value.results import Value as Element
from hw.attention.value.results import ValueOut
from hw.attention.value.rows import ValueRows
from hw.attention.value.weights import WeightAligner
from hw.kv.errors import COUNTER_BITS, ErrorLog
from hw.kv.layouts import ERROR_BITS, BlockEntry
from hw.kv.packet.metadata import MetadataReader
from spec import checks
from spec.attention import AttentionConfig
from spec.kv_config import KvError

__all__ = ["ValueCore"]

OTHER_WORDS = 16
"""Words of a block besides its channels': mask and bitmap, and some of the next block's."""
ROWS_DEPTH = 16
"""Beats of rows that wait: as many as come while the next block's prefix is taken apart would have."""
FROM_ROWS = ("codes", "step", "row_last", "last", "exact", "valid", "abort")
"""What the sums take from the rows by name."""


class ValueCore(wiring.Component):
    """Adds value rows, weighted by probabilities, per channel (docs/attention.md, sections 5 to 7).

    ```
    weights -> WeightAligner ---- y ----+
    i -> PacketFront -+- rows, entries -[queues]-> ValueRows -> ChannelSums (two sets) -> ValueOut -> o
                      +- entries, words -[queues]-> MetadataReader ---------- records -------^
    ```

    A group's weights are aligned once. A packed row of up to 64 channels takes a cycle; an exact one four, a digit
    plane each, and every fourth of 64 channels one more, for the port; from 72 channels on twice as many. A group's
    sums are scaled, a channel per cycle, while the next group's rows are added; so are a list's elements sent. Between
    two packets passes a cycle.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    channels : In, 4
        Head dim / 8 - 1, as in headers; static while packets are under way. Blocks of another head dim are refused.
    weights : stream of Weight, In
        A group of probabilities per block, one or more per run of exact tokens. They may come before the packet.
    i : stream of PacketBeat, In
    o : stream of Value, Out
    error, error_count : Out
        First code since the last clear (KvError, AttentionError); marked lists since then.
    error_clear : In
    busy : Out
        The array takes a step in this cycle.
    """

    def __init__(self, config: AttentionConfig):
        checks.instance("config", config, AttentionConfig)
        self.config = config
        super().__init__(
            {
                "channels": In(4),
                "weights": In(stream.Signature(Weight)),
                "i": In(stream.Signature(PacketBeat)),
                "o": Out(stream.Signature(Element)),
                "error": Out(ERROR_BITS),
                "error_count": Out(COUNTER_BITS),
                "error_clear": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.front = front = PacketFront(config)
        m.submodules.reader = reader = MetadataReader(config.parser)
        m.submodules.aligner = aligner = WeightAligner(config)
        m.submodules.sums = sums = ChannelSums(config)
        m.submodules.rows = rows = ValueRows(config, sums.total_bits)
        m.submodules.out = out = ValueOut(config, sums.total_bits, sums.group_bits + 1)
        m.submodules.log = log = ErrorLog()
        wiring.connect(m, wiring.flipped(self.i), front.i)
        wiring.connect(m, wiring.flipped(self.weights), aligner.i)
        wiring.connect(m, rows.jobs, out.jobs)
        wiring.connect(m, out.o, wiring.flipped(self.o))

        # Words wait until their block's sums are complete: a whole block's must fit.
        words = SyncFIFOBuffered(width=len(Value.cast(front.words.payload)), depth=config.channels // 2 + OTHER_WORDS)
        blocks = SyncFIFOBuffered(width=len(Value.cast(reader.blocks.payload)), depth=3)
        entries = SyncFIFOBuffered(width=len(Value.cast(front.entries.payload)), depth=3)
        # Beats, and in a place of their own the ends of packets that have no rows.
        beats = SyncFIFOBuffered(width=len(Value.cast(front.rows.payload)) + 1, depth=ROWS_DEPTH)
        m.submodules.words, m.submodules.blocks, m.submodules.entries = words, blocks, entries
        m.submodules.beats = beats
        entry = front.entries.payload
        block = Value.cast(entry)[: BlockEntry.as_shape().size]
        cut = Signal()
        missing = Signal()
        m.d.comb += [
            cut.eq(front.words.valid & front.words.payload.cut),
            missing.eq(beats.r_rdy & beats.r_data[-1]),
            words.w_data.eq(front.words.payload),
            words.w_en.eq(front.words.valid & (~cut | beats.w_rdy)),
            front.words.ready.eq(words.w_rdy & (~cut | beats.w_rdy)),
            beats.w_data.eq(Cat(front.rows.payload, cut)),
            beats.w_en.eq(front.rows.valid | (cut & words.w_rdy)),
            front.rows.ready.eq(beats.w_rdy),
            rows.rows.payload.eq(beats.r_data[:-1]),
            rows.rows.valid.eq(beats.r_rdy & ~missing),
            rows.cut.eq(missing),
            beats.r_en.eq(Mux(missing, rows.cut_taken, rows.rows.ready)),
            reader.words.payload.eq(words.r_data),
            reader.words.valid.eq(words.r_rdy),
            words.r_en.eq(reader.words.ready),
            # Blocks that have words go to the reader too.
            entries.w_data.eq(entry),
            entries.w_en.eq(front.entries.valid & blocks.w_rdy),
            front.entries.ready.eq(entries.w_rdy & blocks.w_rdy),
            rows.entries.payload.eq(entries.r_data),
            rows.entries.valid.eq(entries.r_rdy),
            entries.r_en.eq(rows.entries.ready),
            blocks.w_data.eq(block),
            blocks.w_en.eq(front.entries.valid & entries.w_rdy & ~entry.exact & (entry.error == 0)),
            reader.blocks.payload.eq(blocks.r_data),
            reader.blocks.valid.eq(blocks.r_rdy),
            blocks.r_en.eq(reader.blocks.ready),
            rows.channels.eq(self.channels),
            out.channels.eq(self.channels),
        ]
        m.d.comb += [
            rows.there.eq(aligner.there),
            rows.weights_last.eq(aligner.last),
            rows.weights_exact.eq(aligner.exact),
            rows.weights_final.eq(aligner.final),
            rows.weights_bad.eq(aligner.bad),
            rows.exponent.eq(aligner.exponent),
            aligner.next.eq(rows.next),
            aligner.release.eq(rows.release),
            sums.y.eq(aligner.y),
            sums.groups.eq(self.channels),
            *(getattr(sums, name).eq(getattr(rows, name)) for name in FROM_ROWS),
            rows.ready.eq(sums.ready),
            rows.total.eq(sums.total),
            rows.set.eq(sums.set),
            sums.address.eq(out.address),
            out.sums.eq(sums.sums),
            self.busy.eq(sums.valid & sums.ready),
        ]
        wiring.connect(m, reader.records, out.records)
        wiring.connect(m, reader.verdicts, out.verdicts)
        late = reader.verdicts
        m.d.comb += [
            reader.grant.eq(out.grant),
            log.code.eq(rows.error),
            log.strobe.eq(rows.error_strobe),
            log.late.eq(Mux(out.overflow, KvError.OVERFLOW, late.payload.error)),
            log.late_strobe.eq(out.overflow | (late.valid & late.ready & (late.payload.error != 0))),
            log.bad.eq(self.o.valid & self.o.ready & self.o.payload.last & self.o.payload.marked),
            log.clear.eq(self.error_clear),
            self.error.eq(log.error),
            self.error_count.eq(log.count),
        ]
        return m

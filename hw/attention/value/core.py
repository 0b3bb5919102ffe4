"""P.V straight from packed value codes: a list of blocks and runs of exact tokens against their probabilities."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In

from hw.attention.core import AttentionCore, add_queue
from hw.attention.layouts import Weight
from hw.attention.metadata import MetadataReader
from hw.attention.value.channels import ChannelSums
from hw.attention.value.results import Value as Element
from hw.attention.value.results import ValueOut
from hw.attention.value.rows import ValueRows
from hw.attention.value.weights import WeightAligner
from hw.kv.layouts import Beat, BlockEntry
from spec.attention import BUS_BYTES, AttentionConfig
from spec.kv_config import KvError

__all__ = ["ValueCore"]

OTHER_WORDS = 16
"""Words of a block besides its channels': mask and bitmap, and some of the next block's."""
ROWS_DEPTH = 16
"""Beats of rows that wait: as many as come while the next block's prefix is taken apart would have."""
BLOCKS_DEPTH = 3


class ValueCore(AttentionCore):
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
    error, error_count, error_clear, busy
        Of :class:`hw.attention.core.AttentionCore`; marked lists are counted.
    """

    def __init__(self, config: AttentionConfig):
        super().__init__(config, {"channels": In(4), "weights": In(stream.Signature(Weight))}, Element)

    def elaborate(self, platform):
        m = Module()
        config = self.config
        front, log = self.add_frame(m)
        m.submodules.reader = reader = MetadataReader(config.parser)
        m.submodules.aligner = aligner = WeightAligner(config)
        m.submodules.rows = rows = ValueRows(config)
        m.submodules.sums = sums = ChannelSums(config)
        m.submodules.out = out = ValueOut(config)
        self._queue(m, front, reader, rows)
        wiring.connect(m, wiring.flipped(self.weights), aligner.i)
        wiring.connect(m, aligner.o, rows.weights)
        wiring.connect(m, rows.sums, sums.port)
        wiring.connect(m, rows.jobs, out.jobs)
        wiring.connect(m, out.sums, sums.reads)
        wiring.connect(m, reader.records, out.records)
        wiring.connect(m, reader.verdicts, out.verdicts)
        wiring.connect(m, out.o, wiring.flipped(self.o))
        late, steps = reader.verdicts, rows.sums.steps
        m.d.comb += [
            rows.channels.eq(self.channels),
            sums.groups.eq(self.channels),
            out.channels.eq(self.channels),
            reader.grant.eq(out.grant),
            self.busy.eq(steps.valid & steps.ready),
            log.code.eq(rows.error),
            log.strobe.eq(rows.error_strobe),
            log.late.eq(Mux(out.overflow, KvError.OVERFLOW, late.payload.error)),
            log.late_strobe.eq(out.overflow | (late.valid & late.ready & (late.payload.error != 0))),
        ]
        return m

    def _queue(self, m, front, reader, rows):
        """Entries, words and rows wait for whoever takes them."""
        entry = front.entries.payload
        blocks, entries, words, beats, leaving = (
            stream.Signature(shape).create(path=(name,))
            for name, shape in (
                ("block", BlockEntry),
                ("entry", front.entries.payload.shape()),
                ("word", front.words.payload.shape()),
                ("beat", _Beat),
                ("leaving", _Beat),
            )
        )
        # Words wait until their block's sums are complete: a whole block's must fit.
        add_queue(m, "word_queue", words, reader.words, self.config.channels // 2 + OTHER_WORDS)
        add_queue(m, "block_queue", blocks, reader.blocks, BLOCKS_DEPTH)
        add_queue(m, "entry_queue", entries, rows.entries, BLOCKS_DEPTH)
        add_queue(m, "row_queue", beats, leaving, ROWS_DEPTH)
        cut = Signal()
        m.d.comb += [
            # Blocks that have words go to the reader too.
            Value.cast(blocks.payload).eq(Value.cast(entry)),
            blocks.valid.eq(front.entries.valid & entries.ready & ~entry.exact & (entry.error == 0)),
            entries.payload.eq(entry),
            entries.valid.eq(front.entries.valid & blocks.ready),
            front.entries.ready.eq(entries.ready & blocks.ready),
            # The end of a packet that has no rows waits among the beats.
            cut.eq(front.words.valid & front.words.payload.cut),
            words.payload.eq(front.words.payload),
            words.valid.eq(front.words.valid & (~cut | beats.ready)),
            front.words.ready.eq(words.ready & (~cut | beats.ready)),
            beats.payload.beat.eq(front.rows.payload),
            beats.payload.cut.eq(cut),
            beats.valid.eq(front.rows.valid | (cut & words.ready)),
            front.rows.ready.eq(beats.ready),
            rows.rows.payload.eq(leaving.payload.beat),
            rows.rows.valid.eq(leaving.valid & ~leaving.payload.cut),
            rows.cut.eq(leaving.valid & leaving.payload.cut),
            leaving.ready.eq(Mux(rows.cut, rows.cut_taken, rows.rows.ready)),
        ]


class _Beat(data.Struct):
    """A beat of rows, or ``cut``, a packet's end in their place."""

    beat: Beat(8 * BUS_BYTES)
    cut: 1

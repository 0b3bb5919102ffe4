"""The KV dequant engine: packed blocks in, FP16 elements out at line rate."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.errors import COUNTER_BITS, ErrorLog
from hw.kv.layouts import ERROR_BITS, Beat, BlockEntry, Coefficients, Elements, PrefixWord, Verdict
from hw.kv.parser import PacketParser
from hw.kv.queue import WordQueue
from hw.kv.reader import WordReader
from hw.kv.rfft import InverseRfft
from hw.kv.sequencer import RowSequencer
from hw.kv.tables import ValueTables
from hw.kv.wht import InverseWht
from hw.spec.kv_config import KvEngineConfig, KvError
from hw.spec.kv_formats import KvTransform

__all__ = ["KvDequantizer"]


class KvDequantizer(wiring.Component):
    """Packed KV blocks to FP16 elements (formats and arithmetic: docs/kv-engine.md).

    ```
    i -> PacketParser -+- words -> [queue] -> WordReader -> RecordLoader -> ValueUnit -> tables (two sets) -> o
                       +- rows -> [buffer] -> RowSequencer -- codes ----------------------^
    ```

    The values of a block are formed, one per cycle, while the rows of the block before leave the buffer, so that
    headers cost next to nothing in the steady state. Throughput: a beat of ``lanes`` elements per cycle; between blocks
    3 cycles and one for each chunk of padding.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    i : stream of Beat(4 * lanes), In
    o : stream of Elements(lanes), Out
    error, error_count : Out
        Code of the first error since the last clear, 0 for none; bad packets since then.
    error_clear : In
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(Beat(config.input_bits))),
                "o": Out(stream.Signature(Elements(config.lanes))),
                "error": Out(ERROR_BITS),
                "error_count": Out(COUNTER_BITS),
                "error_clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.parser = parser = PacketParser(config)
        m.submodules.words = words = WordQueue(PrefixWord, config.prefix_words)
        m.submodules.reader = reader = WordReader()
        m.submodules.tables = tables = self._tables()
        m.submodules.sequencer = sequencer = RowSequencer(config)
        m.submodules.log = log = ErrorLog()
        wiring.connect(m, wiring.flipped(self.i), parser.i)
        wiring.connect(m, parser.words, words.i)
        wiring.connect(m, words.o, reader.words)
        wiring.connect(m, parser.rows, sequencer.rows)

        # Blocks pass from the parser to the reader to the sequencer. There are two sets of tables and bitmaps, and a
        # third header so that its words are there when a set gets free.
        m.submodules.entries = entries = memory.Memory(shape=BlockEntry, depth=4, init=[])
        m.submodules.verdicts = verdicts = memory.Memory(shape=Verdict, depth=2, init=[])
        store, fetches = entries.write_port(), (entries.read_port(), entries.read_port())
        judge, verdict = verdicts.write_port(), verdicts.read_port()
        parsed, read_in, used, unread, unsent = Signal(2), Signal(2), Signal(2), Signal(2), Signal(2)
        took = Signal()
        m.d.sync += [
            parsed.eq(parsed + took),
            read_in.eq(read_in + reader.verdict_strobe),
            used.eq(used + took - sequencer.release),
            unread.eq(unread + took - reader.verdict_strobe),
            unsent.eq(unsent + reader.verdict_strobe - sequencer.release),
        ]
        m.d.comb += [
            parser.blocks.ready.eq(~used.all()),
            took.eq(parser.blocks.valid & parser.blocks.ready),
            store.addr.eq(parsed),
            store.data.eq(parser.blocks.payload),
            store.en.eq(took),
            fetches[0].addr.eq(read_in),
            fetches[1].addr.eq(sequencer.set),
            judge.addr.eq(read_in[0]),
            judge.data.eq(reader.verdict),
            judge.en.eq(reader.verdict_strobe),
            verdict.addr.eq(sequencer.set[0]),
            reader.pending.eq(unread != 0),
            reader.grant.eq(~unsent[1]),
            reader.entry.eq(fetches[0].data),
            reader.slice_take.eq(tables.take),
            reader.loaded.eq(tables.loaded),
            reader.bad.eq(tables.bad),
            reader.overflow.eq(tables.overflow),
            reader.idle.eq(tables.idle),
            tables.slice.eq(reader.slice),
            tables.valid.eq(reader.slice_valid),
            tables.header.eq(fetches[0].data.header),
            tables.write_set.eq(read_in[0]),
            tables.start.eq(reader.start),
            tables.beat.eq(sequencer.beat),
            tables.codes.eq(sequencer.codes),
            tables.read_set.eq(sequencer.set[0]),
            tables.read.eq(sequencer.read),
            sequencer.pending.eq(unsent != 0),
            sequencer.header.eq(fetches[1].data.header),
            sequencer.verdict.eq(verdict.data),
            sequencer.byte.eq(reader.byte),
            sequencer.byte_index.eq(reader.byte_index),
            sequencer.bitmap_strobe.eq(reader.bitmap_strobe),
            sequencer.bitmap_set.eq(read_in[0]),
        ]

        late, late_strobe = self._transform(m, self._elements(m, tables, sequencer))
        out = self.o.payload.tag
        m.d.comb += [
            log.code.eq(sequencer.error),
            log.strobe.eq(sequencer.error_strobe),
            log.late.eq(late),
            log.late_strobe.eq(late_strobe),
            log.bad.eq(self.o.valid & self.o.ready & out.last & out.marked),
            log.clear.eq(self.error_clear),
            self.error.eq(log.error),
            self.error_count.eq(log.count),
        ]
        return m

    def _tables(self):
        return ValueTables(self.config)

    def _elements(self, m, tables, sequencer):
        """Stream of beats out of the tables."""
        head = stream.Signature(Coefficients(self.config.lanes)).create()
        m.d.comb += [
            head.payload.data.eq(tables.values),
            head.payload.tag.eq(sequencer.o.payload.tag),
            head.payload.plan.eq(sequencer.o.payload.plan),
            head.valid.eq(sequencer.o.valid),
            sequencer.o.ready.eq(head.ready),
        ]
        return head

    def _transform(self, m, head):
        """From the tables' output to ``o``; returns an error code and its strobe."""
        transforms = self.config.transforms
        overflow = 0
        if KvTransform.WHT in transforms:
            m.submodules.wht = wht = InverseWht(self.config)
            wiring.connect(m, head, wht.i)
            head, overflow = wht.o, wht.overflow
        if KvTransform.RFFT in transforms:
            m.submodules.rfft = rfft = InverseRfft(self.config)
            wiring.connect(m, head, rfft.i)
            head, overflow = rfft.o, overflow | rfft.overflow
        out = self.o.payload
        m.d.comb += [
            out.data.eq(head.payload.data),
            out.tag.eq(head.payload.tag),
            self.o.valid.eq(head.valid),
            head.ready.eq(self.o.ready),
        ]
        return KvError.OVERFLOW, overflow

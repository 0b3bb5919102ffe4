"""The KV dequant engine: packed blocks in, FP16 elements out at line rate."""

from amaranth import Module, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.errors import COUNTER_BITS, ErrorLog
from hw.kv.layouts import ERROR_BITS, Beat, Coefficients, Elements
from hw.kv.metadata import MetadataReader
from hw.kv.parser import PacketParser
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
    i -> PacketParser -+- entries ---+
                       +- words ----[fifo]-> MetadataReader -> ValueTables (two sets)
                       |                          |verdict         ^ |
                       +- rows -----[fifo]-> RowSequencer -- codes-+ +-> o
    ```

    The metadata of a block is unpacked and its tables are written while the block before is read, so that headers cost
    nothing in the steady state. Throughput: a beat of ``lanes`` elements per cycle; 2 cycles and the padding between
    blocks.

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
        m.submodules.reader = reader = MetadataReader(config)
        m.submodules.tables = tables = ValueTables(config)
        m.submodules.sequencer = sequencer = RowSequencer(config)
        m.submodules.log = log = ErrorLog()

        def through(name, source, sink, depth):
            """A FIFO of ``depth`` words of memory and a register's worth more."""
            payload = Value.cast(source.payload)
            queue = fifo.SyncFIFOBuffered(width=len(payload), depth=depth + 1)
            m.submodules[name] = queue
            m.d.comb += [
                queue.w_data.eq(payload),
                queue.w_en.eq(source.valid),
                source.ready.eq(queue.w_rdy),
                sink.payload.eq(queue.r_data),
                sink.valid.eq(queue.r_rdy),
                queue.r_en.eq(sink.ready),
            ]

        wiring.connect(m, wiring.flipped(self.i), parser.i)
        through("entries", parser.blocks, reader.blocks, 2)
        through("verdicts", reader.verdicts, sequencer.verdicts, 2)
        # A block of 32 tokens takes as long to unpack as its rows take to leave: both must fit.
        through("words", parser.words, reader.words, config.max_channels // 2)
        row_bits = (32 if config.lanes == 4 else 64) * config.max_channels
        through("rows", parser.rows, sequencer.rows, row_bits // config.input_bits)
        wiring.connect(m, reader.records, tables.records)

        sets = Signal(2, init=2)  # sets of tables that are free
        m.d.sync += sets.eq(sets - reader.start + sequencer.release)
        write_set = Signal()
        m.d.sync += write_set.eq(write_set ^ (reader.verdicts.valid & reader.verdicts.ready))
        m.d.comb += [
            reader.grant.eq(sets != 0),
            reader.tables_idle.eq(tables.idle),
            reader.overflow.eq(tables.overflow),
            tables.format.eq(reader.format),
            tables.transformed.eq(reader.transformed),
            tables.start.eq(reader.start),
            tables.write_set.eq(write_set),
            tables.beat.eq(sequencer.beat),
            tables.codes.eq(sequencer.codes),
            tables.read_set.eq(sequencer.set),
            tables.read.eq(sequencer.read),
            sequencer.byte.eq(reader.byte),
            sequencer.byte_index.eq(reader.byte_index),
            sequencer.bitmap_strobe.eq(reader.bitmap_strobe),
            sequencer.bitmap_set.eq(write_set),
        ]

        late, late_strobe = self._transform(m, tables, sequencer)
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

    def _transform(self, m, tables, sequencer):
        """From the tables' output to ``o``; returns an error code and its strobe."""
        lanes, transforms = self.config.lanes, self.config.transforms
        head = stream.Signature(Coefficients(lanes)).create()
        m.d.comb += [
            head.payload.data.eq(tables.values),
            head.payload.tag.eq(sequencer.o.payload.tag),
            head.payload.plan.eq(sequencer.o.payload.plan),
            head.valid.eq(sequencer.o.valid),
            sequencer.o.ready.eq(head.ready),
        ]
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

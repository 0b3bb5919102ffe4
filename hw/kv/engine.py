"""The KV dequant engine: packed blocks in, FP16 elements out at line rate."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.errors import COUNTER_BITS, ErrorLog
from hw.kv.layouts import ERROR_BITS, Beat, Coefficients, Elements
from hw.kv.packet.front import BlockFront
from hw.kv.packet.masks import MaskQueue
from hw.kv.sequencer import RowSequencer
from hw.kv.transforms.centre import CentreAdder, CentreStore
from hw.kv.transforms.order import ChannelOrder
from hw.kv.transforms.rfft import InverseRfft
from hw.kv.transforms.wht import InverseWht
from hw.kv.values.tables import ValueTables
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvTransform

__all__ = ["KvDequantizer"]


class KvDequantizer(wiring.Component):
    """Packed KV blocks to FP16 elements (formats and arithmetic: docs/kv-engine.md).

    ```
    i -> BlockFront -+- records -> [store] -> ValueUnit -> tables (two sets) -> [transforms] -> [order] -> [centre] -> o
                     +- rows -> [buffer] -> RowSequencer -- codes ---^                            ^
                     +- masks -> [queue] ---------------------------------------------------------'
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
    add_centre : In
        With ``centre``: add the key centre to the block whose header comes. Looked at in the second cycle after the
        header's last 16 bits were taken.
    error, error_count : Out
        Code of the first error since the last clear, 0 for none; bad packets since then.
    error_clear : In
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        added = {"add_centre": In(1)} if config.centre else {}
        super().__init__(
            added
            | {
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
        m.submodules.front = front = BlockFront(config)
        m.submodules.tables = tables = self._tables()
        m.submodules.sequencer = sequencer = RowSequencer(config)
        m.submodules.log = log = ErrorLog()
        wiring.connect(m, wiring.flipped(self.i), front.i)
        wiring.connect(m, front.rows, sequencer.rows)
        wiring.connect(m, front.block, sequencer.block)
        wiring.connect(m, front.token_list, sequencer.token_list)
        m.d.comb += [
            front.room.eq(tables.room),
            front.idle.eq(tables.idle),
            front.overflow.eq(tables.overflow),
            tables.record.eq(front.record),
            tables.start.eq(front.start),
            tables.header.eq(front.header),
            tables.write_set.eq(front.set),
            tables.beat.eq(sequencer.beat),
            tables.codes.eq(sequencer.codes),
            tables.read_set.eq(sequencer.set),
            tables.read.eq(sequencer.read),
        ]

        late, late_strobe = self._transform(m, self._elements(m, tables, sequencer), front)
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

    def _transform(self, m, head, front):
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
        elements = stream.Signature(Elements(self.config.lanes)).create()
        m.d.comb += [
            elements.payload.data.eq(head.payload.data),
            elements.payload.tag.eq(head.payload.tag),
            elements.valid.eq(head.valid),
            head.ready.eq(elements.ready),
        ]
        if self.config.interleave:
            elements, late = self._order(m, elements, front)
            overflow = overflow | late
        wiring.connect(m, elements, wiring.flipped(self.o))
        return KvError.OVERFLOW, overflow

    def _order(self, m, elements, front):
        """Channel order and the centre; returns the stream of elements, and that one of its beats overflows."""
        m.submodules.queue = queue = MaskQueue(self.config)
        m.submodules.order = order = ChannelOrder(self.config)
        wiring.connect(m, elements, order.i)
        wiring.connect(m, front.masks, queue.i)
        m.d.comb += [
            order.note.eq(queue.entering),
            queue.entered.eq(order.entered),
            queue.next_beat.eq(order.next_beat),
            queue.beat.eq(order.beat),
            queue.left.eq(order.left),
            order.mask.eq(queue.mask),
        ]
        if not self.config.centre:
            return order.o, 0
        m.submodules.centre = centre = CentreStore(self.config)
        m.submodules.adder = adder = CentreAdder(self.config)
        wiring.connect(m, order.o, adder.i)
        wiring.connect(m, front.centre, centre.i)
        with m.If(order.read):
            m.d.sync += adder.add.eq(queue.add)
        m.d.comb += [
            front.add_centre.eq(self.add_centre),
            centre.beat.eq(order.beat),
            centre.read.eq(order.read),
            adder.centre.eq(centre.values),
        ]
        return adder.o, adder.overflow

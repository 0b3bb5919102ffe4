"""Value tables: every value of every channel, written once per block, read by code once per element."""

from amaranth import Array, Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.layouts import Record
from hw.kv.values import ValueUnit
from hw.spec.kv_config import KvEngineConfig

__all__ = ["ValueTables"]

CODES = 4


class ValueTables(wiring.Component):
    """Two sets of tables, one filled while the other is read; lanes have no arithmetic, only a memory each.

    A lane's memory holds the four values of its channels, addressed by set, beat of the token and code: a code becomes
    its value by being part of the address. ``lanes / 8`` value units (one at least) fill it, unit u the channels that
    are u modulo their number, so that a block of 32 tokens with four values per channel is filled in the time the last
    one is read.

    Reads have a latency of 1 cycle and a throughput of ``lanes`` elements per cycle.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    records : stream of Record, In
        A block's channels in storage order.
    format, transformed : In
        Of the block being written: format, and whether segments 0 and 1 are transformed. Stable while not ``idle``.
    write_set : In
        The set to write.
    start : In
        High for a cycle before a block's first record: channels count from 0, ``overflow`` is cleared.
    overflow : Out
        Some value of this block was beyond FP16.
    idle : Out
        Everything accepted is written.
    beat, codes, read_set, read : In
        Address of a read, and its strobe.
    values : Out
        16 bits per lane, a cycle after ``read``; kept until the next.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.units = max(1, config.lanes // 8)
        beats = config.max_channels // config.lanes
        super().__init__(
            {
                "records": In(stream.Signature(Record)),
                "format": In(3),
                "transformed": In(2),
                "write_set": In(1),
                "start": In(1),
                "overflow": Out(1),
                "idle": Out(1),
                "beat": In(ceil_log2(beats)),
                "codes": In(data.ArrayLayout(2, config.lanes)),
                "read_set": In(1),
                "read": In(1),
                "values": Out(data.ArrayLayout(16, config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, count = self.config.lanes, self.units
        lane_bits, unit_bits = ceil_log2(lanes), ceil_log2(count)
        channel = Signal(7)
        units = []
        for u in range(count):
            m.submodules[f"unit{u}"] = unit = ValueUnit()
            units.append(unit)
            mine = (channel[:unit_bits] == u) if count > 1 else 1
            m.d.comb += [
                unit.record.eq(self.records.payload),
                unit.channel.eq(channel),
                unit.valid.eq(self.records.valid & mine),
                unit.format.eq(self.format),
                unit.transformed.eq(self.transformed),
            ]
        ready = Array(unit.ready for unit in units)[channel[:unit_bits]] if count > 1 else units[0].ready
        m.d.comb += [
            self.records.ready.eq(ready),
            self.idle.eq(Cat(unit.idle for unit in units).all()),
        ]
        with m.If(self.start):
            m.d.sync += [channel.eq(0), self.overflow.eq(0)]
        with m.Elif(self.records.valid & ready):
            m.d.sync += channel.eq(channel + 1)
        with m.If(Cat(unit.overflow for unit in units).any()):
            m.d.sync += self.overflow.eq(1)

        rows = 2 * CODES * self.config.max_channels // lanes
        for lane in range(lanes):
            unit = units[lane % count]
            m.submodules[f"lane{lane}"] = table = memory.Memory(shape=16, depth=rows, init=[])
            write, read = table.write_port(), table.read_port()
            beat_bits = len(write.addr) - 3
            own = unit.index[unit_bits:lane_bits] == lane >> unit_bits
            m.d.comb += [
                write.addr.eq(Cat(unit.code, unit.index[lane_bits:][:beat_bits], self.write_set)),
                write.data.eq(unit.value),
                write.en.eq(unit.strobe & own),
                read.addr.eq(Cat(self.codes[lane], self.beat, self.read_set)),
                read.en.eq(self.read),
                self.values[lane].eq(read.data),
            ]
        return m

"""Value tables: every value of every channel, written once per block, read by code once per element."""

from amaranth import Cat, Module
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.layouts import Header, RecordWrite
from hw.kv.values.store import RecordStore
from hw.kv.values.value_unit import ValueUnit
from spec.kv_config import KvEngineConfig

__all__ = ["ValueTables"]

CODES = 4


class ValueTables(wiring.Component):
    """Two sets of tables, one filled while the other is read; lanes have no arithmetic, only a memory each.

    A lane's memory holds the four values of its channels, addressed by set, beat of the token and code: a code becomes
    its value by being part of the address. One value unit fills them, with 32 lanes two, one for even and one for odd
    channels, each behind a store of records.

    Reads have a latency of 1 cycle and a throughput of ``lanes`` elements per cycle.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    record, room : RecordWrite, In, Out
        Metadata to be written; ``room``: it may be.
    header, write_set : Header, In
        Of the block being written.
    start : In
        Drop what is not written yet, and begin a block.
    overflow : Out
        Some value of this block was beyond FP16.
    idle : Out
        The values of all records so far are written with the end of this cycle.
    beat, codes, read_set, read : In
        Address of a read, and its strobe.
    values : Out
        16 bits per lane, a cycle after ``read``; kept until the next.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        beats = config.max_channels // config.lanes
        super().__init__(
            {
                "record": In(RecordWrite),
                "room": Out(1),
                "header": In(Header),
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
        lanes, count = self.config.lanes, self.config.value_units
        lane_bits, unit_bits = ceil_log2(lanes), ceil_log2(count)
        units, stores = [], []
        for u in range(count):
            m.submodules[f"store{u}"] = store = RecordStore(self.config, u)
            m.submodules[f"unit{u}"] = unit = ValueUnit(self.config)
            units.append(unit)
            stores.append(store)
            m.d.comb += store.feeding(unit, self.record, self.start, self.header)
        m.d.comb += [
            self.room.eq(Cat(store.room for store in stores).all()),
            self.idle.eq(Cat(store.idle for store in stores).all() & ~Cat(unit.valid for unit in units).any()),
        ]
        with m.If(self.start):
            m.d.sync += self.overflow.eq(0)
        with m.Elif(Cat(unit.overflow for unit in units).any()):
            m.d.sync += self.overflow.eq(1)

        rows = 2 * CODES * self.config.max_channels // lanes
        for lane in range(lanes):
            unit = units[lane % count]
            channel = unit.entry
            m.submodules[f"lane{lane}"] = table = memory.Memory(shape=16, depth=rows, init=[])
            write, read = table.write_port(), table.read_port()
            beat_bits = len(write.addr) - 3
            own = channel[unit_bits:lane_bits] == lane >> unit_bits
            m.d.comb += [
                write.addr.eq(Cat(unit.code, channel[lane_bits:][:beat_bits], self.write_set)),
                write.data.eq(unit.value),
                write.en.eq(unit.valid & own),
                read.addr.eq(Cat(self.codes[lane], self.beat, self.read_set)),
                read.en.eq(self.read),
                self.values[lane].eq(read.data),
            ]
        return m

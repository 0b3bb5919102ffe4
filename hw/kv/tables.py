"""Value tables: every value of every channel, written once per block, read by code once per element."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.layouts import Header
from hw.kv.records import RecordLoader
from hw.kv.values import ValueUnit
from hw.spec.kv_config import KvEngineConfig

__all__ = ["ValueTables"]

CODES = 4


class ValueTables(wiring.Component):
    """Two sets of tables, one filled while the other is read; lanes have no arithmetic, only a memory each.

    A lane's memory holds the four values of its channels, addressed by set, beat of the token and code: a code becomes
    its value by being part of the address. One value unit fills them, with 32 lanes two, one for even and one for odd
    channels.

    Reads have a latency of 1 cycle and a throughput of ``lanes`` elements per cycle.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    slice, valid, take : In, In, Out
        The metadata, 16 bits after 16 bits.
    header : Header, In
        Of the block being written.
    write_set : In
        The set to write.
    start : In
        High for a cycle before a block's first slice.
    loaded : Out
        All of the block's records are taken in.
    bad : Out
        A scale or minimum in this cycle is not allowed.
    overflow : Out
        Some value of this block was beyond FP16.
    idle : Out
        Everything taken in is written with the end of this cycle.
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
                "slice": In(16),
                "valid": In(1),
                "take": Out(1),
                "header": In(Header),
                "write_set": In(1),
                "start": In(1),
                "loaded": Out(1),
                "bad": Out(1),
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
        m.submodules.loader = loader = RecordLoader(self.config)
        m.d.comb += [
            loader.slice.eq(self.slice),
            loader.valid.eq(self.valid),
            self.take.eq(loader.take),
            loader.header.eq(self.header),
            loader.start.eq(self.start),
            self.loaded.eq(loader.loaded),
            self.bad.eq(loader.bad),
        ]
        transformed = Cat(self.header.transform0 != 0, self.header.transform1 != 0) if self.config.transforms else 0
        units, indices = [], []
        for u in range(count):
            m.submodules[f"unit{u}"] = unit = ValueUnit()
            units.append(unit)
            m.d.comb += [
                unit.load_scale.eq(loader.load_scale[u]),
                unit.load_minimum.eq(loader.load_minimum[u]),
                unit.significand.eq(loader.significand),
                unit.exponent.eq(loader.exponent),
                unit.segment.eq(loader.segment),
                unit.minimum.eq(loader.minimum[u]),
                unit.format.eq(self.header.format),
                unit.transformed.eq(transformed),
                unit.clear.eq(self.start),
                loader.free[u].eq(unit.free),
                loader.waiting[u].eq(unit.waiting),
            ]
            # Values come out channel after channel: counting them gives their place.
            index = Signal(7 - unit_bits, name=f"index{u}", reset_less=True)
            with m.If(self.start):
                m.d.sync += index.eq(0)
            with m.Elif(unit.strobe & unit.last):
                m.d.sync += index.eq(index + 1)
            indices.append(index)
        m.d.comb += self.idle.eq(Cat(unit.idle for unit in units).all())
        beyond = Signal()
        m.d.comb += self.overflow.eq(beyond | Cat(unit.overflow for unit in units).any())
        m.d.sync += beyond.eq(self.overflow & ~self.start)

        rows = 2 * CODES * self.config.max_channels // lanes
        for lane in range(lanes):
            unit, index = units[lane % count], indices[lane % count]
            m.submodules[f"lane{lane}"] = table = memory.Memory(shape=16, depth=rows, init=[])
            write, read = table.write_port(), table.read_port()
            beat_bits = len(write.addr) - 3
            own = index[: lane_bits - unit_bits] == lane >> unit_bits
            m.d.comb += [
                write.addr.eq(Cat(unit.code, index[lane_bits - unit_bits :][:beat_bits], self.write_set)),
                write.data.eq(unit.value),
                write.en.eq(unit.strobe & own),
                read.addr.eq(Cat(self.codes[lane], self.beat, self.read_set)),
                read.en.eq(self.read),
                self.values[lane].eq(read.data),
            ]
        return m

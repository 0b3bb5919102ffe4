"""Records between the metadata as it comes and the value unit."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import increment
from hw.kv.layouts import RecordWrite
from spec.kv_config import KvEngineConfig

__all__ = ["RecordStore"]

HELD = ("there", "channel", "significand", "exponent", "minimum")
"""What a value unit takes from here by name."""


class RecordStore(wiring.Component):
    """A queue of channels' records in memories whose outputs serve as the value unit's registers.

    With two value units each has every second channel.

    Latency 2 cycles from a record's last write.

    Members
    -------
    record, room : RecordWrite, In, Out
        ``room``: the record of ``record.channel`` may be written, or is another unit's.
    start : In
        Drop all records.
    there, channel, significand, exponent, minimum : Out
        A record.
    next : In
        Its last cycle.
    idle : Out
        No record is there or on its way.
    """

    def __init__(self, config: KvEngineConfig, unit: int = 0):
        self.config, self.unit = config, unit
        super().__init__(
            {
                "record": In(RecordWrite),
                "room": Out(1),
                "start": In(1),
                "there": Out(1),
                "channel": Out(7),
                "significand": Out(11),
                "exponent": Out(5),
                "minimum": Out(16),
                "next": In(1),
                "idle": Out(1),
            }
        )

    def feeding(self, unit, record, start, header):
        """The statements by which records go through the store to a :class:`hw.kv.values.value_unit.ValueUnit`."""
        return [
            self.record.eq(record),
            self.start.eq(start),
            self.next.eq(unit.last),
            unit.start.eq(start),
            *(getattr(unit, name).eq(getattr(self, name)) for name in HELD),
            unit.header.eq(header),
        ]

    def elaborate(self, platform):
        m = Module()
        record = self.record
        units = self.config.value_units
        skip = ceil_log2(units)
        # Channels modulo 128: of those that came and those that are done at most `depth` differ.
        depth = self.config.records
        bits = ceil_log2(depth)
        came = Signal(7 - skip)
        done = Signal(7 - skip, reset_less=True)
        following = Signal(7 - skip)
        own = record.channel[0] == self.unit if units > 1 else 1
        arriving = record.channel[skip:]
        m.d.comb += [
            came.eq(increment(m, arriving, record.channel[0]) if units > 1 and self.unit == 0 else arriving),
            following.eq(increment(m, done, self.there & self.next)),
            self.idle.eq(~self.there & (done == came)),
            self.room.eq((arriving[:bits] != done[:bits]) | (arriving[bits] == done[bits])),
            self.channel.eq(Cat(self.unit, done)[1 - skip :]),
        ]
        m.d.sync += [done.eq(Mux(self.start, 0, following)), self.there.eq((following != came) & ~self.start)]
        banks = {
            "scale": (Cat(record.significand, record.exponent), record.write_scale),
            "low": (record.low, record.write_low),
            "high": (record.high, record.write_high),
        }
        words = {}
        for name, (word, strobe) in banks.items():
            m.submodules[name] = bank = memory.Memory(shape=len(word), depth=depth, init=[])
            write, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                write.addr.eq(arriving[:bits]),
                write.data.eq(word),
                write.en.eq(strobe & own),
                read.addr.eq(following[:bits]),
            ]
            words[name] = read.data
        m.d.comb += [
            Cat(self.significand, self.exponent).eq(words["scale"]),
            self.minimum.eq(Cat(words["low"], words["high"])),
        ]
        return m

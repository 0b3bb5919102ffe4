"""Activation packets to chunks as the PEs want them, a beat of one token at a time."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from hw.arith.formats import FP16
from hw.core.parts import parts
from hw.core.plan import PlaceCounter, Plan
from spec.core import CoreConfig

__all__ = ["ActivationBeat", "ActivationLoader", "ChunkWrite", "chunk_units"]

INFINITY = 0x7C00


def chunk_units(config: CoreConfig, length: Value) -> Value:
    """Units of a chunk of ``length`` input channels."""
    unit = config.datapath.group_size
    return (length + (unit - 1)) >> exact_log2(unit)


class ActivationBeat(data.StructLayout):
    """FP16 ``activations`` of one token, lane 0 lowest; ``last`` on the final beat of its chunk."""

    def __init__(self, lanes: int):
        super().__init__({"activations": data.ArrayLayout(FP16, lanes), "last": 1})


class ChunkWrite(data.StructLayout):
    """A beat of prepared activations for the chunk memories: ``column`` and ``set`` make the token; ``beat`` and
    ``group`` are places in the memories; the group's ``exponent`` and ``poison``."""

    def __init__(self, config: CoreConfig):
        datapath = config.datapath
        super().__init__(
            {
                "integers": parts(datapath).activations,
                "exponent": 5,
                "poison": 1,
                "column": range(max(2, config.columns)),
                "set": 1,
                "beat": ceil_log2(config.stored_units * datapath.beats),
                "group": ceil_log2(config.stored_units * datapath.group_size // min(config.group_sizes)),
            }
        )


class ActivationLoader(wiring.Component):
    """Takes a job's activation packets (docs/core.md, section 3), aligns their groups where the datapath wants
    that, and fills the chunk memories.

    A chunk takes the units of ``datapath.group_size`` input channels behind those of the chunk before, modulo
    ``config.stored_units``; it comes in when there are as many free.

    A packet that ends early is filled with zeros, what follows the end of a chunk's row up to the packet's last beat is
    dropped; either poisons a group of the token, as Inf and NaN do.

    Throughput is the aligner's, and between two chunks it empties.

    Members
    -------
    plan : Plan, In
    load : In
        A job begins.
    i : stream of ActivationBeat, In
    o : ChunkWrite, Out
    o_valid : Out
    full : Out
        One cycle: a chunk is complete.
    free : In
        So many units are free again.
    wrong_length, non_finite : Out
        One cycle for each packet with that fault.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__(
            {
                "plan": In(Plan(config)),
                "load": In(1),
                "i": In(stream.Signature(ActivationBeat(config.datapath.lanes))),
                "o": Out(ChunkWrite(config)),
                "o_valid": Out(1),
                "full": Out(1),
                "free": In(range(config.stored_units + 1)),
                "wrong_length": Out(1),
                "non_finite": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.counter = counter = PlaceCounter(config, blocks=False)
        m.submodules.aligner = aligner = parts(config.datapath).aligner()
        m.d.comb += [counter.plan.eq(self.plan), counter.load.eq(self.load)]
        sent = Signal()
        stored = Signal()
        self._send(m, counter, aligner, sent, stored)
        self._store(m, counter, aligner, sent, stored)
        return m

    def _send(self, m, counter, aligner, sent, stored):
        """Packets to groups, one chunk after the other."""
        config, datapath, place = self.config, self.config.datapath, counter.place
        lanes, log_lanes = datapath.lanes, ceil_log2(datapath.lanes)
        beats = Signal(range(self.config.chunk // lanes + 1))  # of a packet
        group_beats = Signal(range(max(2, datapath.beats)))  # of a full group, minus 1
        beat = Signal.like(beats)
        in_group = Signal.like(group_beats)
        token = Signal.like(place.tokens)
        ends_row = Signal()
        ends_group = Signal()
        m.d.comb += [
            beats.eq((place.length + (lanes - 1)) >> log_lanes),
            group_beats.eq((Const(1, 3) << self.plan.group_size << (5 - log_lanes)) - 1),
            ends_row.eq(beat + 1 == beats),
            ends_group.eq(ends_row | (in_group == group_beats)),
        ]
        rest = place.length[:log_lanes]  # lanes in use in the last beat; 0 is all
        used = Signal(lanes)
        m.d.comb += used.eq(Mux(ends_row & rest.any(), ~(Const(-1, lanes) << rest)[:lanes], -1))

        offered = Signal()  # a beat of the stream
        filling = Signal()  # zeros instead of what is missing
        i, o = self.i.p, aligner.i
        non_finite = Signal()
        marked = Signal()
        wrong = Signal()
        not_finite = Cat(lane.exponent.all() for lane in i.activations) & used
        m.d.comb += [
            o.valid.eq((offered & self.i.valid) | filling),
            o.p.last.eq(ends_group),
            wrong.eq(i.last != ends_row),
            non_finite.eq(not_finite.any()),
        ]
        for lane in range(lanes):
            value = Mux(filling | ~used[lane], 0, i.activations[lane].as_value())
            if lane == 0:
                value = Mux(offered & wrong, INFINITY, value)
            m.d.comb += o.p.activations[lane].as_value().eq(value)
        moved = Signal()
        m.d.comb += moved.eq(o.valid & o.ready)
        with m.If(moved):
            m.d.sync += [beat.eq(beat + 1), in_group.eq(in_group + 1)]
            with m.If(ends_group):
                m.d.sync += in_group.eq(0)
            with m.If(ends_row):
                m.d.sync += [beat.eq(0), token.eq(token + 1)]
        ends_chunk = ends_row & (token + 1 == place.tokens)
        held = Signal(range(config.stored_units + 1))
        units = Signal.like(held)
        room = Signal()
        opens = Signal()
        m.d.comb += [
            units.eq(chunk_units(config, place.length)),
            room.eq(held + units <= config.stored_units),
        ]
        m.d.sync += held.eq(held - self.free + Mux(opens, units, 0))
        with m.If(moved & offered):
            m.d.comb += [
                self.wrong_length.eq(wrong),
                self.non_finite.eq(non_finite & ~marked),
            ]
            m.d.sync += marked.eq((marked | non_finite) & ~ends_row & ~i.last)

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.load):
                    m.next = "CHUNK"
            with m.State("CHUNK"):
                m.d.sync += token.eq(0)
                with m.If(counter.settled & room):
                    m.d.comb += opens.eq(1)
                    m.next = "ROW"
            with m.State("ROW"):
                m.d.comb += [offered.eq(1), self.i.ready.eq(o.ready)]
                with m.If(moved):
                    with m.If(ends_row & ~i.last):
                        m.next = "DROP"
                    with m.Elif(i.last & ~ends_row):
                        m.next = "FILL"
                    with m.Elif(ends_chunk):
                        m.next = "SENT"
            with m.State("FILL"):
                m.d.comb += filling.eq(1)
                with m.If(moved & ends_row):
                    m.next = "ROW"
                    with m.If(ends_chunk):
                        m.next = "SENT"
            with m.State("DROP"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & i.last):
                    m.next = "ROW"
                    with m.If(token == place.tokens):
                        m.next = "SENT"
            with m.State("SENT"):
                m.d.comb += sent.eq(1)
                with m.If(stored):
                    m.d.comb += counter.next.eq(1)
                    m.next = "CHUNK"
                    with m.If(place.last):
                        m.next = "IDLE"

    def _store(self, m, counter, aligner, sent, stored):
        """Prepared beats to their places."""
        config, place = self.config, counter.place
        o = Signal(ChunkWrite(config))
        i = aligner.o
        moved = Signal()
        token = Signal.like(place.tokens)
        beat = Signal.like(o.beat)
        group = Signal.like(o.group)
        unit = Signal(range(config.stored_units))
        groups = Signal(len(o.group) + 1)  # of a row
        ends_row = Signal()
        m.d.comb += [
            groups.eq(((place.length - 1)[:13] >> (self.plan.group_size + 5)) + 1),
            ends_row.eq(i.p.last & (group + 1 == groups)),
            i.ready.eq(1),
            moved.eq(i.valid),
        ]
        valid = Signal()
        m.d.sync += [
            valid.eq(moved),
            o.integers.eq(i.p.integers),
            o.exponent.eq(i.p.exponent),
            o.poison.eq(i.p.poison),
            o.column.eq(token[: ceil_log2(config.columns)] if config.columns > 1 else 0),
            o.set.eq(token >> ceil_log2(config.columns)),
            o.beat.eq((unit << exact_log2(config.datapath.beats)) + beat),
            o.group.eq((unit << len(o.group) - len(unit)) + group),
            self.full.eq(stored),
        ]
        m.d.comb += [self.o.eq(o), self.o_valid.eq(valid)]
        with m.If(moved):
            m.d.sync += [beat.eq(beat + 1), group.eq(group + i.p.last)]
            with m.If(ends_row):
                m.d.sync += [beat.eq(0), group.eq(0), token.eq(token + 1)]
        with m.If(sent & (token == place.tokens)):
            m.d.comb += stored.eq(1)
            m.d.sync += [token.eq(0), unit.eq(unit + chunk_units(config, place.length))]

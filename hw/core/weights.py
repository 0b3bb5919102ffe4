"""Weight packets of the core to words for each channel."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core.plan import PlaceCounter, Plan
from spec.core import CHANNEL_HEADER, CoreConfig
from spec.packet import WORD_BITS

__all__ = ["ChannelEntry", "ChannelStart", "Fault", "WeightBeat", "WeightReceiver"]


class Fault(enum.Enum, shape=3):
    """Why a channel's outputs are marked."""

    NONE = 0
    RESERVED_HEADER = 1
    RESERVED_CODE = 2
    PARITY = 3
    LENGTH = 4


class WeightBeat(data.StructLayout):
    """A beat of the weight stream: ``slices`` of 64 bits, one per channel; ``last`` on a pass's final beat."""

    def __init__(self, rows: int):
        super().__init__({"slices": data.ArrayLayout(WORD_BITS, rows), "last": 1})


class ChannelStart(data.Struct):
    """What a channel has to know of a pass: ``scale``, the FP32 channel scale; ``length`` of the row; ``final``: its
    outputs leave after this pass; ``absent``: there is no such channel; ``fault`` of its header."""

    scale: 32
    length: 13
    final: 1
    absent: 1
    fault: Fault


class ChannelEntry(data.Struct):
    """One word for a channel, or with ``start`` a :class:`ChannelStart` before its words. ``last`` of the pass;
    ``cut``: the packet ended before the channel's last word, or went on where it should have ended."""

    word: WORD_BITS
    start: 1
    last: 1
    cut: 1


class WeightReceiver(wiring.Component):
    """Takes a job's weight packets (docs/core.md, section 3) apart: for every pass and channel a start and its words.

    Every packet is taken to its last beat. Throughput is a beat per cycle as long as all channels take their entries.
    Latency 0: entries pass through.

    Members
    -------
    plan : Plan, In
    load : In
        A job begins.
    i : stream of WeightBeat, In
    o : array of streams of ChannelEntry, Out
        One for each row.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__(
            {
                "plan": In(Plan(config)),
                "load": In(1),
                "i": In(stream.Signature(WeightBeat(config.rows))),
                "o": Out(stream.Signature(ChannelEntry)).array(config.rows),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.counter = counter = PlaceCounter(config)
        place = counter.place
        beat, last = self.i.p.slices, self.i.p.last
        m.d.comb += [counter.plan.eq(self.plan), counter.load.eq(self.load)]

        room = Signal()
        transfer = Signal()
        take = Signal()
        m.d.comb += [
            room.eq(Cat(o.ready for o in self.o).all()),
            self.i.ready.eq(take),
            transfer.eq(self.i.valid & take),
        ]
        starts = Signal()
        pushing = Signal()
        more = Signal(config.rows)  # the row has words after this beat's
        final = Signal()  # no row has
        m.d.comb += final.eq(~more.any())
        awaited = Signal(config.rows)
        for row, o in enumerate(self.o):
            left = Signal(range(config.max_words + 1), name=f"left{row}")
            header = {field.name: beat[row][field.offset : field.offset + field.width] for field in CHANNEL_HEADER}
            start = Signal(ChannelStart, name=f"start{row}")
            m.d.comb += [
                start.scale.eq(header["channel_scale"]),
                start.length.eq(place.length),
                start.final.eq(place.last_chunk),
                start.absent.eq(row >= place.rows),
                more[row].eq(left > 1),
                awaited[row].eq(left.any()),
                o.valid.eq(transfer & (starts | (pushing & awaited[row]))),
                o.p.start.eq(starts),
                o.p.last.eq(last | ~more[row]),
                o.p.cut.eq(Mux(last, more[row], final & ~more[row])),
                o.p.word.eq(Mux(starts, start.as_value(), beat[row])),
            ]
            with m.If(beat[row].xor()):
                m.d.comb += start.fault.eq(Fault.PARITY)
            with m.Elif(header["reserved"].any()):
                m.d.comb += start.fault.eq(Fault.RESERVED_HEADER)
            with m.Elif((header["words"] == 0) | (header["words"] > config.max_words) | last):
                m.d.comb += start.fault.eq(Fault.LENGTH)
            with m.If(transfer & starts):
                good = (start.fault == Fault.NONE) & ~start.absent
                m.d.sync += left.eq(Mux(good, header["words"], 0))
            with m.Elif(transfer & pushing & awaited[row]):
                m.d.sync += left.eq(left - 1)

        # Beats after the last awaited word are taken and dropped.
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.load):
                    m.next = "START"
            with m.State("START"):
                m.d.comb += [starts.eq(1), take.eq(room & counter.settled)]
                with m.If(transfer & last & place.last):
                    m.next = "IDLE"
                with m.Elif(transfer & ~last):
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += [pushing.eq(1), take.eq(room)]
                with m.If(transfer & last):
                    m.next = "START"
                    with m.If(place.last):
                        m.next = "IDLE"
        m.d.comb += counter.next.eq(transfer & last)
        return m

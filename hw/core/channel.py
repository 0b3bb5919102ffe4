"""What feeds a row of PEs: an output channel's words to codes, and those to digits."""

from amaranth import C, Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.bitserial.unpacker import RowUnpacker
from hw.core.groups import SCALES, SIDES, CodeGroup, GroupStep
from hw.core.parts import parts
from hw.core.weights import ChannelEntry, ChannelStart, Fault
from hw.special_values import SPECIAL_VALUES, Special
from spec.core import CoreConfig
from spec.datatypes import DATATYPE_BITS, MAX_CODE_BITS, Datatype
from spec.errors import WeightError

__all__ = ["WeightChannel"]


class WeightChannel(wiring.Component):
    """Unpacks one channel's row packets, keeps ``SIDES`` groups of codes, and decodes them plane by plane.

    ```
    i --> queue --> RowUnpacker --> codes of 4 groups --> decoder --> digits, control
    ```

    Groups are filled and released in turn, side 0 first. Every pass gives as many groups as its length needs:
    after a fault the rest of them come without codes and with ``fault``. The queue holds a pass's longest row packet,
    so a channel that needs few bits per weight never holds up one that needs many.

    Throughput a beat of codes per cycle, about 8 cycles more per pass. A step's digits come ``latency``
    cycles after it.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    group_size : In
        Code of the job's.
    datatypes : In, 16
        Those that the job's groups may have.
    specials : array of 8 Special, In
    i : stream of ChannelEntry, In
    full : Out, SIDES
        Which sides hold a group.
    groups : array of SIDES CodeGroup, Out
    release : In, SIDES
        Drop a side's group. Its last step may come in the same cycle.
    step : GroupStep, In
    step_valid : In
    digits, control : Out
        As the datapath's PEs take them.
    scale : stream of 32 bits, Out
        Channel scales of passes with ``final``, in order.
    fault : stream of Fault, Out
        One for each pass with a fault; the channel waits until it is taken.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        self._parts = parts(config.datapath)
        self.latency = 1 + self._parts.decoder_latency
        super().__init__(
            {
                "group_size": In(2),
                "datatypes": In(16),
                "specials": In(data.ArrayLayout(Special, SPECIAL_VALUES)),
                "i": In(stream.Signature(ChannelEntry)),
                "full": Out(SIDES),
                "groups": Out(data.ArrayLayout(CodeGroup, SIDES)),
                "release": In(SIDES),
                "step": In(GroupStep(config)),
                "step_valid": In(1),
                "digits": Out(self._parts.digits),
                "control": Out(self._parts.control),
                "scale": Out(stream.Signature(32)),
                "fault": Out(stream.Signature(Fault)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, lanes = self.config, self.config.datapath.lanes
        width = len(self.i.payload.as_value())
        m.submodules.queue = queue = SyncFIFOBuffered(width=width, depth=config.max_words + 2)
        m.submodules.unpacker = unpacker = RowUnpacker(lanes)
        m.submodules.scales = scales = SyncFIFO(width=32, depth=SCALES)
        m.submodules.codes = codes = memory.Memory(
            shape=data.ArrayLayout(MAX_CODE_BITS, lanes), depth=SIDES << ceil_log2(config.datapath.beats), init=[]
        )
        m.d.comb += [
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            self.scale.payload.eq(scales.r_data),
            self.scale.valid.eq(scales.r_rdy),
            scales.r_en.eq(self.scale.ready),
        ]
        self._fill(m, queue, unpacker, scales, codes)
        self._decode(m, codes)
        return m

    def _fill(self, m, queue, unpacker, scales, codes):
        head = Signal(ChannelEntry)
        m.d.comb += head.eq(queue.r_data)
        start = ChannelStart(head.word[: ChannelStart.as_shape().size])
        length = Signal(13)
        cut = Signal()
        groups_left = Signal(8)
        fault = Signal(Fault)
        groups = Signal(data.ArrayLayout(CodeGroup, SIDES), reset_less=True)
        kinds = Signal(
            data.ArrayLayout(data.StructLayout({"datatype": DATATYPE_BITS, "select": 2}), SIDES), reset_less=True
        )
        self._kinds = kinds
        full = Signal(SIDES)
        taken = Signal(SIDES)
        side = Signal(range(SIDES))
        m.d.comb += [self.groups.eq(groups), self.full.eq(full), self.fault.payload.eq(fault)]
        m.d.sync += full.eq((full | taken) & ~self.release)
        room = ~full.bit_select(side, 1)

        beat, beats = unpacker.o.p, self.config.datapath.beats
        place = Signal(range(max(2, beats)))
        write = codes.write_port()
        m.d.comb += [
            unpacker.i.p.data.eq(head.word),
            unpacker.i.p.last.eq(head.last),
            write.addr.eq(Cat(place[: ceil_log2(beats)], side)),
            write.data.eq(beat.code.codes),
        ]
        allowed = self.datatypes.bit_select(beat.code.datatype, 1)
        ternary_hole = (beat.code.datatype == Datatype.TERNARY) & Cat(
            used & (code[:2] == 0b10) for used, code in zip(beat.code.mask, beat.code.codes, strict=True)
        ).any()
        found = Signal(Fault)
        with m.If(beat.errors & WeightError.RESERVED_HEADER):
            m.d.comb += found.eq(Fault.RESERVED_HEADER)
        with m.Elif(beat.errors & WeightError.WEIGHT_LENGTH):
            m.d.comb += found.eq(Fault.LENGTH)
        with m.Elif(beat.errors & WeightError.PARITY):
            m.d.comb += found.eq(Fault.PARITY)
        with m.Elif(~allowed):
            m.d.comb += found.eq(Fault.RESERVED_HEADER)
        with m.Elif(ternary_hole):
            m.d.comb += found.eq(Fault.RESERVED_CODE)
        with m.Elif(beat.row_last & cut):
            m.d.comb += found.eq(Fault.LENGTH)

        def deliver(group, datatype, select):
            """The open side holds a group."""
            m.d.comb += taken.bit_select(side, 1).eq(1)
            m.d.sync += [side.eq(side + 1), groups_left.eq(groups_left - 1)]
            for k in range(SIDES):
                with m.If(side == k):
                    m.d.sync += [groups[k].eq(group), kinds[k].datatype.eq(datatype), kinds[k].select.eq(select)]

        fed = Signal()  # the row's last word has gone
        feed = Signal()
        with m.If(feed & ~fed):
            m.d.comb += [unpacker.i.valid.eq(queue.r_rdy), queue.r_en.eq(unpacker.i.ready)]
            with m.If(queue.r_rdy & unpacker.i.ready):
                m.d.sync += [fed.eq(head.last), cut.eq(head.cut)]

        with m.FSM():
            with m.State("START"):
                m.d.sync += [length.eq(start.length), fault.eq(start.fault), place.eq(0), fed.eq(0), cut.eq(0)]
                m.d.sync += groups_left.eq(((start.length - 1)[:13] >> (self.group_size + 5)) + 1)
                with m.If(queue.r_rdy & (scales.w_rdy | ~start.final)):
                    m.d.comb += [queue.r_en.eq(1), scales.w_en.eq(start.final)]
                    with m.If(start.absent):
                        m.d.sync += fault.eq(Fault.NONE)
                        m.next = "WITHOUT"
                    with m.Elif(start.fault != Fault.NONE):
                        m.next = "REPORT"
                    with m.Else():
                        m.next = "HEADER"
            with m.State("HEADER"):
                with m.If(head.word[14:16] != self.group_size):
                    m.d.sync += fault.eq(Fault.RESERVED_HEADER)
                    m.next = "SKIP"
                with m.Elif(head.word[:14] != (length - 1)[:14]):
                    m.d.sync += fault.eq(Fault.LENGTH)
                    m.next = "SKIP"
                with m.Else():
                    m.next = "CODES"
                with m.If(~queue.r_rdy):
                    m.next = "HEADER"
            with m.State("CODES"):
                m.d.comb += [feed.eq(1), unpacker.o.ready.eq(room | (found != Fault.NONE))]
                with m.If(unpacker.o.valid & (found != Fault.NONE)):
                    m.d.sync += fault.eq(found)
                    m.next = "DROP"
                    with m.If(beat.row_last):
                        m.next = "REPORT"
                with m.Elif(unpacker.o.valid & room):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += place.eq(place + 1)
                    with m.If(beat.group_last):
                        m.d.sync += place.eq(0)
                        group = Signal(CodeGroup)
                        m.d.comb += [group.scale.eq(beat.scale), group.planes.eq(self._planes(m, beat.code.datatype))]
                        deliver(group, beat.code.datatype, beat.code.select)
                    with m.If(beat.row_last):
                        m.next = "START"
            with m.State("DROP"):
                m.d.comb += [feed.eq(1), unpacker.o.ready.eq(1)]
                with m.If(unpacker.o.valid & beat.row_last):
                    m.next = "REPORT"
            with m.State("SKIP"):
                m.d.comb += queue.r_en.eq(1)
                with m.If(queue.r_rdy & head.last):
                    m.next = "REPORT"
            with m.State("REPORT"):
                m.d.comb += self.fault.valid.eq(1)
                with m.If(self.fault.ready):
                    m.next = "WITHOUT"
            with m.State("WITHOUT"):
                with m.If(room):
                    without = Signal(CodeGroup)
                    m.d.comb += without.fault.eq(fault != Fault.NONE)
                    deliver(without, C(0, DATATYPE_BITS), C(0, 2))
                    with m.If(groups_left == 1):
                        m.next = "START"
        m.d.comb += scales.w_data.eq(start.scale)

    def _planes(self, m, datatype):
        """Planes of the datatype, minus 1."""
        planes = Signal(2)
        with m.Switch(datatype):
            for known in self.config.datapath.datatypes:
                with m.Case(known):
                    m.d.comb += planes.eq(self._parts.planes(known) - 1)
            with m.Default():
                pass
        return planes

    def _decode(self, m, codes):
        config, step = self.config, self.step
        m.submodules.decoder = decoder = self._parts.decoder()
        read = codes.read_port()
        m.d.comb += [read.en.eq(1), read.addr.eq(Cat(step.beat[: ceil_log2(config.datapath.beats)], step.side))]
        group = Signal(CodeGroup)
        kind = Signal.like(self._kinds[0])
        planes = Signal(2)
        m.d.comb += [
            group.eq(self.groups[step.side]),
            kind.eq(self._kinds[step.side]),
            planes.eq(group.planes),
        ]
        valid = Signal()
        plane = Signal.like(step.plane)
        first = Signal()
        last = Signal()
        held = Signal.like(self._kinds[0], reset_less=True)
        m.d.sync += [
            held.eq(kind),
            valid.eq(self.step_valid & (step.plane <= planes)),
            plane.eq(step.plane),
            first.eq(step.first),
            last.eq(step.last),
        ]
        m.d.comb += [
            decoder.i_valid.eq(valid),
            decoder.i.datatype.eq(held.datatype),
            decoder.i.select.eq(held.select),
            decoder.i.plane.eq(plane),
            decoder.i.codes.eq(read.data),
            decoder.i.mask.eq(held.datatype.any().replicate(config.datapath.lanes)),
            decoder.i.first.eq(first),
            decoder.i.last.eq(last),
            decoder.specials.eq(self.specials),
            self.digits.eq(decoder.digits),
            self.control.eq(decoder.control),
        ]

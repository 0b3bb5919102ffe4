"""Metadata records, 16 bits at a time, for the value units."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Header
from hw.kv.scales import ScaleDecoder
from hw.spec.kv_config import KvEngineConfig
from hw.spec.kv_formats import KvFormat, KvMetadata

__all__ = ["RecordLoader"]


class RecordLoader(wiring.Component):
    """Cuts records out of 16-bit slices and hands each to its value unit: the scale, then the minimum.

    A slice stays until the last scale or minimum that begins in it is used. Where they lie follows from the channel's
    number modulo 8, because segments are multiples of 8 channels: FP16 numbers are slices, Q8 scales halves of one (an
    FP16 minimum after it straddles two), and eight F6 scales three slices. So a unit gets its minimum in the same cycle
    as it forms its first value, and no record is buffered but for 4 bits of a straddling F6 scale.

    Members
    -------
    slice, valid, take : In, In, Out
    header : Header, In
    start : In
        A block begins.
    loaded : Out
        All its records are taken.
    bad : Out
        The record in this cycle is not allowed.
    free, waiting : In
        Per unit: it takes a scale, a minimum.
    load_scale, load_minimum : Out
        Per unit.
    significand, exponent, segment : Out
        With ``load_scale``.
    minimum : Out
        Per unit; right from ``load_minimum`` on until the unit is ``free`` again.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        count = config.value_units
        super().__init__(
            {
                "slice": In(16),
                "valid": In(1),
                "take": Out(1),
                "header": In(Header),
                "start": In(1),
                "loaded": Out(1),
                "bad": Out(1),
                "free": In(count),
                "waiting": In(count),
                "load_scale": Out(count),
                "load_minimum": Out(count),
                "significand": Out(11),
                "exponent": Out(5),
                "segment": Out(1),
                "minimum": Out(data.ArrayLayout(16, count)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header, piece = self.header, self.slice
        channel = Signal(7, reset_less=True)
        second = Signal()  # the record's minimum comes next
        affine, bytes_, fields = Signal(), Signal(), Signal()
        m.d.comb += [
            self.segment.eq(channel[3:] > header.segment0),
            affine.eq(((header.format == KvFormat.K2) | (header.format == KvFormat.V2)) & ~self.segment),
            bytes_.eq(header.metadata == KvMetadata.Q8),
            fields.eq(header.metadata == KvMetadata.F6),
        ]

        mine = [channel[0] == u if len(self.free) > 1 else 1 for u in range(len(self.free))]
        scale, minimum, done = Signal(), Signal(), Signal()
        for u, own in enumerate(mine):
            m.d.comb += [
                self.load_scale[u].eq(self.valid & ~second & self.free[u] & own),
                self.load_minimum[u].eq(self.valid & second & self.waiting[u] & own),
            ]
        m.d.comb += [
            scale.eq(self.load_scale.any()),
            minimum.eq(self.load_minimum.any()),
            done.eq((scale & ~affine) | minimum),
        ]
        phase = channel[:3]
        used = Signal()  # the slice, by a scale
        with m.If(fields):
            m.d.comb += used.eq((phase == 1) | (phase == 4) | (phase == 7))
        with m.Else():
            m.d.comb += used.eq(~bytes_ | affine | phase[0])
        m.d.comb += self.take.eq((scale & used) | (minimum & (~bytes_ | phase[0])))
        with m.If(self.start):
            m.d.sync += [channel.eq(0), second.eq(0), self.loaded.eq(0)]
        with m.Elif(done):
            m.d.sync += [
                channel.eq(channel + 1),
                second.eq(0),
                self.loaded.eq((channel[3:] == header.channels) & (phase == 7)),
            ]
        with m.Elif(scale):
            m.d.sync += second.eq(1)

        # An even channel's minimum after a Q8 scale: its low byte is in the slice of the scale.
        straddling = Signal()
        m.d.comb += straddling.eq(bytes_ & ~phase[0])
        infinite = []
        for u in range(len(self.free)):
            kept = Signal(16, name=f"kept{u}", reset_less=True)
            now = Signal(16, name=f"now{u}")
            m.d.comb += [now.eq(kept), self.minimum[u].eq(now)]
            with m.If(self.load_minimum[u]):
                m.d.comb += now.eq(Mux(straddling, Cat(kept[:8], piece[:8]), piece))
            with m.If(self.load_scale[u] & straddling):
                m.d.sync += kept.eq(Cat(piece[8:], kept[8:]))
            with m.Else():
                m.d.sync += kept.eq(now)
            infinite.append(self.load_minimum[u] & (now[10:15] == 31))

        early = Signal(4, reset_less=True)
        with m.If(self.take):
            m.d.sync += early.eq(piece[12:])
        m.submodules.scale = decoder = ScaleDecoder(self.config)
        sixes = [piece[0:6], piece[6:12], Cat(early, piece[:2]), piece[2:8], piece[8:14], Cat(early[2:], piece[:4])]
        sixes += [piece[4:10], piece[10:16]]
        m.d.comb += [
            decoder.whole.eq(piece),
            decoder.byte.eq(Mux(phase[0], piece[8:], piece[:8])),
            decoder.field.eq(Array(sixes)[phase]),
            decoder.kind.eq(header.metadata),
            decoder.exponent_code.eq(Mux(self.segment, header.exponent1, header.exponent0)),
            self.significand.eq(decoder.significand),
            self.exponent.eq(decoder.exponent),
            self.bad.eq((scale & decoder.bad) | Cat(infinite).any()),
        ]
        if self.config.transforms:
            m.d.comb += decoder.transformed.eq(Mux(self.segment, header.transform1, header.transform0) != 0)
        return m

"""Metadata records out of 16-bit slices."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.ripple import above
from hw.kv.layouts import Header, RecordWrite
from hw.kv.packet.header import has_minima
from hw.kv.packet.scales import ScaleDecoder
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat, KvMetadata

__all__ = ["RecordLoader"]


class RecordLoader(wiring.Component):
    """Cuts records out of slices, a scale or a minimum per cycle, and writes them where they are wanted.

    A slice stays until the last scale or minimum that begins in it is used. Where they lie follows from the channel's
    number modulo 8, because segments are multiples of 8 channels: FP16 numbers are slices, Q8 scales halves of one (an
    FP16 minimum after it straddles two, whose bytes are written one by one), and eight F6 scales three slices. So no
    record is kept but for 4 bits of a straddling F6 scale.

    Members
    -------
    slice, valid, take : In, In, Out
        ``valid`` only with room for a record.
    header, channel : Header, In
        Of the block; number of the channel.
    start : In
        A block begins.
    record : RecordWrite, Out
    done, last : Out
        The channel's record is complete with this cycle; it is the block's last channel.
    bad : Out
        The number in this cycle is not allowed.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "slice": In(16),
                "valid": In(1),
                "take": Out(1),
                "header": In(Header),
                "channel": In(7),
                "start": In(1),
                "record": Out(RecordWrite),
                "done": Out(1),
                "last": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header, piece, record = self.header, self.slice, self.record
        segment = Signal()
        affine = Signal()
        bytes_ = Signal()
        fields = Signal()
        second = Signal()  # the record's minimum comes next
        phase = self.channel[:3]
        m.d.comb += [
            segment.eq(above(m, self.channel[3:], header.segment0)),
            affine.eq(has_minima(self.config, header) & ~segment),
            bytes_.eq(header.metadata == KvMetadata.Q8),
            fields.eq(header.metadata == KvMetadata.F6),
            self.last.eq((self.channel[3:] == header.channels) & phase.all()),
        ]
        scale = Signal()
        minimum = Signal()
        used = Signal()
        straddling = bytes_ & ~phase[0]  # an even channel's minimum begins in the slice of its Q8 scale
        with m.If(fields):
            m.d.comb += used.eq((phase == 1) | (phase == 4) | (phase == 7))
        with m.Else():
            m.d.comb += used.eq(~straddling | affine)
        m.d.comb += [
            scale.eq(self.valid & ~second),
            minimum.eq(self.valid & second),
            self.done.eq(minimum | (scale & ~affine)),
            self.take.eq(Mux(second, self.valid & ~straddling, scale & used)),
        ]
        with m.If(self.start):
            m.d.sync += second.eq(0)
        with m.Elif(self.valid):
            m.d.sync += second.eq(~second & affine)

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
            decoder.exponent_code.eq(Mux(segment, header.exponent1, header.exponent0)),
            record.channel.eq(self.channel),
            record.significand.eq(decoder.significand),
            record.exponent.eq(decoder.exponent),
            record.low.eq(Mux(second, piece[:8], piece[8:])),
            record.high.eq(Mux(straddling, piece[:8], piece[8:])),
            record.write_scale.eq(scale),
            record.write_low.eq(Mux(straddling, scale, minimum)),
            record.write_high.eq(minimum),
        ]
        bad = decoder.bad
        if self.config.centre:
            # A number of either sign.
            bad = Mux(header.format == KvFormat.CENTRE, piece[10:15].all(), bad)
        m.d.comb += self.bad.eq((scale & bad) | (minimum & record.high[2:7].all()))
        if self.config.transforms:
            m.d.comb += decoder.transformed.eq(Mux(segment, header.transform1, header.transform0) != 0)
        return m

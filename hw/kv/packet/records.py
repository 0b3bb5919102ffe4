"""Metadata records out of 16-bit slices."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Header, RecordWrite
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

    Where the next slice is at hand too, a scale and its minimum take one cycle (``whole``).

    Parameters
    ----------
    config : KvEngineConfig
    whole : bool

    Members
    -------
    slice, valid, take : In, In, Out
        ``valid`` only with room for a record.
    following, take_both : In, Out
        With ``whole``: the next slice, which a channel with a minimum needs; it is used up too.
    header, channel : Header, In
        Of the block; number of the channel.
    start : In
        A block begins.
    record : RecordWrite, Out
    done, segment, affine, last : Out
        The channel's record is complete with this cycle; its segment; it has a minimum; it is the block's last channel.
    bad : Out
        The number in this cycle is not allowed.
    """

    def __init__(self, config: KvEngineConfig, *, whole: bool = False):
        self.config = config
        self.whole = whole
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
                "segment": Out(1),
                "affine": Out(1),
                "last": Out(1),
                "bad": Out(1),
            }
            | ({"following": In(16), "take_both": Out(1)} if whole else {})
        )

    def elaborate(self, platform):
        m = Module()
        header, piece, record = self.header, self.slice, self.record
        m.submodules.scale = decoder = ScaleDecoder(self.config)
        affine = decoder.affine
        bytes_ = Signal()
        fields = Signal()
        phase = self.channel[:3]
        m.d.comb += [
            bytes_.eq(header.metadata == KvMetadata.Q8),
            fields.eq(header.metadata == KvMetadata.F6),
            decoder.header.eq(header),
            decoder.channel.eq(self.channel),
            self.segment.eq(decoder.segment),
            self.affine.eq(affine),
            self.last.eq(decoder.last),
        ]
        scale = Signal()
        minimum = Signal()
        used = Signal()
        straddling = bytes_ & ~phase[0]  # an even channel's minimum begins in the slice of its Q8 scale
        with m.If(fields):
            m.d.comb += used.eq((phase == 1) | (phase == 4) | (phase == 7))
        with m.Else():
            m.d.comb += used.eq(~straddling | affine)
        if self.whole:
            m.d.comb += [
                scale.eq(self.valid),
                minimum.eq(self.valid & affine),
                self.done.eq(self.valid),
                self.take.eq(self.valid & used),
                self.take_both.eq(minimum & ~straddling),
                record.low.eq(Mux(straddling, piece[8:], self.following[:8])),
                record.high.eq(Mux(straddling, self.following[:8], self.following[8:])),
                record.write_low.eq(minimum),
            ]
        else:
            second = Signal()  # the record's minimum comes next
            with m.If(self.start):
                m.d.sync += second.eq(0)
            with m.Elif(self.valid):
                m.d.sync += second.eq(~second & affine)
            m.d.comb += [
                scale.eq(self.valid & ~second),
                minimum.eq(self.valid & second),
                self.done.eq(minimum | (scale & ~affine)),
                self.take.eq(Mux(second, self.valid & ~straddling, scale & used)),
                record.low.eq(Mux(second, piece[:8], piece[8:])),
                record.high.eq(Mux(straddling, piece[:8], piece[8:])),
                record.write_low.eq(Mux(straddling, scale, minimum)),
            ]

        early = Signal(4, reset_less=True)
        with m.If(self.take):
            m.d.sync += early.eq(piece[12:])
        sixes = [piece[0:6], piece[6:12], Cat(early, piece[:2]), piece[2:8], piece[8:14], Cat(early[2:], piece[:4])]
        sixes += [piece[4:10], piece[10:16]]
        m.d.comb += [
            decoder.whole.eq(piece),
            decoder.byte.eq(Mux(phase[0], piece[8:], piece[:8])),
            decoder.field.eq(Array(sixes)[phase]),
            record.channel.eq(self.channel),
            record.significand.eq(decoder.significand),
            record.exponent.eq(decoder.exponent),
            record.write_scale.eq(scale),
            record.write_high.eq(minimum),
        ]
        bad = decoder.bad
        if self.config.centre:
            # A number of either sign.
            bad = Mux(header.format == KvFormat.CENTRE, piece[10:15].all(), bad)
        m.d.comb += self.bad.eq((scale & bad) | (minimum & record.high[2:7].all()))
        return m

"""Metadata unpacked: a stream of words into channel records, the channel mask and the token bitmap on the way."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import BlockEntry, PrefixWord, Record
from hw.kv.packet.scales import ScaleDecoder
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat, KvMetadata

__all__ = ["MetadataReader"]

SLICE = 32


class MetadataReader(wiring.Component):
    """Walks through a block's words: mask and bitmap byte by byte, then a record per channel; ends with a verdict.

    Words are sliced to 32 bits, a slice per cycle. Records of 6 to 32 bits are cut from a short shift register, one per
    cycle. They follow each other across segments without a gap, so none needs more alignment than the sum of its
    slices.

    A block starts when its entry is there and ``grant`` is high; its verdict (the entry, with any error found on the
    way) comes when all its records are taken.

    Members
    -------
    blocks : stream of BlockEntry, In
    words : stream of PrefixWord, In
    records : stream of Record, Out
    verdicts : stream of BlockEntry, Out
    grant : In
        The next block's records are wanted.
    start : Out
        High for a cycle before a block's first record.
    byte, byte_index, mask_strobe : Out
        Bytes of the mask as they pass.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "blocks": In(stream.Signature(BlockEntry)),
                "words": In(stream.Signature(PrefixWord)),
                "records": Out(stream.Signature(Record)),
                "verdicts": Out(stream.Signature(BlockEntry)),
                "grant": In(1),
                "start": Out(1),
                "byte": Out(8),
                "byte_index": Out(6),
                "mask_strobe": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry, word = self.blocks.payload, self.words.payload
        header = entry.header
        two = Signal()
        m.d.comb += two.eq(header.segment0 != header.channels)
        error = Signal(4)
        bare = Signal()
        verdict = self.verdicts.payload
        m.d.comb += [
            verdict.eq(entry),
            verdict.error.eq(error),
            verdict.bare.eq(bare),
        ]

        def fail(code):
            with m.If(error == 0):
                m.d.sync += error.eq(code)

        # Mask and bitmap: bytes, their ones counted.
        index = Signal(6)
        ones = Signal(10)
        byte = word.data.word_select(index[:3], 8)
        counted = ones + sum(byte[k] for k in range(8))
        m.d.comb += [self.byte.eq(byte), self.byte_index.eq(index)]
        cut = Signal()
        m.d.comb += cut.eq(self.words.valid & word.cut)
        whole = self.words.valid & ~word.cut

        m.submodules.records = cutter = _RecordCutter()
        upper = Signal()  # the word's lower slice has been taken
        finished = Signal()
        m.d.comb += [
            cutter.data.eq(word.data.word_select(upper, SLICE)),
            cutter.valid.eq(0),
            finished.eq(self.records.valid & self.records.ready & self.records.payload.last),
        ]
        self._records(m, cutter)

        def walk_bytes(name, strobe, last_word, expected, code, following):
            with m.State(name):
                with m.If(cut):
                    m.next = "CUT"
                with m.Elif(whole):
                    if strobe is not None:
                        m.d.comb += strobe.eq(1)
                    m.d.sync += [index.eq(index + 1), ones.eq(counted)]
                    with m.If(index[:3] == 7):
                        m.d.comb += self.words.ready.eq(1)
                        with m.If(index[3:] == last_word):
                            m.d.sync += [index.eq(0), ones.eq(0)]
                            with m.If(counted != expected):
                                fail(code)
                            following()

        def records():
            m.next = "RECORDS"

        def bitmap_or_records():
            m.next = "RECORDS"
            with m.If(header.span != 0):
                m.next = "BITMAP"

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [error.eq(entry.error), bare.eq(entry.bare), index.eq(0), ones.eq(0), upper.eq(0)]
                with m.If(self.blocks.valid & self.grant):
                    m.d.comb += self.start.eq(1)
                    with m.If(entry.error != 0):
                        m.next = "VERDICT"
                    with m.Elif(two):
                        m.next = "MASK"
                    with m.Else():
                        bitmap_or_records()
            expected = (header.segment0 + 1) << 3
            walk_bytes("MASK", self.mask_strobe, header.channels[3], expected, KvError.CHANNELS, bitmap_or_records)
            walk_bytes("BITMAP", None, header.span - 1, header.rows + 1, KvError.TOKEN, records)
            with m.State("RECORDS"):
                # Once all words of this block are taken, what is there is the next block's.
                with m.If(cut & cutter.wanting):
                    m.next = "CUT"
                with m.Else():
                    m.d.comb += cutter.valid.eq(self.words.valid)
                    with m.If(cutter.taken):
                        m.d.sync += upper.eq(~upper)
                        with m.If(upper):
                            m.d.comb += self.words.ready.eq(1)
                    with m.If(finished):
                        m.next = "VERDICT"
                        # The rest of the last word is padding.
                        with m.If(cutter.taken | upper):
                            m.d.comb += self.words.ready.eq(1)
                    with m.If(self.records.valid & self.records.ready & cutter.bad):
                        fail(KvError.SCALE)
            with m.State("CUT"):
                m.d.comb += self.words.ready.eq(1)
                m.d.sync += bare.eq(1)
                fail(KvError.SHORT)
                m.next = "VERDICT"
            with m.State("VERDICT"):
                m.d.comb += self.verdicts.valid.eq(1)
                with m.If(self.verdicts.ready):
                    m.d.comb += self.blocks.ready.eq(1)
                    m.next = "IDLE"
        m.d.comb += cutter.clear.eq(self.start)
        return m

    def _records(self, m, cutter):
        """Channel numbers and scales around the cutter's raw records."""
        header = self.blocks.payload.header
        channel = Signal(7)
        segment = Signal()
        m.submodules.scale = scale = ScaleDecoder(self.config)
        transformed = Mux(segment, header.transform1, header.transform0) != 0
        minimum = Signal(16)
        affine = (header.format == KvFormat.K2) | (header.format == KvFormat.V2)
        m.d.comb += [
            segment.eq(channel[3:] > header.segment0),
            minimum.eq(Mux(header.metadata == KvMetadata.FP16, cutter.raw[16:32], cutter.raw[8:24])),
            scale.whole.eq(cutter.raw[:16]),
            scale.byte.eq(cutter.raw[:8]),
            scale.field.eq(cutter.raw[:6]),
            scale.kind.eq(header.metadata),
            scale.transformed.eq(transformed),
            scale.exponent_code.eq(Mux(segment, header.exponent1, header.exponent0)),
            cutter.bad.eq(scale.bad | (affine & ~segment & (minimum[10:15] == 31))),
            self.records.valid.eq(cutter.there),
            cutter.take.eq(self.records.ready),
            self.records.payload.significand.eq(scale.significand),
            self.records.payload.exponent.eq(scale.exponent),
            self.records.payload.minimum.eq(minimum),
            self.records.payload.segment.eq(segment),
            self.records.payload.last.eq((channel[3:] == header.channels) & (channel[:3] == 7)),
        ]
        with m.Switch(header.metadata):
            with m.Case(KvMetadata.FP16):
                m.d.comb += cutter.pairs.eq(Mux(affine & ~segment, 16, 8))
            with m.Case(KvMetadata.Q8):
                m.d.comb += cutter.pairs.eq(Mux(affine & ~segment, 12, 4))
            with m.Default():
                m.d.comb += cutter.pairs.eq(3)
        with m.If(self.start):
            m.d.sync += channel.eq(0)
        with m.Elif(self.records.valid & self.records.ready):
            m.d.sync += channel.eq(channel + 1)


class _RecordCutter(wiring.Component):
    """Cuts records of ``2 * pairs`` bits (3, 4, 8, 12 or 16 pairs) from slices; a record may straddle two."""

    def __init__(self):
        super().__init__(
            {
                "data": In(SLICE),
                "valid": In(1),
                "wanting": Out(1),
                "taken": Out(1),
                "pairs": In(5),
                "raw": Out(32),
                "there": Out(1),
                "take": In(1),
                "clear": In(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        kept = Signal(SLICE - 2, reset_less=True)
        level = Signal(5)  # in pairs of bits
        wanting = self.wanting
        m.d.comb += wanting.eq(level < self.pairs)
        joined = Signal(len(kept) + SLICE)
        m.d.comb += joined.eq(kept)
        with m.If(wanting):
            with m.Switch(level):
                for offset in (0, 1, 2, 4, 8):
                    with m.Case(offset):
                        m.d.comb += joined.eq(Cat(kept[: 2 * offset], self.data))
                with m.Default():
                    pass
        total = Signal(6)
        m.d.comb += total.eq(Mux(wanting, level + SLICE // 2, level))
        complete = total >= self.pairs
        loaded = ~wanting | self.valid
        m.d.comb += [
            self.raw.eq(joined),
            self.there.eq(complete & loaded & (self.valid | ~wanting)),
            self.taken.eq(wanting & self.valid & (~complete | self.take)),
        ]
        with m.If(self.clear):
            m.d.sync += level.eq(0)
        with m.Elif(self.there & self.take):
            m.d.sync += level.eq(total - self.pairs)
            with m.Switch(self.pairs):
                for pairs in (3, 4, 8, 12, 16):
                    with m.Case(pairs):
                        m.d.sync += kept.eq(joined[2 * pairs :])
                with m.Default():
                    pass
        with m.Elif(self.taken):
            m.d.sync += [level.eq(total), kept.eq(joined)]
        return m

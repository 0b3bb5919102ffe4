"""Metadata unpacked: a stream of words into channel records, the channel mask and the token bitmap on the way."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import BlockEntry, PrefixWord, Record
from hw.kv.packet.records import RecordLoader
from spec.kv_config import KvEngineConfig, KvError

__all__ = ["MetadataReader"]

SLICE = 16
SLICES = 4


class MetadataReader(wiring.Component):
    """Walks through a block's words: mask and bitmap byte by byte, then a record per channel; ends with a verdict.

    A record per cycle, from a slice of 16 bits and the next, of which the first may be the last one of the word before.

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

        # A slice and the next: of the word, and the last one of the word before.
        held = Signal(SLICE, reset_less=True)
        position = Signal(range(SLICES))
        after = Signal(range(SLICES + 2))
        channel = Signal(7)
        wanting = Signal()  # the word, not only what is held
        m.submodules.loader = loader = RecordLoader(self.config, whole=True)
        record = self.records.payload
        m.d.comb += [
            Cat(loader.slice, loader.following).eq(Cat(held, word.data).bit_select(position << 4, 2 * SLICE)),
            loader.header.eq(header),
            loader.channel.eq(channel),
            loader.start.eq(self.start),
            wanting.eq((position != 0) | loader.affine),
            after.eq(position + Mux(loader.take_both, 2, loader.take)),
            record.significand.eq(loader.record.significand),
            record.exponent.eq(loader.record.exponent),
            record.minimum.eq(Cat(loader.record.low, loader.record.high)),
            record.segment.eq(loader.segment),
        ]
        masking = Signal()  # the bytes are the mask's
        last_word = Mux(masking, header.channels[3], header.span - 1)
        expected = Mux(masking, (header.segment0 + 1) << 3, header.rows + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [error.eq(entry.error), bare.eq(entry.bare), index.eq(0), ones.eq(0)]
                m.d.sync += [masking.eq(two), channel.eq(0), position.eq(1)]
                with m.If(self.blocks.valid & self.grant):
                    m.d.comb += self.start.eq(1)
                    with m.If(entry.error != 0):
                        m.next = "VERDICT"
                    with m.Elif(two | (header.span != 0)):
                        m.next = "BYTES"
                    with m.Else():
                        m.next = "RECORDS"
            with m.State("BYTES"):
                with m.If(cut):
                    m.next = "CUT"
                with m.Elif(self.words.valid):
                    m.d.comb += self.mask_strobe.eq(masking)
                    m.d.sync += [index.eq(index + 1), ones.eq(counted)]
                    with m.If(index[:3] == 7):
                        m.d.comb += self.words.ready.eq(1)
                        with m.If(index[3:] == last_word):
                            m.d.sync += [index.eq(0), ones.eq(0), masking.eq(0)]
                            with m.If(counted != expected):
                                fail(Mux(masking, KvError.CHANNELS, KvError.TOKEN))
                            with m.If(~masking | (header.span == 0)):
                                m.next = "RECORDS"
            with m.State("RECORDS"):
                # Once all words of this block are taken, what is there is the next block's.
                with m.If(wanting & cut):
                    m.next = "CUT"
                with m.Elif(~wanting | self.words.valid):
                    m.d.comb += [self.records.valid.eq(1), loader.valid.eq(self.records.ready)]
                    with m.If(self.records.ready):
                        # The rest of the last word is padding.
                        m.d.comb += self.words.ready.eq(Mux(loader.last, wanting, after >= SLICES))
                        m.d.sync += [channel.eq(channel + 1), position.eq(after)]
                        with m.If(after >= SLICES):
                            m.d.sync += held.eq(word.data[-SLICE:])
                        with m.If(loader.bad):
                            fail(KvError.SCALE)
                        with m.If(loader.last):
                            m.next = "VERDICT"
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
        return m

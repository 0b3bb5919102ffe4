"""Words before the rows: mask and bitmap checked, metadata cut into slices for the value tables."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import ERROR_BITS, BlockEntry, PrefixWord, Verdict
from hw.spec.kv_config import KvError

__all__ = ["WordReader"]


class WordReader(wiring.Component):
    """Walks through a block's words: counts the ones of mask and bitmap byte by byte, gives the metadata to the value
    tables in slices of 16 bits, as fast as these form values, and ends with a verdict when the tables are written.

    Members
    -------
    pending : In
        A block's entry is there.
    grant : In
        A set of tables is free.
    entry : BlockEntry, In
        That of the block in work, one cycle after ``pending`` or a verdict.
    words : stream of PrefixWord, In
    start : Out
        The tables give up what they do, and start with a new block.
    slice, slice_valid, slice_take : Out, Out, In
    loaded, bad, overflow, idle : In
        From :class:`hw.kv.tables.ValueTables`.
    byte, byte_index, bitmap_strobe : Out
        Bytes of the bitmap as they pass.
    mask_strobe : Out
        The same for the mask.
    verdict, verdict_strobe : Out
        The block is done.
    """

    def __init__(self):
        super().__init__(
            {
                "pending": In(1),
                "grant": In(1),
                "entry": In(BlockEntry),
                "words": In(stream.Signature(PrefixWord)),
                "start": Out(1),
                "slice": Out(16),
                "slice_valid": Out(1),
                "slice_take": In(1),
                "loaded": In(1),
                "bad": In(1),
                "overflow": In(1),
                "idle": In(1),
                "byte": Out(8),
                "byte_index": Out(6),
                "bitmap_strobe": Out(1),
                "mask_strobe": Out(1),
                "verdict": Out(Verdict),
                "verdict_strobe": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry, word = self.entry, self.words.payload
        header = entry.header
        at = Signal(2)  # slice of the word
        step = Signal()
        cut = Signal()  # the packet ended before its rows
        piece = word.data.word_select(at, 16)
        m.d.comb += [self.slice.eq(piece), self.words.ready.eq(step & at.all())]
        with m.If(step):
            m.d.sync += at.eq(at + 1)
        error = Signal(ERROR_BITS, reset_less=True)

        def fail(code):
            with m.If(error == 0):
                m.d.sync += error.eq(code)

        index = Signal(6, reset_less=True)
        ones, counted = Signal(10, reset_less=True), Signal(10)
        m.d.comb += [
            self.byte.eq(piece.word_select(index[0], 8)),
            self.byte_index.eq(index),
            counted.eq(ones + sum(self.byte[k] for k in range(8))),
        ]

        def walk_bytes(name, strobe, last_word, expected, code, following):
            with m.State(name):
                with m.If(cut):
                    m.next = "SETTLE"
                with m.Elif(self.words.valid):
                    m.d.comb += [strobe.eq(1), step.eq(index[0])]
                    m.d.sync += [index.eq(index + 1), ones.eq(counted)]
                    with m.If(index[:3].all() & (index[3:] == last_word)):
                        m.d.sync += [index.eq(0), ones.eq(-1)]
                        following()
                        with m.If(counted != expected):
                            fail(code)

        def bitmap_or_records():
            m.next = "RECORDS"
            with m.If(header.span != 0):
                m.next = "BITMAP"

        def records():
            m.next = "RECORDS"

        m.d.comb += [
            self.verdict.error.eq(Mux((error == 0) & self.overflow, KvError.OVERFLOW, error)),
            self.verdict.bare.eq(entry.bare | cut),
            self.verdict.odd.eq(entry.odd),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.pending):
                    m.next = "OPEN"
            with m.State("OPEN"):
                m.d.sync += [error.eq(entry.error), cut.eq(0), index.eq(0), ones.eq(-1)]
                with m.If(self.grant):
                    m.d.comb += self.start.eq(1)
                    bitmap_or_records()
                    with m.If(header.segment0 != header.channels):
                        m.next = "MASK"
                    with m.If(entry.error != 0):
                        m.next = "SETTLE"
            # Counts start at -1, as rows and channels are stored.
            expected = Cat(Const(7, 3), header.segment0)
            walk_bytes("MASK", self.mask_strobe, header.channels[3], expected, KvError.CHANNELS, bitmap_or_records)
            last_word = (header.span - 1)[:3]
            walk_bytes("BITMAP", self.bitmap_strobe, last_word, header.rows, KvError.TOKEN, records)
            with m.State("RECORDS"):
                m.d.comb += [self.slice_valid.eq(self.words.valid & ~self.loaded & ~cut), step.eq(self.slice_take)]
                with m.If(self.bad):
                    fail(KvError.SCALE)
                with m.If(self.loaded | cut):
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                # The rest of the last word is padding. Of a packet that was cut short, records may be incomplete.
                m.d.comb += [
                    step.eq((at != 0) & ~cut),
                    self.start.eq(cut & ~self.idle),
                ]
                with m.If(self.idle & ((at == 0) | cut)):
                    m.d.comb += self.verdict_strobe.eq(1)
                    m.d.sync += at.eq(0)
                    m.next = "IDLE"
        # A packet that ends with a word before its rows is short.
        with m.If(self.words.ready & word.cut):
            m.d.sync += [cut.eq(1), error.eq(Mux(error == 0, KvError.SHORT, error))]
        return m

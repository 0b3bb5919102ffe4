"""The front of the KV dequant engine: packets taken apart, 16 bits at a time, up to their rows."""

from functools import reduce
from operator import xor

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import increment
from hw.kv.layouts import ERROR_BITS, Beat, Header, RecordWrite, Verdict
from hw.kv.packet.counting import PrefixCount
from hw.kv.packet.header import HeaderRules
from hw.kv.packet.headers import HeaderStore
from hw.kv.packet.masks import BlockNote
from hw.kv.packet.records import RecordLoader
from spec.kv_block import HEADER_CHECK
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat

__all__ = ["BlockFront"]

SLICE = 16


class BlockFront(wiring.Component):
    """Reads a packet's header, mask, bitmap and metadata where they stand at the input, then lets its rows pass.

    Everything before the rows goes through one slice of 16 bits: the header's four are stored as they come and judged
    then; of mask and bitmap the ones are counted, two bits per cycle but one if both are set, and the bitmap's are
    listed for :class:`hw.kv.packet.tokens.TokenIndex`; metadata goes to the value tables, a scale or a minimum per
    cycle. There is no buffer: what is not used yet waits at the input.

    A packet that is bad before its rows is drained here. Of the next packet nothing is taken in until the block before
    is opened by :class:`hw.kv.sequencer.RowSequencer`: then the other of two sets of tables, bitmaps and headers is
    free.

    Members
    -------
    i : stream of Beat(4 * lanes), In
    rows : stream of Beat(4 * lanes), Out
        The packet's beats from the rows on, padding included. With 32 lanes, whose beats hold two words, the first may
        begin with the last word before the rows.
    start : Out
        High before a block's first record, and after a bad one: the tables drop what they have.
    record, room : RecordWrite, Out; In
        The metadata; ``room``: the record may be written.
    idle, overflow : In
        The tables hold the values of all records so far; some were beyond FP16.
    header, set : Header, Out; Out
        Of the block in work, with its records; the set that it is written to.
    row, offset, listed : Out
        ``listed``: the bitmap's one number ``row`` is bit ``offset``.
    mask, mask_index, mask_write : Out
        Bits ``16 * mask_index`` and following of the mask.
    note, write_note, push : BlockNote, Out; Out; Out
        Note of the block; it is on its way to the sequencer.
    hold, drained : In
        No packet may be begun; all blocks have left. With ``hold`` low a packet may be begun and finished.
    add_centre, centre_fits : In
        The centre is wanted; there is one for as many channels as ``header`` says.
    number, write_number, keep_centre : Out
        A number of a new centre, of channel ``record.channel``; the centre is complete.
    pending, opened : Out, In
        A block is ready to be opened; it is.
    verdict : Verdict, Out
        With ``pending``.
    open_set, open_header : In, Header, Out
        The sequencer's set; the header there, a cycle later.

    Members from ``mask`` to ``drained`` are there with ``interleave``, those from ``add_centre`` to ``keep_centre``
    with ``centre``.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        beat = stream.Signature(Beat(config.input_bits))
        behind = {}
        if config.interleave:
            behind = {
                "mask": Out(SLICE),
                "mask_index": Out(3),
                "mask_write": Out(1),
                "note": Out(BlockNote),
                "write_note": Out(1),
                "push": Out(1),
                "hold": In(1),
                "drained": In(1),
            }
        if config.centre:
            behind |= {
                "add_centre": In(1),
                "centre_fits": In(1),
                "number": Out(16),
                "write_number": Out(1),
                "keep_centre": Out(1),
            }
        super().__init__(
            {
                "i": In(beat),
                "rows": Out(beat),
                "start": Out(1),
                "record": Out(RecordWrite),
                "room": In(1),
                "idle": In(1),
                "overflow": In(1),
                "header": Out(Header),
                "set": Out(1),
                "row": Out(7),
                "offset": Out(9),
                "listed": Out(1),
                "pending": Out(1),
                "opened": In(1),
                "verdict": Out(Verdict),
                "open_set": In(1),
                "open_header": Out(Header),
            }
            | behind
        )

    def elaborate(self, platform):
        m = Module()
        beat, header, verdict = self.i.payload, self.header, self.verdict
        # The slice at work; ``at`` counts modulo the 16 bytes that packets are multiples of.
        slices = self.config.input_bits // SLICE
        at = Signal(3)
        step = Signal()
        end = Signal()
        place = at[: ceil_log2(slices)]
        piece = Signal(SLICE)
        m.d.comb += [piece.eq(beat.data.word_select(place, SLICE)), end.eq(beat.last & place.all())]
        with m.If(step):
            m.d.sync += at.eq(increment(m, at))
            m.d.comb += self.i.ready.eq(place.all())
        first_in_word, last_in_word = ~at[:2].any(), at[:2].all()

        m.submodules.headers = headers = HeaderStore()
        m.d.comb += [
            headers.slice.eq(piece),
            headers.place.eq(at[:2]),
            headers.set.eq(self.set),
            headers.open_set.eq(self.open_set),
            header.eq(headers.header),
            self.open_header.eq(headers.open_header),
        ]
        check = Signal(4, reset_less=True)
        nibbles = reduce(xor, [piece[k : k + 4] for k in range(0, SLICE, 4)])
        m.submodules.rules = rules = HeaderRules(self.config)
        m.d.comb += rules.header.eq(header)
        if self.config.centre:
            m.d.comb += rules.misfit.eq(self.note.add & ~self.centre_fits)

        sealed = Signal()
        cut = Signal(reset_less=True)
        masking = Signal(reset_less=True)
        error = Signal(ERROR_BITS, reset_less=True)
        odd = Signal(reset_less=True)
        m.d.comb += [
            self.pending.eq(sealed & self.idle),
            verdict.error.eq(Mux((error == 0) & self.overflow, KvError.OVERFLOW, error)),
            verdict.bare.eq(error != 0),
            verdict.odd.eq(odd),
        ]
        with m.If(self.opened):
            m.d.sync += [sealed.eq(0), self.set.eq(~self.set)]

        masked = Signal()
        m.submodules.counter = counter = PrefixCount()
        m.submodules.loader = loader = RecordLoader(self.config)
        m.d.comb += [
            counter.slice.eq(piece),
            counter.header.eq(header),
            counter.masking.eq(masking),
            counter.channel_done.eq(loader.done),
            self.row.eq(counter.row),
            self.offset.eq(counter.offset),
            self.listed.eq(counter.found & ~masking),
            masked.eq(counter.scan & masking),
            loader.slice.eq(piece),
            loader.channel.eq(counter.count),
            loader.header.eq(header),
            loader.start.eq(self.start),
            self.record.eq(loader.record),
        ]

        judged = Signal()
        sealing = Signal()
        centre, hold = self._behind(m, piece, counter.count, masked, loader.done, judged, sealing)

        def stop(code):
            m.d.sync += error.eq(code)
            m.next = "STOP"

        def fresh():
            m.d.comb += [self.start.eq(1), counter.restart.eq(1)]

        with m.If(step):
            m.d.sync += cut.eq(end)
        with m.FSM():
            with m.State("HEADER"):
                with m.If(self.i.valid & ~sealed & ~hold if self.config.interleave else self.i.valid & ~sealed):
                    m.d.comb += [step.eq(1), headers.write.eq(1)]
                    m.d.sync += error.eq(0)
                    m.d.sync += check.eq(Mux(first_in_word, 0, check) ^ nibbles)
                    with m.If(last_in_word):
                        m.next = "OPEN"
                    with m.Elif(end):
                        stop(KvError.SHORT)
            with m.State("OPEN"):
                # The header is at the memory's output a cycle after its last slice is written.
                fresh()
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.comb += [self.start.eq(1), judged.eq(1)]
                m.d.sync += masking.eq(1)
                with m.If(centre & ~self.drained if self.config.centre else 0):
                    # Blocks on their way still need the old one.
                    pass
                with m.Elif(check != HEADER_CHECK):
                    stop(KvError.HEADER)
                with m.Elif(rules.error != 0):
                    stop(rules.error)
                with m.Elif(cut):
                    stop(KvError.SHORT)
                with m.Elif(header.segment0 != header.channels):
                    m.next = "BITS"
                with m.Else():
                    m.d.sync += masking.eq(0)
                    m.next = "RECORDS"
                    with m.If(header.span != 0):
                        m.next = "BITS"
            with m.State("BITS"):
                m.d.comb += self.start.eq(1)
                with m.If(self.i.valid):
                    m.d.comb += [counter.scan.eq(1), step.eq(counter.used)]
                    with m.If(counter.found & counter.complete):
                        stop(Mux(masking, KvError.CHANNELS, KvError.TOKEN))
                    with m.Elif(step & end):
                        stop(KvError.SHORT)
                    with m.Elif(counter.finished):
                        m.next = "COUNTED"
            with m.State("COUNTED"):
                fresh()
                m.d.sync += masking.eq(0)
                with m.If(~counter.complete):
                    stop(Mux(masking, KvError.CHANNELS, KvError.TOKEN))
                with m.Elif(masking & (header.span != 0)):
                    m.next = "BITS"
                with m.Else():
                    m.next = "RECORDS"
            with m.State("RECORDS"):
                room = self.room
                if self.config.centre:
                    # The tables have no use for its numbers: they drop them.
                    room = room | centre
                    m.d.comb += self.start.eq(centre)
                m.d.comb += [loader.valid.eq(self.i.valid & room), step.eq(loader.take)]
                with m.If(loader.bad):
                    stop(KvError.SCALE)
                with m.Elif(step & end):
                    stop(KvError.SHORT)
                with m.Elif(loader.done & loader.last):
                    m.next = "PAD"
                    if self.config.centre:
                        with m.If(centre):
                            m.next = "FILL"
            with m.State("PAD"):
                with m.If(first_in_word):
                    m.d.comb += sealing.eq(1)
                    m.d.sync += [sealed.eq(1), odd.eq(at[2]), at.eq(0)]
                    m.next = "ROWS"
                with m.Elif(self.i.valid):
                    m.d.comb += step.eq(1)
                    with m.If(end):
                        stop(KvError.SHORT)
            with m.State("ROWS"):
                m.d.comb += [self.rows.valid.eq(self.i.valid), self.i.ready.eq(self.rows.ready)]
                with m.If(self.i.valid & self.rows.ready & beat.last):
                    m.next = "HEADER"
            with m.State("STOP"):
                fresh()
                m.d.comb += sealing.eq(1)
                m.d.sync += [sealed.eq(1), at.eq(0)]
                m.next = "DRAIN"
                with m.If(cut):
                    m.next = "HEADER"
            with m.State("DRAIN"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid & beat.last):
                    m.next = "HEADER"
            if self.config.centre:
                with m.State("FILL"):
                    # To the end of a packet without rows, a multiple of 16 bytes.
                    m.d.comb += self.start.eq(1)
                    with m.If(self.i.valid):
                        m.d.comb += step.eq(1)
                        with m.If(at.all()):
                            m.d.comb += self.keep_centre.eq(end)
                            m.next = "HEADER"
                            with m.If(~end):
                                stop(KvError.LONG)
                        with m.Elif(end):
                            stop(KvError.SHORT)
        m.d.comb += self.rows.payload.eq(beat)
        return m

    def _behind(self, m, piece, count, masked, numbered, judged, sealing):
        """What the stages behind the engine are told; returns (the block is a CENTRE, no packet may be begun)."""
        header = self.header
        if not self.config.interleave:
            return 0, 0
        m.d.comb += [
            self.mask.eq(piece),
            self.mask_index.eq(count[4:7]),
            self.mask_write.eq(masked),
            self.note.split.eq(header.segment0 != header.channels),
            self.note.segment0.eq(header.segment0),
            self.write_note.eq(judged),
            self.push.eq(sealing),
        ]
        if not self.config.centre:
            return 0, self.hold
        centre = Signal()
        added = Signal()
        formats = (KvFormat.K1, KvFormat.K2S, KvFormat.K2)
        m.d.comb += [
            centre.eq(header.format == KvFormat.CENTRE),
            added.eq(self.add_centre & Cat(header.format == int(kind) for kind in formats).any()),
            self.note.add.eq(added),
            self.number.eq(piece),
            self.write_number.eq(numbered & centre),
        ]
        return centre, self.hold

"""The front of the KV dequant engine: packets taken apart, 16 bits at a time, up to their rows."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import increment
from hw.kv.layouts import ERROR_BITS, Beat, Header, ReadBlock, RecordWrite
from hw.kv.packet.counting import PrefixCount
from hw.kv.packet.headers import HeaderStore
from hw.kv.packet.masks import MaskWrites
from hw.kv.packet.records import RecordLoader
from hw.kv.packet.tokens import TokenList
from hw.kv.transforms.centre import CentreNumbers
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
    block, token_list : ReadBlock, Out; TokenList, Out
        For whoever reads its rows; the bitmap's ones.
    masks : MaskWrites, Out
        With ``interleave``: masks and notes of the blocks. Without room no packet is begun.
    add_centre, centre : In, CentreNumbers, Out
        With ``centre``: the centre is wanted; what becomes of a new one.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        beat = stream.Signature(Beat(config.input_bits))
        masks = {"masks": Out(MaskWrites())} if config.interleave else {}
        centre = {"add_centre": In(1), "centre": Out(CentreNumbers())} if config.centre else {}
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
                "block": Out(ReadBlock()),
                "token_list": Out(TokenList()),
            }
            | masks
            | centre
        )

    def elaborate(self, platform):
        m = Module()
        beat, header, verdict = self.i.payload, self.header, self.block.verdict
        # The slice at work; ``at`` counts modulo the 16 bytes that packets are multiples of.
        at = Signal(3)
        step = Signal()
        end = Signal()
        place = at[: ceil_log2(self.config.input_bits // SLICE)]
        piece = Signal(SLICE)
        m.d.comb += [piece.eq(beat.data.word_select(place, SLICE)), end.eq(beat.last & place.all())]
        with m.If(step):
            m.d.sync += at.eq(increment(m, at))
            m.d.comb += self.i.ready.eq(place.all())
        first_in_word, last_in_word = ~at[:2].any(), at[:2].all()

        headers = self._headers(m, piece, at)
        sealed = Signal()
        cut = Signal(reset_less=True)
        masking = Signal(reset_less=True)
        error = Signal(ERROR_BITS, reset_less=True)
        odd = Signal(reset_less=True)
        m.d.comb += [
            self.block.pending.eq(sealed & self.idle),
            verdict.error.eq(Mux((error == 0) & self.overflow, KvError.OVERFLOW, error)),
            verdict.bare.eq(error != 0),
            verdict.odd.eq(odd),
        ]
        with m.If(self.block.opened):
            m.d.sync += [sealed.eq(0), self.set.eq(~self.set)]

        counter, loader = self._count(m, piece, masking)
        judged, sealing = (Signal(name=name) for name in ("judged", "sealing"))
        centre, room_behind = self._behind(m, piece, counter, masking, loader.done, judged, sealing)

        def stop(code):
            m.d.sync += error.eq(code)
            m.next = "STOP"

        def fresh():
            m.d.comb += [self.start.eq(1), counter.restart.eq(1)]

        with m.If(step):
            m.d.sync += cut.eq(end)
        with m.FSM():
            with m.State("HEADER"):
                with m.If(self.i.valid & ~sealed & room_behind):
                    m.d.comb += [step.eq(1), headers.write.eq(1)]
                    m.d.sync += error.eq(0)
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
                with m.If(centre & ~self.masks.empty if self.config.centre else 0):
                    pass  # blocks on their way still need the old one
                with m.Elif(headers.error != 0):
                    stop(headers.error)
                with m.Elif(cut):
                    stop(KvError.SHORT)
                with m.Elif(header.segment0 != header.channels):
                    m.next = "BITS"
                with m.Else():
                    m.d.sync += masking.eq(0)
                    m.next = "RECORDS"
                    with m.If(header.span != 0):
                        m.next = "BITS"
            self._before_rows(m, step, end, counter, loader, masking, centre, stop, fresh)
            with m.State("PAD"):
                with m.If(first_in_word):
                    m.d.comb += sealing.eq(1)
                    m.d.sync += [sealed.eq(1), odd.eq(at[2]), at.eq(0)]
                    m.next = "ROWS"
                with m.Elif(self.i.valid):
                    m.d.comb += step.eq(1)
                    with m.If(end):
                        stop(KvError.SHORT)
            with m.State("STOP"):
                fresh()
                m.d.comb += sealing.eq(1)
                m.d.sync += [sealed.eq(1), at.eq(0)]
                m.next = "DRAIN"
                with m.If(cut):
                    m.next = "HEADER"
            self._after_prefix(m, at, step, end, stop)
        return m

    def _after_prefix(self, m, at, step, end, stop):
        """States of the rows, of the rest of a bad packet and of the end of a new centre."""
        beat = self.i.payload
        m.d.comb += self.rows.payload.eq(beat)
        with m.State("ROWS"):
            m.d.comb += [self.rows.valid.eq(self.i.valid), self.i.ready.eq(self.rows.ready)]
            with m.If(self.i.valid & self.rows.ready & beat.last):
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
                        m.d.comb += self.centre.keep.eq(end)
                        m.next = "HEADER"
                        with m.If(~end):
                            stop(KvError.LONG)
                    with m.Elif(end):
                        stop(KvError.SHORT)

    def _headers(self, m, piece, at):
        """What keeps and judges headers."""
        m.submodules.headers = headers = HeaderStore(self.config)
        m.d.comb += [
            headers.slice.eq(piece),
            headers.place.eq(at[:2]),
            headers.set.eq(self.set),
            headers.open_set.eq(self.block.set),
            self.header.eq(headers.header),
            self.block.header.eq(headers.open_header),
        ]
        if self.config.centre:
            m.d.comb += headers.misfit.eq(self.masks.note.add & ~self.centre.fits)
        return headers

    def _count(self, m, piece, masking):
        """What counts bits and channels, and what loads records."""
        m.submodules.counter = counter = PrefixCount()
        m.submodules.loader = loader = RecordLoader(self.config)
        m.d.comb += [
            counter.slice.eq(piece),
            counter.header.eq(self.header),
            counter.masking.eq(masking),
            counter.channel_done.eq(loader.done),
            self.token_list.row.eq(counter.row),
            self.token_list.offset.eq(counter.offset),
            self.token_list.write.eq(counter.found & ~masking),
            self.token_list.set.eq(self.set),
            loader.slice.eq(piece),
            loader.channel.eq(counter.count),
            loader.header.eq(self.header),
            loader.start.eq(self.start),
            self.record.eq(loader.record),
        ]
        return counter, loader

    def _before_rows(self, m, step, end, counter, loader, masking, centre, stop, fresh):
        """States of the mask, of the bitmap and of the metadata."""
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
            with m.Elif(masking & (self.header.span != 0)):
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

    def _behind(self, m, piece, counter, masking, numbered, judged, sealing):
        """What the stages behind the engine are told; returns (the block is a CENTRE, a packet may be begun)."""
        header = self.header
        if not self.config.interleave:
            return 0, 1
        masks = self.masks
        m.d.comb += [
            masks.slice.eq(piece),
            masks.index.eq(counter.count[4:7]),
            masks.write.eq(counter.scan & masking),
            masks.note.split.eq(header.segment0 != header.channels),
            masks.note.segment0.eq(header.segment0),
            masks.write_note.eq(judged),
            masks.push.eq(sealing),
        ]
        if not self.config.centre:
            return 0, masks.room
        centre = Signal()
        formats = (KvFormat.K1, KvFormat.K2S, KvFormat.K2)
        m.d.comb += [
            centre.eq(header.format == KvFormat.CENTRE),
            masks.note.add.eq(self.add_centre & Cat(header.format == int(kind) for kind in formats).any()),
            self.centre.number.eq(piece),
            self.centre.write.eq(numbered & centre),
            self.centre.channel.eq(counter.count),
            self.centre.channels.eq(header.channels),
        ]
        return centre, masks.room

"""The rows of a block, beat by beat: which table entries their codes ask for, and what goes beside them."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import increment
from hw.kv.layouts import ERROR_BITS, Beat, Beside, Plan, ReadBlock
from hw.kv.packet.header import is_ternary
from hw.kv.packet.rows import RowWindow
from hw.kv.packet.tokens import TokenIndex, TokenList
from hw.kv.values.codes import CodeSelect
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["RowSequencer"]


class RowSequencer(wiring.Component):
    """Turns blocks' rows into reads of the value tables, one beat per cycle, and finishes every packet in order.

    A block is opened when its verdict is there: its tables are written then. A bad block is one marked beat, and its
    rows are dropped. The block's last beat is read from the tables but held back until the padding has gone by and
    TLAST is where it belongs. When data run out too early, the token in work is finished with marked beats and is the
    last.

    Between two blocks pass 3 cycles, and one for each chunk of padding.

    Members
    -------
    block, token_list : ReadBlock, In; TokenList, In
        Of :class:`hw.kv.packet.front.BlockFront`.
    rows : stream of Beat(4 * lanes), In
    beat, codes, set, read : Out
        A read of the value tables; blocks count modulo 4. Their output belongs to ``o`` in the cycles after it.
    o : stream of Beside(lanes), Out
        Beside the tables' output; the plan is zero in builds without a transform.
    error, error_strobe : Out
        :class:`KvError` of the block.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.beat_bits = ceil_log2(config.max_channels // config.lanes)
        super().__init__(
            {
                "block": In(ReadBlock()),
                "token_list": In(TokenList()),
                "rows": In(stream.Signature(Beat(config.input_bits))),
                "beat": Out(self.beat_bits),
                "codes": Out(data.ArrayLayout(2, config.lanes)),
                "set": Out(1),
                "read": Out(1),
                "o": Out(stream.Signature(Beside(config.lanes))),
                "error": Out(ERROR_BITS),
                "error_strobe": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        header, verdict = self.block.header, self.block.verdict
        m.submodules.window = window = RowWindow(self.config)
        m.submodules.select = select = CodeSelect(self.config)
        m.submodules.tokens = tokens = TokenIndex()
        wiring.connect(m, wiring.flipped(self.rows), window.i)
        wiring.connect(m, wiring.flipped(self.token_list), tokens.i)

        # Where this beat stands, in groups of 8 channels.
        beat = self.beat
        row = Signal(7, reset_less=True)
        group_bits = ceil_log2(max(1, lanes // 8))
        first_group = beat >> 1 if lanes == 4 else beat << group_bits
        last_beat = (header.channels << 1 | 1) if lanes == 4 else header.channels >> group_bits
        ternary = Signal()
        token_last = Signal()
        final = Signal()
        m.d.comb += [
            ternary.eq(is_ternary(self.config, header)),
            token_last.eq(beat == last_beat),
            final.eq(token_last & ((row == header.rows) | window.ended)),
            window.ternary.eq(ternary),
            window.units.eq(select.units),
            select.window.eq(window.window),
            self.codes.eq(select.codes),
            self.block.set.eq(self.set),
            tokens.first.eq(header.token),
            tokens.sparse.eq(header.span != 0),
            tokens.read.eq(self.read),
            tokens.read_set.eq(self.set),
            tokens.read_row.eq(row),
        ]
        for g in range(select.groups_count):
            # Formats of more than a bit per code have them in segment 0, which a ternary block is all of.
            in_first = (header.format != KvFormat.K1) & (first_group + g <= header.segment0)
            exists = ~token_last | (header.channels[:group_bits] >= g) if g else 1
            m.d.comb += [select.double[g].eq(in_first), select.groups[g].eq(exists)]

        # The beat whose elements are at the tables' output.
        beside = Signal(Beside(lanes), reset_less=True)
        occupied = Signal()
        waiting = Signal()
        tag = beside.tag
        room = Signal()
        m.d.comb += [
            self.o.payload.eq(beside),
            self.o.payload.tag.token.eq(tokens.token),
            self.o.valid.eq(occupied & ~waiting),
            room.eq(~occupied | (self.o.valid & self.o.ready)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += occupied.eq(0)

        # Marks stay until the block is over.
        def fail(code):
            m.d.comb += [self.error.eq(code), self.error_strobe.eq(1)]
            m.d.sync += tag.marked.eq(1)

        def finish():
            """The block's header, which its last beat's token comes from, stays until that beat has left."""
            m.d.sync += waiting.eq(0)
            m.next = "LAST"

        with m.FSM():
            with m.State("IDLE"):
                # What belongs to `set` is at the memories' outputs a cycle after it.
                with m.If(self.block.pending):
                    m.next = "OPEN"
            with m.State("OPEN"):
                m.d.comb += [window.odd.eq(verdict.odd)]
                m.d.sync += [row.eq(0), beat.eq(0)]
                with m.If(room):
                    m.d.sync += tag.marked.eq(0)
                    with m.If(verdict.error != 0):
                        fail(verdict.error)
                        m.d.sync += [occupied.eq(1), tag.token_last.eq(1), tag.last.eq(1)]
                        if self.config.transforms:
                            m.d.sync += beside.plan.eq(0)
                        m.d.comb += self.block.opened.eq(1)
                        with m.If(verdict.bare):
                            finish()
                        with m.Else():
                            m.d.comb += window.open.eq(1)
                            m.next = "DRAIN"
                    with m.Elif(verdict.odd & (lanes == 32)):
                        # The packet's first chunk here is the last word before the rows.
                        m.d.comb += window.skip.eq(window.held)
                        with m.If(window.held):
                            m.d.comb += [window.open.eq(1), self.block.opened.eq(1)]
                            m.next = "ROWS"
                    with m.Else():
                        m.d.comb += [window.open.eq(1), self.block.opened.eq(1)]
                        m.next = "ROWS"
            with m.State("ROWS"):
                with m.If(room & (window.complete | window.ended)):
                    m.d.comb += [self.read.eq(1), window.take.eq(~window.ended)]
                    m.d.sync += [
                        occupied.eq(1),
                        tag.token_last.eq(token_last),
                        tag.last.eq(final),
                        tag.channel.eq(beat << ceil_log2(lanes)),
                        tag.groups.eq(select.groups),
                        beat.eq(increment(m, beat) & (~token_last).replicate(len(beat))),
                    ]
                    if self.config.transforms:
                        m.d.sync += beside.plan.eq(self._plan(m, header, first_group, token_last))
                    with m.If(token_last):
                        m.d.sync += row.eq(increment(m, row))
                    with m.If(window.ended):
                        fail(KvError.SHORT)
                    with m.Elif(window.invalid):
                        fail(KvError.TRIT)
                    with m.If(final):
                        with m.If(window.ended):
                            finish()
                        with m.Else():
                            m.d.sync += waiting.eq(1)
                            m.next = "TAIL"
                with m.Elif(window.cut):
                    m.d.comb += window.skip.eq(1)
            with m.State("TAIL"):
                with m.If(window.partial):
                    m.d.comb += window.skip.eq(1)
                    with m.If(~window.padded):
                        fail(KvError.PADDING)
                with m.Elif(window.aligned):
                    finish()
                    with m.If(~window.ended):
                        fail(KvError.LONG)
                        m.d.sync += waiting.eq(1)
                        m.next = "DRAIN"
                with m.Elif(window.ended):
                    fail(KvError.SHORT)
                    finish()
                with m.Else():
                    m.d.comb += window.skip.eq(window.held)
            with m.State("LAST"):
                with m.If(room):
                    m.d.sync += self.set.eq(~self.set)
                    m.next = "IDLE"
            with m.State("DRAIN"):
                with m.If(window.ended):
                    finish()
                with m.Else():
                    m.d.comb += window.skip.eq(window.held)
        return m

    def _plan(self, m, header, first_group, token_last):
        """The transforms' orders for this beat."""
        lanes = self.config.lanes
        plan = Signal(Plan(lanes))
        starts = header.segment0 + 1
        place = Signal(5)
        with m.If(self.read):
            # Beats never mix a transformed segment of more than 16 channels with another one.
            following = first_group + max(1, lanes // 8)
            if lanes == 4:
                following = first_group + self.beat[0]
            m.d.sync += place.eq(Mux(token_last | ((following == starts) & (first_group != following)), 0, place + 1))
        segments = []
        for half in range(len(plan.wht)):
            segment = first_group + 2 * half > header.segment0
            segments.append(segment)
            transform = Mux(segment, header.transform1, header.transform0)
            m.d.comb += [
                plan.wht[half].eq(transform == KvTransform.WHT),
                plan.rfft[half].eq(transform == KvTransform.RFFT),
                plan.exponent[half].eq(Mux(segment, header.exponent1, header.exponent0)),
            ]
        groups = Mux(segments[0], header.channels - header.segment0, starts)[:5]
        for size in range(4):
            with m.If(groups[1 + size]):
                m.d.comb += plan.size.eq(size)
        if lanes == 32:
            # Of two segments in one beat none is transformed but by 16 channels, whatever the other's size.
            with m.If(segments[0] != segments[1]):
                m.d.comb += plan.size.eq(0)
        rfft = int(KvTransform.RFFT)
        m.d.comb += [
            plan.place.eq(place),
            plan.narrow.eq((header.transform0 == rfft) | (header.transform1 == rfft)),
            plan.coarse.eq(header.metadata == KvMetadata.FP16),
        ]
        return plan

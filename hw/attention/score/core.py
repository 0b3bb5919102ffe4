"""Scores straight from packed key codes: one query against a list of blocks and runs of exact tokens."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import Job, Layout, PacketBeat, QueryElement, Score
from hw.attention.packets import PacketFront
from hw.attention.rows import ByteWindow, two_bit_codes
from hw.attention.score.dot import DotArray
from hw.attention.score.fold import FoldUnit
from hw.attention.score.query import QueryUnit
from hw.attention.score.results import ScoreOut, ScoreTag
from hw.kv.errors import COUNTER_BITS, ErrorLog
from hw.kv.layouts import ERROR_BITS
from spec import checks
from spec.attention import PLANES, SCALE_BYTES, AttentionConfig, AttentionError
from spec.kv_config import KvError

__all__ = ["ScoreCore"]

ROWS_DEPTH = 64
"""Beats of rows that wait while the next block's scales are folded: its about 90 cycles of rows."""
WORDS_DEPTH = 16
SETTLE = 3
"""Cycles from an exact token's last step until its number may be replaced by another."""


def queue(m, name, source, sink, depth):
    """A FIFO between two streams of one width."""
    payload = Value.cast(source.payload)
    m.submodules[name] = fifo = SyncFIFOBuffered(width=len(payload), depth=depth)
    m.d.comb += [
        fifo.w_data.eq(payload),
        fifo.w_en.eq(source.valid),
        source.ready.eq(fifo.w_rdy),
        sink.payload.eq(fifo.r_data),
        sink.valid.eq(fifo.r_rdy),
        fifo.r_en.eq(sink.ready),
    ]


class ScoreCore(wiring.Component):
    """q . k of every token of a list, from its codes (docs/attention.md).

    ```
    layout, query -> QueryUnit --+
    i -> PacketFront -+- entries, words -> FoldUnit -> tables -+
                      +- rows --[queue]-> ByteWindow -> codes -> DotArray -> ScoreOut -> o
    ```

    A packed row of up to 64 channels takes a cycle, an exact one four, a digit plane each (and every fourth token one
    more: four slots of 64 channels are 17 beats); from 72 channels on twice as many. Between packets pass 2 cycles (3
    after exact tokens), if the next one's prefix came 90 cycles before: the fold works while rows are multiplied.

    K1 and K2S, with ``wht`` or without, and K2 in builds with minima; other formats are refused with FORMAT.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    layout : stream of Layout, In
    query : stream of QueryElement, In
    i : stream of PacketBeat, In
    o : stream of Score, Out
    error, error_count : Out
        First code since the last clear (KvError, AttentionError); bad packets since then.
    error_clear : In
    busy : Out
        The array takes a step in this cycle.
    """

    def __init__(self, config: AttentionConfig):
        checks.instance("config", config, AttentionConfig)
        self.config = config
        super().__init__(
            {
                "layout": In(stream.Signature(Layout)),
                "query": In(stream.Signature(QueryElement)),
                "i": In(stream.Signature(PacketBeat)),
                "o": Out(stream.Signature(Score)),
                "error": Out(ERROR_BITS),
                "error_count": Out(COUNTER_BITS),
                "error_clear": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.front = front = PacketFront(config)
        m.submodules.query_unit = query = QueryUnit(config)
        m.submodules.fold = fold = FoldUnit(config)
        m.submodules.window = window = ByteWindow()
        m.submodules.array = array = DotArray(config)
        m.submodules.out = out = ScoreOut(config)
        m.submodules.log = log = ErrorLog()
        wiring.connect(m, wiring.flipped(self.i), front.i)
        wiring.connect(m, wiring.flipped(self.layout), query.layout)
        wiring.connect(m, wiring.flipped(self.query), query.i)
        wiring.connect(m, out.o, wiring.flipped(self.o))
        queue(m, "entries", front.entries, fold.entries, 3)
        queue(m, "words", front.words, fold.words, WORDS_DEPTH)
        queue(m, "rows", front.rows, window.i, ROWS_DEPTH)
        now = Signal(Job(config))
        m.d.comb += [
            fold.there.eq(query.there),
            query.release.eq(fold.release),
            query.address.eq(fold.address),
            query.exact.eq(fold.exact),
            fold.value.eq(query.value),
            fold.bits.eq(query.bits),
            fold.exponent.eq(query.exponent),
            fold.poison.eq(query.poison),
            fold.layout.eq(query.current),
            array.write.eq(fold.write),
            array.write_valid.eq(fold.write_valid),
            array.set.eq(now.set),
            out.i.eq(array.o),
            self.busy.eq(array.step),
        ]
        self._rows(m, fold, window, array, out, log, now)
        m.d.comb += [
            out.unit.eq(now.unit),
            out.offset.eq(now.offset),
            log.late.eq(Mux(out.bad_scale, KvError.SCALE, AttentionError.QUERY)),
            log.late_strobe.eq(out.bad_scale | query.bad),
            log.bad.eq(self.o.valid & self.o.ready & self.o.payload.marked & self.o.payload.last),
            log.clear.eq(self.error_clear),
            self.error.eq(log.error),
            self.error_count.eq(log.count),
        ]
        return m

    def _rows(self, m, fold, window, array, out, log, now):
        """Plays packets, step by step."""
        rows = now.rows
        row = Signal(7)
        step = Signal()
        plane = Signal(range(PLANES))

        # Groups of this step and how many of them have 2-bit codes.
        groups = Signal(4)
        doubles = Signal(4)
        steps_end = Signal(init=1)
        if self.config.steps == 2:
            many, many0 = rows.groups > 8, rows.groups0 > 8
            m.d.comb += [
                groups.eq(Mux(step, rows.groups - 8, Mux(many, 8, rows.groups))),
                doubles.eq(Mux(step, Mux(many0, rows.groups0 - 8, 0), Mux(many0, 8, rows.groups0))),
                steps_end.eq(step | ~many),
            ]
        else:
            m.d.comb += [groups.eq(rows.groups), doubles.eq(rows.groups0)]
        codes = two_bit_codes(m, window.window, doubles)
        at_scale = Signal()
        scales = Signal(8 * SCALE_BYTES)
        m.d.comb += [
            at_scale.eq(rows.exact & steps_end & (plane == PLANES - 1)),
            scales.eq(window.window.bit_select(groups << 4, len(scales))),
        ]
        tag = Signal(ScoreTag)
        emit = Signal()
        m.d.comb += [
            # A slot of 8 channels is filled up to a beat.
            window.bytes.eq(groups + doubles + Mux(at_scale, Mux(rows.groups == 1, 2 * SCALE_BYTES, SCALE_BYTES), 0)),
            window.half.eq(fold.job.payload.rows.odd),
            array.half.eq(step),
            array.codes.eq(codes),
            tag.exact.eq(rows.exact),
            tag.final.eq(rows.final & tag.last),
            tag.scale.eq(scales[:16]),
        ]
        delayed, sending = tag, emit
        for k in range(array.latency):
            after, kept = Signal(name=f"sending{k}"), Signal(ScoreTag, name=f"tag{k}", reset_less=True)
            m.d.sync += [after.eq(sending), kept.eq(delayed)]
            delayed, sending = kept, after
        m.d.comb += [out.tag.eq(delayed), out.valid.eq(sending), out.sent.eq(emit)]
        m.d.comb += out.value_scale.eq(Mux(tag.exact, scales[16:], 0))

        # A marked score must not overtake an exact one that is being multiplied.
        settle = SETTLE + self.config.minima
        rest = Signal(range(settle + 1))
        with m.If(emit & rows.exact):
            m.d.sync += rest.eq(settle)
        with m.Elif(rest != 0):
            m.d.sync += rest.eq(rest - 1)
        may_mark = Signal()
        m.d.comb += may_mark.eq(out.room & (rest == 0))

        if self.config.minima:
            m.d.comb += [out.constant.eq(now.constant), out.constant_unit.eq(now.constant_unit)]

        def marked():
            m.d.comb += [emit.eq(may_mark), tag.marked.eq(1), tag.last.eq(1), tag.exact.eq(0)]

        def fail(code):
            m.d.comb += [log.code.eq(code), log.strobe.eq(1)]

        job = fold.job.payload
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [row.eq(0), step.eq(0), plane.eq(0)]
                # What follows an exact score must not take the place of the number that it is made of.
                with m.If(fold.job.valid & (rest <= (0 if self.config.minima else 1))):
                    m.d.sync += now.eq(job)
                    m.d.comb += [window.start.eq(1), fold.job.ready.eq(1)]
                    m.next = "CONSTANT" if self.config.minima else "ROWS"
                    with m.If(job.rows.error != 0):
                        m.next = "BAD"
            if self.config.minima:
                with m.State("CONSTANT"):
                    m.d.comb += out.constant_valid.eq(1)
                    m.next = "ROWS"
            with m.State("ROWS"):
                end_of_row = Mux(rows.exact, at_scale, steps_end)
                final = Signal()
                go = Signal()
                m.d.comb += [
                    final.eq(end_of_row & Mux(rows.exact, window.ends, row == rows.rows)),
                    go.eq(window.there & out.room),
                    window.take.eq(go),
                    window.stay.eq(final),
                    window.refill.eq(1),
                    array.step.eq(go),
                    array.keep.eq(step != 0),
                    array.shift.eq((step == 0) & (plane != 0)),
                    tag.last.eq(final),
                    tag.marked.eq(now.poison | (final & ~window.ends)),
                    emit.eq(go & end_of_row),
                ]
                with m.If(go):
                    m.d.sync += step.eq(~steps_end)
                    with m.If(rows.exact & steps_end):
                        m.d.sync += plane.eq(plane + 1)
                    with m.If(end_of_row):
                        m.d.sync += row.eq(row + 1)
                    with m.If(final):
                        with m.If(~window.ends):
                            fail(KvError.LONG)
                        m.next = "TAIL"
                with m.If(window.short):
                    m.next = "SHORT"
            with m.State("SHORT"):
                marked()
                with m.If(may_mark):
                    fail(KvError.SHORT)
                    m.next = "TAIL"
            with m.State("BAD"):
                marked()
                with m.If(may_mark):
                    fail(rows.error)
                    m.next = "TAIL"
                    with m.If(rows.bare):
                        m.next = "IDLE"
            with m.State("TAIL"):
                with m.If(window.held):
                    m.d.comb += window.skip.eq(1)
                    with m.If(window.held_last):
                        m.next = "IDLE"

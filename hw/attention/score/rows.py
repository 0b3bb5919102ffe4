"""Rows of key packets, step by step into the array, and what their scores are made of."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import Job
from hw.attention.rows import ByteWindow, two_bit_codes
from hw.attention.score.dot import DotArray, DotSteps
from hw.attention.score.results import ScoreRequests, ScoreTag
from hw.kv.layouts import ERROR_BITS, Beat
from spec.attention import BUS_BYTES, PLANES, SCALE_BYTES, AttentionConfig
from spec.kv_config import KvError

__all__ = ["ScoreRows"]

SETTLE = 3
"""Cycles from an exact token's last step until its number may be replaced by another."""


class ScoreRows(wiring.Component):
    """Takes packets apart into steps and asks for a score where a row ends.

    A step takes a cycle, every fourth exact token of 17 beats one more. A packet that is bad before its rows, or ends
    within them, gets one more score, which is marked.

    Members
    -------
    jobs : stream of Job, In
    rows : stream of Beat(128), In
    steps : DotSteps, Out
    requests : ScoreRequests, Out
    error, error_strobe : Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "jobs": In(stream.Signature(Job(config))),
                "rows": In(stream.Signature(Beat(8 * BUS_BYTES))),
                "steps": Out(DotSteps()),
                "requests": Out(ScoreRequests(config)),
                "error": Out(ERROR_BITS),
                "error_strobe": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.window = window = ByteWindow()
        wiring.connect(m, wiring.flipped(self.rows), window.i)
        waiting, job = self.jobs.payload, Signal(Job(self.config))
        rows = job.rows
        row = Signal(7)
        step = Signal()
        plane = Signal(range(PLANES))
        tag = Signal(ScoreTag)
        emit = Signal()
        steps_end, at_scale = self._cut(m, window, job, step, plane, tag)
        may_mark, settled = self._request(m, job, tag, emit)

        def marked():
            m.d.comb += [emit.eq(may_mark), tag.marked.eq(1), tag.last.eq(1), tag.exact.eq(0)]

        def fail(code):
            m.d.comb += [self.error.eq(code), self.error_strobe.eq(1)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [row.eq(0), step.eq(0), plane.eq(0)]
                with m.If(self.jobs.valid & settled):
                    m.d.sync += job.eq(waiting)
                    m.d.comb += [window.start.eq(1), self.jobs.ready.eq(1)]
                    m.next = "CONSTANT" if self.config.minima else "ROWS"
                    with m.If(waiting.rows.error != 0):
                        m.next = "BAD"
            if self.config.minima:
                with m.State("CONSTANT"):
                    m.d.comb += self.requests.constant_valid.eq(1)
                    m.next = "ROWS"
            with m.State("ROWS"):
                end_of_row = Mux(rows.exact, at_scale, steps_end)
                final = Signal()
                go = Signal()
                m.d.comb += [
                    final.eq(end_of_row & Mux(rows.exact, window.ends, row == rows.rows)),
                    go.eq(window.complete & self.requests.room),
                    window.take.eq(go),
                    window.stay.eq(final),
                    window.refill.eq(1),
                    self.steps.step.eq(go),
                    self.steps.keep.eq(step != 0),
                    self.steps.shift.eq((step == 0) & (plane != 0)),
                    tag.last.eq(final),
                    tag.marked.eq(job.poison | (final & ~window.ends)),
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
        return m

    def _cut(self, m, window, job, step, plane, tag):
        """Codes of a step; returns (it ends a row or plane, it is an exact row's last, which takes its scale along)."""
        rows = job.rows
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
        at_scale = Signal()
        scales = Signal(8 * SCALE_BYTES)
        m.d.comb += [
            at_scale.eq(rows.exact & steps_end & (plane == PLANES - 1)),
            scales.eq(window.window.bit_select(groups << 4, len(scales))),
            # A slot of 8 channels is filled up to a beat.
            window.bytes.eq(groups + doubles + Mux(at_scale, Mux(rows.groups == 1, 2 * SCALE_BYTES, SCALE_BYTES), 0)),
            window.half.eq(self.jobs.payload.rows.odd),
            self.steps.codes.eq(two_bit_codes(m, window.window, doubles)),
            self.steps.half.eq(step),
            self.steps.set.eq(job.set),
            tag.exact.eq(rows.exact),
            tag.final.eq(rows.final & tag.last),
            tag.scale.eq(scales[:16]),
            self.requests.value_scale.eq(Mux(tag.exact, scales[16:], 0)),
        ]
        return steps_end, at_scale

    def _request(self, m, job, tag, emit):
        """Tags meet their sums. Returns (a marked score may be sent, what is sent next cannot spoil an exact one)."""
        requests, minima = self.requests, self.config.minima
        delayed, sending = tag, emit
        for k in range(DotArray.latency):
            after, kept = Signal(name=f"sending{k}"), Signal(ScoreTag, name=f"tag{k}", reset_less=True)
            m.d.sync += [after.eq(sending), kept.eq(delayed)]
            delayed, sending = kept, after
        m.d.comb += [
            requests.tag.eq(delayed),
            requests.valid.eq(sending),
            requests.sent.eq(emit),
            requests.unit.eq(job.unit),
            requests.offset.eq(job.offset),
        ]
        if minima:
            m.d.comb += [requests.constant.eq(job.constant), requests.constant_unit.eq(job.constant_unit)]
        # A marked score must not overtake an exact one that is being multiplied.
        settle = SETTLE + minima
        rest = Signal(range(settle + 1))
        with m.If(emit & job.rows.exact):
            m.d.sync += rest.eq(settle)
        with m.Elif(rest != 0):
            m.d.sync += rest.eq(rest - 1)
        may_mark = Signal()
        m.d.comb += may_mark.eq(requests.room & (rest == 0))
        return may_mark, rest <= (0 if minima else 1)

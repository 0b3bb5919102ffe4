"""Rows of value packets, step by step into the channel sums, beside the weights of their group."""

from amaranth import C, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import PacketEntry
from hw.attention.rows import ByteWindow
from hw.attention.value.codes import ValueCodes
from hw.attention.value.weights import WEIGHT_EXPONENT_BITS
from hw.kv.layouts import ERROR_BITS, Beat
from spec.attention import BUS_BYTES, LANES, PLANES, SCALE_BYTES, AttentionConfig, AttentionError
from spec.kv_config import KvError
from spec.kv_formats import KvFormat

__all__ = ["SumsJob", "ValueRows"]


class SumsJob(data.StructLayout):
    """A group is in the sums, or a packet had none: what :class:`hw.attention.value.results.ValueOut` has to know.

    ``words``: the packet's words wait in the metadata reader. ``ternary``: digits minus 1; ``exact``: codes plus 128.
    ``total`` Y, ``exponent`` L. ``set`` of the sums. ``marked``: nothing but the mark counts. ``final``: the list ends.
    """

    def __init__(self, total_bits):
        super().__init__(
            {
                "total": total_bits,
                "exponent": WEIGHT_EXPONENT_BITS,
                "set": 1,
                "words": 1,
                "ternary": 1,
                "exact": 1,
                "marked": 1,
                "final": 1,
            }
        )


class ValueRows(wiring.Component):
    """Takes packets apart into steps, pairs rows with weights, and says when a group is complete.

    A packed block is a group; a run of exact tokens is one or more, as the weights say. Where rows and weights
    disagree, or a packet is bad in a way that loses count, the rest of the list is dropped, packets and weights up to
    ``final`` of either. A step takes a cycle, every fourth exact token of 17 beats one more; between two
    packets passes a cycle.

    Members
    -------
    channels : In
        Head dim / 8 - 1; static.
    entries : stream of PacketEntry, In
    cut, cut_taken : In, Out
        In place of a packet's rows: its words end it, it has none.
    rows : stream of Beat(128), In
    there, weights_last, weights_exact, weights_final, weights_bad, exponent, next, release
        Of :class:`hw.attention.value.weights.WeightAligner`.
    codes, step, row_last, last, exact, valid, ready, abort, total, set
        Of :class:`hw.attention.value.channels.ChannelSums`.
    jobs : stream of SumsJob, Out
    error, error_strobe : Out
    """

    def __init__(self, config: AttentionConfig, total_bits: int):
        self.config = config
        super().__init__(
            {
                "channels": In(4),
                "entries": In(stream.Signature(PacketEntry)),
                "cut": In(1),
                "cut_taken": Out(1),
                "rows": In(stream.Signature(Beat(8 * BUS_BYTES))),
                "there": In(1),
                "weights_last": In(1),
                "weights_exact": In(1),
                "weights_final": In(1),
                "weights_bad": In(1),
                "exponent": In(WEIGHT_EXPONENT_BITS),
                "next": Out(1),
                "release": Out(1),
                "codes": Out(data.ArrayLayout(2, LANES)),
                "step": Out(1),
                "row_last": Out(1),
                "last": Out(1),
                "exact": Out(1),
                "valid": Out(1),
                "ready": In(1),
                "abort": Out(1),
                "total": In(total_bits),
                "set": In(1),
                "jobs": Out(stream.Signature(SumsJob(total_bits))),
                "error": Out(ERROR_BITS),
                "error_strobe": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.window = window = ByteWindow()
        m.submodules.select = select = ValueCodes()
        wiring.connect(m, wiring.flipped(self.rows), window.i)
        entry = self.entries.payload
        header = entry.header

        # The packet in work.
        ternary, exact, final, words, odd = (Signal(name=n) for n in ("ternary", "exact", "final", "words", "odd"))
        row_count = Signal(7)
        row = Signal(7)
        step = Signal()
        plane = Signal(range(PLANES))
        marked = Signal()
        broken = Signal()
        ended = Signal()

        upper = self.channels[3]
        steps_end = step | ~upper if self.config.steps == 2 else C(1, 1)
        at_scale = Signal()  # the exact row's last step, which takes its scale along
        m.d.comb += [
            select.window.eq(window.window),
            select.ternary.eq(ternary),
            select.groups.eq(Mux(steps_end, self.channels[:3], LANES // 8 - 1)),
            at_scale.eq(exact & steps_end & (plane == PLANES - 1)),
            # A slot of 8 channels is filled up to a beat.
            select.extra.eq(Mux(at_scale, Mux(self.channels == 0, 2 * SCALE_BYTES, SCALE_BYTES), 0)),
            window.bytes.eq(select.bytes),
            window.half.eq(odd),
            self.codes.eq(select.codes),
            self.step.eq(step),
            self.exact.eq(exact),
        ]

        def fail(code):
            m.d.comb += [self.error.eq(code), self.error_strobe.eq(1)]
            m.d.sync += marked.eq(1)

        def give_up(code, following):
            """The list is lost."""
            fail(code)
            m.d.comb += self.abort.eq(1)
            m.d.sync += broken.eq(1)
            m.next = following

        # The group that is complete, until the sums have been taken.
        job = Signal(self.jobs.payload.shape(), reset_less=True)
        pending = Signal()
        m.d.comb += [self.jobs.payload.eq(job), self.jobs.valid.eq(pending)]
        with m.If(self.jobs.valid & self.jobs.ready):
            m.d.sync += pending.eq(0)

        def hand_over(end, sums):
            m.d.sync += [
                pending.eq(1),
                job.total.eq(self.total),
                job.exponent.eq(self.exponent),
                job.set.eq(sums),
                job.words.eq(words),
                job.ternary.eq(ternary),
                job.exact.eq(exact),
                job.marked.eq(marked | self.weights_bad | broken),
                job.final.eq(final & end),
                row.eq(0),
                plane.eq(0),
                step.eq(0),
            ]
            with m.If(~broken):
                m.d.comb += self.release.eq(1)
            with m.If(self.weights_bad & ~broken):
                m.d.comb += [self.error.eq(AttentionError.WEIGHT), self.error_strobe.eq(1)]

        refused = Signal(ERROR_BITS)
        with m.If(~entry.exact):
            with m.If(entry.error != 0):
                m.d.comb += refused.eq(entry.error)
            with m.Elif(((header.format != KvFormat.V158) & (header.format != KvFormat.V2)) | (header.transform0 != 0)):
                m.d.comb += refused.eq(KvError.FORMAT)
            with m.Elif(header.channels != self.channels):
                m.d.comb += refused.eq(AttentionError.LAYOUT)

        def begin():
            """Takes the next packet's entry."""
            m.d.comb += [self.entries.ready.eq(1), select.start.eq(1)]
            m.d.sync += [
                ternary.eq(~entry.exact & (header.format == KvFormat.V158)),
                exact.eq(entry.exact),
                final.eq(entry.final),
                row_count.eq(header.rows),
                odd.eq(entry.odd & ~entry.exact),
                words.eq(~entry.exact & (entry.error == 0)),
                marked.eq(0),
                ended.eq(0),
            ]
            m.next = "ENTRY"
            with m.If(self.entries.valid):
                m.next = "PREFIX"
                with m.If(refused != 0):
                    give_up(refused, "PREFIX")
                with m.If(~entry.exact & (entry.error != 0)):
                    m.next = "LOST"

        row_end = Signal()
        group_end = Signal()
        with m.FSM():
            with m.State("ENTRY"):
                begin()
            with m.State("PREFIX"):
                m.d.comb += window.start.eq(1)
                with m.If(self.cut):
                    # The metadata reader reports it.
                    m.d.comb += self.cut_taken.eq(1)
                    m.d.sync += [broken.eq(1), marked.eq(1)]
                    m.next = "LOST"
                with m.Elif(window.held):
                    m.next = "ROWS"
                    with m.If(broken):
                        m.next = "DRAIN"
            with m.State("ROWS"):
                wrong = Signal()
                whole = Signal()
                run = Signal()
                m.d.comb += [
                    row_end.eq(Mux(exact, at_scale, steps_end)),
                    group_end.eq(row_end & Mux(exact, self.weights_last, row == row_count)),
                    # A block's weights end with its rows; a run's last ones with the run; the list's with the list.
                    whole.eq(steps_end & (self.weights_last != (row == row_count)) | (self.weights_final != final)),
                    run.eq(Mux(self.weights_last, self.weights_final != (final & window.ends), window.ends)),
                    wrong.eq(
                        self.there & ((self.weights_exact != exact) | Mux(exact, at_scale & window.there & run, whole))
                    ),
                    self.row_last.eq(steps_end),
                    self.last.eq(steps_end & Mux(exact, (plane == PLANES - 1) & self.weights_last, row == row_count)),
                    window.stay.eq(Mux(exact, window.ends, group_end)),
                ]
                go = Signal()
                free = Signal()
                m.d.comb += [
                    # A run's group is handed over with its last row, a block's once its end is seen.
                    free.eq(self.ready & ~(at_scale & group_end & pending)),
                    go.eq(window.there & self.there & free & ~wrong),
                    window.take.eq(go),
                    window.refill.eq(1),
                    select.take.eq(go),
                    self.valid.eq(window.there & self.there & ~wrong & ~(at_scale & group_end & pending)),
                    self.next.eq(go & row_end),
                ]
                with m.If(go):
                    m.d.sync += step.eq(~steps_end)
                    with m.If(exact & steps_end):
                        m.d.sync += plane.eq(plane + 1)
                    with m.If(row_end):
                        m.d.sync += row.eq(row + 1)
                    with m.If(select.invalid):
                        fail(KvError.TRIT)
                    with m.Elif(group_end & select.padding):
                        fail(KvError.PADDING)
                    with m.If(group_end & ~exact):
                        m.next = "END"
                    with m.If(at_scale):
                        with m.If(group_end):
                            hand_over(window.ends, self.set)
                        with m.If(window.ends):
                            m.d.sync += ended.eq(1)
                            m.next = "END"
                with m.Elif(window.there & wrong):
                    give_up(AttentionError.WEIGHT, "DRAIN")
                with m.Elif(window.short):
                    give_up(KvError.SHORT, "DRAIN")
            with m.State("END"):
                # The rows' last beat is held: it must be the packet's last.
                with m.If(window.held & (~pending | ended)):
                    m.d.comb += window.skip.eq(1)
                    with m.If(window.held_last):
                        begin()
                        with m.If(self.entries.valid & (refused == 0) & self.rows.valid):
                            # The next packet's first beat takes this one's place.
                            m.d.comb += [window.start.eq(1), window.half.eq(entry.odd & ~entry.exact)]
                            m.next = "ROWS"
                        with m.If(~ended):
                            hand_over(1, ~self.set)
                    with m.Else():
                        give_up(KvError.LONG, "DRAIN")
            with m.State("DRAIN"):
                with m.If(window.held):
                    m.d.comb += window.skip.eq(1)
                    with m.If(window.held_last):
                        m.next = "LOST"
            with m.State("LOST"):
                # With the list's last packet go its weights, whatever is left of them.
                m.d.comb += self.release.eq(self.there & final)
                with m.If(~final | (self.there & self.weights_final)):
                    m.next = "DROPPED"
            with m.State("DROPPED"):
                with m.If(~pending):
                    hand_over(1, ~self.set)
                    m.d.sync += broken.eq(~final)
                    m.next = "ENTRY"
        return m

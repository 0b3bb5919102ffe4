"""Rows of value packets, step by step into the channel sums, beside the weights of their group."""

from amaranth import C, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import PacketEntry, SumsJob
from hw.attention.rows import ByteWindow
from hw.attention.value.channels import SumsPort
from hw.attention.value.codes import ValueCodes
from hw.attention.value.weights import AlignedWeights
from hw.kv.layouts import ERROR_BITS, Beat
from spec.attention import BUS_BYTES, LANES, PLANES, SCALE_BYTES, AttentionConfig, AttentionError
from spec.kv_config import KvError
from spec.kv_formats import KvFormat

__all__ = ["ValueRows"]


class _Packet(data.Struct):
    """The packet in work; ``rows`` minus 1, ``words`` as in `SumsJob`."""

    ternary: 1
    exact: 1
    final: 1
    words: 1
    odd: 1
    marked: 1
    rows: 7


class _Place(data.Struct):
    """The step in work."""

    row: 7
    step: 1
    plane: range(PLANES)


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
    weights : AlignedWeights, In
    sums : SumsPort, Out
    jobs : stream of SumsJob, Out
    error, error_strobe : Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "channels": In(4),
                "entries": In(stream.Signature(PacketEntry)),
                "cut": In(1),
                "cut_taken": Out(1),
                "rows": In(stream.Signature(Beat(8 * BUS_BYTES))),
                "weights": In(AlignedWeights(config)),
                "sums": Out(SumsPort(config)),
                "jobs": Out(stream.Signature(SumsJob(config))),
                "error": Out(ERROR_BITS),
                "error_strobe": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.window = window = ByteWindow()
        m.submodules.select = select = ValueCodes()
        wiring.connect(m, wiring.flipped(self.rows), window.i)
        weights, sums, entry = self.weights, self.sums, self.entries.payload
        packet = Signal(_Packet)
        place = Signal(_Place)
        broken = Signal()
        ended = Signal()
        job = Signal(SumsJob(self.config), reset_less=True)
        pending = self.jobs.valid  # a group is complete, until the sums have been taken
        m.d.comb += self.jobs.payload.eq(job)
        ends = self._ends(m, window, packet, place, *self._cut(m, window, select, packet, place))
        refused = self._refused(m)

        def fail(code):
            m.d.comb += [self.error.eq(code), self.error_strobe.eq(1)]
            m.d.sync += packet.marked.eq(1)

        def give_up(code, following):
            """The list is lost."""
            fail(code)
            m.d.comb += sums.abort.eq(1)
            m.d.sync += broken.eq(1)
            m.next = following

        with m.If(self.jobs.valid & self.jobs.ready):
            m.d.sync += pending.eq(0)

        def hand_over(end, set_):
            self._hand_over(m, job, packet, place, broken, end, set_)

        def begin():
            """Takes the next packet's entry."""
            m.d.comb += [self.entries.ready.eq(1), select.start.eq(1)]
            m.d.sync += [
                packet.ternary.eq(~entry.exact & (entry.header.format == KvFormat.V158)),
                packet.exact.eq(entry.exact),
                packet.final.eq(entry.final),
                packet.rows.eq(entry.header.rows),
                packet.odd.eq(entry.odd & ~entry.exact),
                packet.words.eq(~entry.exact & (entry.error == 0)),
                packet.marked.eq(0),
                ended.eq(0),
            ]
            m.next = "ENTRY"
            with m.If(self.entries.valid):
                m.next = "PREFIX"
                with m.If(refused != 0):
                    give_up(refused, "PREFIX")
                with m.If(~entry.exact & (entry.error != 0)):
                    m.next = "LOST"

        with m.FSM():
            with m.State("ENTRY"):
                begin()
            with m.State("PREFIX"):
                m.d.comb += window.start.eq(1)
                with m.If(self.cut):
                    # The metadata reader reports it.
                    m.d.comb += self.cut_taken.eq(1)
                    m.d.sync += [broken.eq(1), packet.marked.eq(1)]
                    m.next = "LOST"
                with m.Elif(window.held):
                    m.next = "ROWS"
                    with m.If(broken):
                        m.next = "DRAIN"
            with m.State("ROWS"):
                self._play(m, window, select, packet, place, ends, ended, (fail, give_up, hand_over))
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
                            hand_over(1, ~sums.set)
                    with m.Else():
                        give_up(KvError.LONG, "DRAIN")
            with m.State("DRAIN"):
                with m.If(window.held):
                    m.d.comb += window.skip.eq(1)
                    with m.If(window.held_last):
                        m.next = "LOST"
            with m.State("LOST"):
                # With the list's last packet go its weights, whatever is left of them.
                m.d.comb += weights.release.eq(weights.valid & packet.final)
                with m.If(~packet.final | (weights.valid & weights.final)):
                    m.next = "DROPPED"
            with m.State("DROPPED"):
                with m.If(~pending):
                    hand_over(1, ~sums.set)
                    m.d.sync += broken.eq(~packet.final)
                    m.next = "ENTRY"
        return m

    def _cut(self, m, window, select, packet, place):
        """Codes of a step; returns (it ends a row or plane, it is an exact row's last, which takes its scale along)."""
        step, upper = self.sums.steps.payload, self.channels[3]
        steps_end = place.step | ~upper if self.config.steps == 2 else C(1, 1)
        at_scale = Signal()
        m.d.comb += [
            select.window.eq(window.window),
            select.ternary.eq(packet.ternary),
            select.groups.eq(Mux(steps_end, self.channels[:3], LANES // 8 - 1)),
            at_scale.eq(packet.exact & steps_end & (place.plane == PLANES - 1)),
            # A slot of 8 channels is filled up to a beat.
            select.extra.eq(Mux(at_scale, Mux(self.channels == 0, 2 * SCALE_BYTES, SCALE_BYTES), 0)),
            window.bytes.eq(select.bytes),
            window.half.eq(packet.odd),
            step.codes.eq(select.codes),
            step.y.eq(self.weights.y),
            step.step.eq(place.step),
            step.exact.eq(packet.exact),
        ]
        return steps_end, at_scale

    def _ends(self, m, window, packet, place, steps_end, at_scale):
        """What a step ends: (a row or plane, an exact row, a row, a group); and whether its weights say otherwise."""
        step, weights, exact = self.sums.steps.payload, self.weights, packet.exact
        row_end = Signal()
        group_end = Signal()
        wrong = Signal()
        whole = Signal()
        run = Signal()
        last_row = place.row == packet.rows
        m.d.comb += [
            row_end.eq(Mux(exact, at_scale, steps_end)),
            group_end.eq(row_end & Mux(exact, weights.last, last_row)),
            # A block's weights end with its rows; a run's last ones with the run; the list's with the list.
            whole.eq(steps_end & (weights.last != last_row) | (weights.final != packet.final)),
            run.eq(Mux(weights.last, weights.final != (packet.final & window.ends), window.ends)),
            wrong.eq(weights.valid & ((weights.exact != exact) | Mux(exact, at_scale & window.complete & run, whole))),
            step.row_last.eq(steps_end),
            step.last.eq(steps_end & Mux(exact, (place.plane == PLANES - 1) & weights.last, last_row)),
            window.stay.eq(Mux(exact, window.ends, group_end)),
        ]
        return steps_end, at_scale, row_end, group_end, wrong

    def _play(self, m, window, select, packet, place, ends, ended, outcomes):
        """A step of the rows, if everything for it is there."""
        weights, sums, pending = self.weights, self.sums, self.jobs.valid
        steps_end, at_scale, row_end, group_end, wrong = ends
        fail, give_up, hand_over = outcomes
        # A run's group is handed over with its last row, a block's once its end is seen.
        ready = window.complete & weights.valid & ~wrong & ~(at_scale & group_end & pending)
        go = Signal()
        m.d.comb += [
            go.eq(ready & sums.steps.ready),
            window.take.eq(go),
            window.refill.eq(1),
            select.take.eq(go),
            sums.steps.valid.eq(ready),
            weights.next.eq(go & row_end),
        ]
        with m.If(go):
            m.d.sync += place.step.eq(~steps_end)
            with m.If(packet.exact & steps_end):
                m.d.sync += place.plane.eq(place.plane + 1)
            with m.If(row_end):
                m.d.sync += place.row.eq(place.row + 1)
            with m.If(select.invalid):
                fail(KvError.TRIT)
            with m.Elif(group_end & select.padding):
                fail(KvError.PADDING)
            with m.If(group_end & ~packet.exact):
                m.next = "END"
            with m.If(at_scale):
                with m.If(group_end):
                    hand_over(window.ends, sums.set)
                with m.If(window.ends):
                    m.d.sync += ended.eq(1)
                    m.next = "END"
        with m.Elif(window.complete & wrong):
            give_up(AttentionError.WEIGHT, "DRAIN")
        with m.Elif(window.short):
            give_up(KvError.SHORT, "DRAIN")

    def _refused(self, m):
        """Why the next packet is refused at sight; 0 if it is not."""
        entry = self.entries.payload
        header = entry.header
        refused = Signal(ERROR_BITS)
        with m.If(~entry.exact):
            with m.If(entry.error != 0):
                m.d.comb += refused.eq(entry.error)
            with m.Elif(((header.format != KvFormat.V158) & (header.format != KvFormat.V2)) | (header.transform0 != 0)):
                m.d.comb += refused.eq(KvError.FORMAT)
            with m.Elif(header.channels != self.channels):
                m.d.comb += refused.eq(AttentionError.LAYOUT)
        return refused

    def _hand_over(self, m, job, packet, place, broken, end, set_):
        """A group is complete, in ``set_`` of the sums; with ``end`` the packet is."""
        weights = self.weights
        m.d.sync += [
            self.jobs.valid.eq(1),
            job.total.eq(self.sums.total),
            job.exponent.eq(weights.exponent),
            job.set.eq(set_),
            job.words.eq(packet.words),
            job.ternary.eq(packet.ternary),
            job.exact.eq(packet.exact),
            job.marked.eq(packet.marked | weights.bad | broken),
            job.final.eq(packet.final & end),
            place.eq(0),
        ]
        with m.If(~broken):
            m.d.comb += weights.release.eq(1)
        with m.If(weights.bad & ~broken):
            m.d.comb += [self.error.eq(AttentionError.WEIGHT), self.error_strobe.eq(1)]

"""One PE of a column with all that it does not share: unpacker, decoder, pairing of weights with activations."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bitserial.decoder import TermDecoder
from hw.bitserial.dequantizer import RescaledPE, ScaledSum
from hw.bitserial.pe import FP16
from hw.bitserial.special_values import SPECIAL_VALUES, Special
from hw.bitserial.unpacker import RowUnpacker, WeightWord
from spec.config import ColumnConfig
from spec.errors import WeightError

__all__ = ["ROW_ERRORS", "ActivationBeat", "ColumnPE", "GroupResult"]

ROW_ERRORS = 6
"""Error bits that mark a result: the lowest of :class:`spec.errors.WeightError`."""


class ActivationBeat(data.StructLayout):
    """FP16 activations, lane 0 lowest; ``last`` on a packet's final beat."""

    def __init__(self, lanes):
        super().__init__({"lanes": data.ArrayLayout(FP16, lanes), "last": 1})


class GroupResult(data.StructLayout):
    """A rescaled group sum: ``sum`` (ScaledSum), ``row_last`` (the row's last group), ``error`` (mark the row)."""

    def __init__(self, accumulator_bits):
        super().__init__({"sum": ScaledSum(accumulator_bits), "row_last": 1, "error": 1})


class ColumnPE(wiring.Component):
    """Pairs a stream of row packets with a shared activation stream and multiplies them in a :class:`RescaledPE`.

    Throughput is one bit-serial step per cycle. A group's last step waits until the dequantizer and the shared FP32
    accumulator have had ``config.group_interval`` cycles for the one before, which only groups shorter than that ever
    notice; a row's last step waits until there is room for its result. Everything behind that point runs freely.

    A packet that ends before the activations is marked and the PE lets the rest of the activations pass; activations
    that end first make it drain its packet. So every pair of packets gives one result with ``row_last``, and the next
    pair starts clean.

    Parameters
    ----------
    config : ColumnConfig

    Members
    -------
    weights : stream of WeightWord, In
    specials : array of 8 Special, In
    activation : ActivationBeat, In
        Stays until ``advance``.
    activation_valid : In
    done : Out
        This PE is done with the activation beat.
    advance : In
        All PEs are done; the beat goes.
    room : In
        There is room for a row's result.
    row_issued : Out
        A row's last step is under way; its result will need room.
    errors : Out
        High for one cycle, with ``row_issued``: the row's errors (:class:`spec.errors.WeightError`).
    o : stream of GroupResult, Out
        A result must be taken within ``config.group_interval`` cycles.
    """

    def __init__(self, config: ColumnConfig):
        self.config = config
        super().__init__(
            {
                "weights": In(stream.Signature(WeightWord)),
                "specials": In(data.ArrayLayout(Special, SPECIAL_VALUES)),
                "activation": In(ActivationBeat(config.lanes)),
                "activation_valid": In(1),
                "done": Out(1),
                "advance": In(1),
                "room": In(1),
                "row_issued": Out(1),
                "errors": Out(ROW_ERRORS),
                "o": Out(stream.Signature(GroupResult(config.accumulator_bits))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.unpacker = unpacker = RowUnpacker(config.lanes)
        m.submodules.decoder = decoder = TermDecoder(config.lanes, config.signed_special_terms)
        m.submodules.pe = pe = RescaledPE(config.lanes, config.rounding, config.digit_bits, config.accumulator_bits)
        wiring.connect(m, wiring.flipped(self.weights), unpacker.i)
        beat, terms = unpacker.o.payload, decoder.o.payload
        m.d.comb += [decoder.specials.eq(self.specials), decoder.i.payload.eq(beat.code)]

        # A group's last step keeps its distance from the one before.
        distance = Signal(range(config.group_interval))
        clear = distance == 0
        with m.If(~clear):
            m.d.sync += distance.eq(distance - 1)

        row_errors = Signal(ROW_ERRORS)
        step_errors = Signal(ROW_ERRORS)
        finished = Signal()  # done with this activation beat, others are not
        issue, flush = Signal(), Signal()
        end_row, group_end = Signal(), Signal()
        given_up = beat.errors.any()
        mask = beat.code.mask
        non_finite = Cat(lane.exponent.all() for lane in self.activation.lanes) & mask

        with m.FSM():
            with m.State("RUN"):
                with m.If(finished):
                    m.d.comb += self.done.eq(1)
                with m.Elif(unpacker.o.valid & given_up):
                    # Nothing left to multiply: an empty step ends the row, then the activations pass by.
                    m.d.comb += [flush.eq(clear & self.room), step_errors.eq(beat.errors)]
                    with m.If(flush):
                        m.next = "WAIT"
                with m.Elif(unpacker.o.valid & self.activation_valid):
                    may_end = Mux(beat.group_last, clear, 1) & Mux(beat.row_last, self.room, 1)
                    m.d.comb += [
                        decoder.i.valid.eq(1),
                        decoder.o.ready.eq(~terms.final | may_end),
                        issue.eq(decoder.o.ready),
                        step_errors.eq(
                            Mux(non_finite.any(), WeightError.NON_FINITE, 0)
                            | Mux(terms.reserved, WeightError.RESERVED_CODE, 0)
                            | Mux(self.activation.last != beat.row_last, WeightError.ACTIVATION_LENGTH, 0)
                        ),
                        self.done.eq(issue & terms.final),
                    ]
                    with m.If(self.done):
                        m.d.sync += finished.eq(~self.advance)
                        with m.If(beat.row_last & ~self.activation.last):
                            m.next = "WAIT"
                        with m.Elif(self.activation.last & ~beat.row_last):
                            m.next = "SKIP"
                with m.If(finished & self.advance):
                    m.d.sync += finished.eq(0)
            with m.State("WAIT"):  # the row is over, its activations are not
                m.d.comb += self.done.eq(self.activation_valid)
                with m.If(self.advance):
                    m.d.sync += finished.eq(0)
                    with m.If(self.activation.last):
                        m.next = "RUN"
            with m.State("SKIP"):  # the activations are over, the row is not
                with m.If(finished):
                    m.d.comb += self.done.eq(1)
                    with m.If(self.advance):
                        m.d.sync += finished.eq(0)
                with m.If(unpacker.o.valid & beat.row_last):
                    m.d.comb += [flush.eq(clear & self.room & ~finished), step_errors.eq(beat.errors)]
                    with m.If(flush):
                        m.next = "RUN"
                with m.Else():
                    m.d.comb += unpacker.o.ready.eq(1)

        m.d.comb += [
            group_end.eq(flush | (issue & terms.final & beat.group_last)),
            end_row.eq(flush | (issue & terms.final & beat.row_last)),
            self.row_issued.eq(end_row),
            self.errors.eq(Mux(end_row, row_errors | step_errors, 0)),
        ]
        with m.If(flush | (issue & terms.final)):
            m.d.comb += unpacker.o.ready.eq(1)
        with m.If(end_row):
            m.d.sync += row_errors.eq(0)
        with m.Elif(issue):
            m.d.sync += row_errors.eq(row_errors | step_errors)
        with m.If(group_end):
            m.d.sync += distance.eq(config.group_interval - 1)

        m.d.comb += [pe.valid.eq(issue | flush), pe.step.bsig.eq(terms.bsig), pe.step.last.eq(group_end)]
        for lane in range(config.lanes):
            m.d.comb += [
                pe.step.activations[lane].eq(self.activation.lanes[lane]),
                pe.step.terms[lane].eq(terms.terms[lane]),
                pe.step.terms[lane].man.eq(terms.terms[lane].man & issue),
            ]
        self._follow(m, pe, group_end, end_row, beat.scale)
        return m

    def _follow(self, m, pe, group_end, end_row, scale):
        """What must accompany a group through the PE: its scaling factor, and whether it ends the row in error."""
        side = data.StructLayout({"scale": 8, "row_last": 1, "error": 1})
        stage = Signal(side)
        m.d.comb += [
            stage.scale.eq(scale),
            stage.row_last.eq(end_row),
            stage.error.eq(self.errors.any()),
        ]
        for k in range(pe.pe.latency):
            previous, stage = stage, Signal(side, name=f"side{k}", reset_less=True)
            m.d.sync += stage.eq(previous)
        rescaling = Signal(side, reset_less=True)
        with m.If(pe.pe.o_valid):
            m.d.sync += rescaling.eq(stage)
        m.d.comb += pe.scale.eq(stage.scale)

        held = Signal(GroupResult(self.config.accumulator_bits), reset_less=True)
        held_valid = Signal()
        with m.If(self.o.ready):
            m.d.sync += held_valid.eq(0)
        with m.If(pe.o_valid):
            m.d.sync += [
                held_valid.eq(1),
                held.sum.eq(pe.o),
                held.row_last.eq(rescaling.row_last),
                held.error.eq(rescaling.error),
            ]
        m.d.comb += [self.o.valid.eq(held_valid), self.o.payload.eq(held)]

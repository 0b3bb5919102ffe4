"""A column of PEs sharing one activation stream: packed weights and FP16 activations in, FP32 dot products out."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bitserial.accumulator import ColumnResult, GroupAccumulator
from hw.bitserial.column_pe import ActivationBeat, ColumnPE
from hw.bitserial.special_values import SpecialValueRegisters, SpecialWrite
from hw.bitserial.unpacker import WeightWord
from spec import checks
from spec.config import ColumnConfig
from spec.errors import WeightError

__all__ = ["ColumnStatus", "PEColumn"]


class ColumnStatus(data.Struct):
    """``errors``: sticky :class:`spec.errors.WeightError` bits; ``count``: marked results and refused special values
    since the last clear, up to 65535."""

    errors: len(WeightError)
    count: 16


class PEColumn(wiring.Component):
    """Several :class:`ColumnPE`, one output channel each, sharing an activation stream (BitMoD section IV-C).

    ```
    activations ---> [register] --+--------------+-- ... (held until every PE is done with the beat)
                                  v              v
    weights[0] -> unpack -> decode -> PE -> dequantize --+
    weights[1] -> unpack -> decode -> PE -> dequantize --+-> FP32 accumulate -> o
    ```

    For every activation packet (``ceil(K / lanes)`` beats) each PE takes one row packet of K weights and gives one FP32
    dot product, the sum over groups of scale8 times the group's sum (docs/weights.md, bit for bit); the channel scale
    is the receiver's to apply. Datatypes may differ between groups and PEs.

    Throughput: a beat takes as many cycles as the slowest PE's datatype has terms (INT8 4, INT6 and INT5 3, INT4, INT3,
    FP4, FP3, U2, S2 2, ternary and binary 1), without a bubble between groups. Back-pressure on ``o`` stops the PEs
    once ``pes`` results wait.

    Latency: a row's result is offered 8 / digit_bits + 8 cycles after its last step (which is as many cycles after the
    last activation beat was accepted as its datatype has terms), plus the PE's turn at the shared accumulator.

    Errors (reserved field or code, parity, length, Inf or NaN activation) mark the PE's result and leave every stream
    in step: packets are drained to their ``last``. One special value is written between two activation packets; it
    holds for all packets whose activations are accepted later.

    Parameters
    ----------
    config : ColumnConfig

    Members
    -------
    weights : array of streams of WeightWord, In
        One per PE: row packets (``spec.packet``).
    activations : stream of ActivationBeat, In
    special : stream of SpecialWrite, In
    o : stream of ColumnResult, Out
        In order for each PE, and in the order of the PEs unless an error lets one end early.
    status : ColumnStatus, Out
    clear : In
        Clears ``status`` (an error of the same cycle stays).
    """

    def __init__(self, config: ColumnConfig | None = None):
        config = ColumnConfig() if config is None else config
        checks.instance("config", config, ColumnConfig)
        self.config = config
        super().__init__(
            {
                "weights": In(stream.Signature(WeightWord)).array(config.pes),
                "activations": In(stream.Signature(ActivationBeat(config.lanes))),
                "special": In(stream.Signature(SpecialWrite)),
                "o": Out(stream.Signature(ColumnResult(config.pes))),
                "status": Out(ColumnStatus),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.specials = specials = SpecialValueRegisters(config.signed_special_terms)
        m.submodules.accumulator = accumulator = GroupAccumulator(config)
        pes = [ColumnPE(config) for _ in range(config.pes)]
        for k, pe in enumerate(pes):
            m.submodules[f"pe{k}"] = pe

        # The activation beat in work. A special value waits for the end of a packet, and packets wait for it.
        beat = Signal(ActivationBeat(config.lanes), reset_less=True)
        held = Signal()
        within = Signal()  # beats of a packet have come in, its last has not
        advance = Signal()
        hold_back = self.special.valid & ~within
        m.d.comb += [
            advance.eq(held & Cat(pe.done for pe in pes).all()),
            self.activations.ready.eq((~held | advance) & ~hold_back),
            specials.i.payload.eq(self.special.payload),
            specials.i.valid.eq(hold_back & ~held),
            self.special.ready.eq(~within & ~held),
        ]
        with m.If(self.activations.valid & self.activations.ready):
            m.d.sync += [held.eq(1), beat.eq(self.activations.payload), within.eq(~self.activations.payload.last)]
        with m.Elif(advance):
            m.d.sync += held.eq(0)

        for k, pe in enumerate(pes):
            wiring.connect(m, wiring.flipped(self.weights[k]), pe.weights)
            wiring.connect(m, pe.o, accumulator.i[k])
            m.d.comb += [
                pe.specials.eq(specials.o),
                pe.activation.eq(beat),
                pe.activation_valid.eq(held),
                pe.advance.eq(advance),
                pe.room.eq(accumulator.room),
            ]
        m.d.comb += accumulator.row_issued.eq(Cat(pe.row_issued for pe in pes))
        wiring.connect(m, accumulator.o, wiring.flipped(self.o))
        self._keep_status(m, pes, specials.refused)
        return m

    def _keep_status(self, m, pes, refused):
        errors = Signal(len(WeightError))
        count = Signal(16)
        new = Signal(len(WeightError))
        m.d.comb += new.eq(
            Cat(*(Cat(pe.errors[bit] for pe in pes).any() for bit in range(len(pes[0].errors))), refused)
        )
        happened = sum((pe.errors.any() for pe in pes), start=refused)
        total = Signal(17)
        m.d.comb += total.eq(Mux(self.clear, 0, count) + happened)
        m.d.sync += [
            errors.eq(Mux(self.clear, 0, errors) | new),
            count.eq(Mux(total[-1], 0xFFFF, total[:16])),
        ]
        m.d.comb += [self.status.errors.eq(errors), self.status.count.eq(count)]

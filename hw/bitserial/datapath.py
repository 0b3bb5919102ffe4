"""The core's bit-serial datapath: blocks with the interfaces of the pre-aligned ones, around ``BitSerialPE``."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP16, FP32
from hw.bitserial.decoder import TermDecoder
from hw.bitserial.dequantizer import BitSerialDequantizer, ScaledSumToFp32
from hw.bitserial.pe import BitSerialPE, PartialSum, Term
from hw.prealigned.beats import GroupBeat
from hw.prealigned.decoder import CodeStep
from hw.special_values import SPECIAL_VALUES, Special
from hw.streams.registers import delay
from spec.bitserial import BitSerialConfig

__all__ = ["DrainedPE", "RawActivations", "RawMultiples", "SerialDequantizer", "StepDecoder", "TermControl", "TermStep"]


class TermStep(data.StructLayout):
    """One bit-serial term per lane, and their common ``bsig``."""

    def __init__(self, lanes: int):
        super().__init__({"terms": data.ArrayLayout(Term, lanes), "bsig": 3})


class TermControl(data.Struct):
    """``valid``: there is a step; ``last``: it is the group's last."""

    valid: 1
    last: 1


class RawActivations(wiring.Component):
    """Stands where the aligner stands: FP16 activations pass unchanged, and ``poison`` says whether the group has had
    an Inf or NaN up to this beat. The exponent is 0.

    Latency 1 cycle, a beat per cycle.

    Members
    -------
    i : stream of GroupBeat, In
    o : stream, Out
        ``integers`` (FP16 bit patterns), ``exponent``, ``poison``, ``last`` beat of the group.
    """

    def __init__(self, config: BitSerialConfig):
        self.config = config
        o = {"integers": data.ArrayLayout(16, config.lanes), "exponent": 5, "poison": 1, "last": 1}
        super().__init__(
            {"i": In(stream.Signature(GroupBeat(config.lanes))), "o": Out(stream.Signature(data.StructLayout(o)))}
        )

    def elaborate(self, platform):
        m = Module()
        valid = Signal()
        held = Signal.like(self.o.payload, reset_less=True)
        o = self.o
        poison = Signal()  # of the group's beats so far
        now = Cat(lane.exponent.all() for lane in self.i.p.activations).any()
        m.d.comb += [self.i.ready.eq(~valid | o.ready), o.valid.eq(valid), o.payload.eq(held)]
        with m.If(self.i.ready):
            m.d.sync += valid.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += [
                    *(held.integers[k].eq(lane.as_value()) for k, lane in enumerate(self.i.p.activations)),
                    held.exponent.eq(0),
                    held.poison.eq(poison | now),
                    held.last.eq(self.i.p.last),
                    poison.eq((poison | now) & ~self.i.p.last),
                ]
        return m


class RawMultiples(wiring.Component):
    """Stands where odd multiples are computed: there are none, activations pass. Latency 0."""

    latency = 0

    def __init__(self, config: BitSerialConfig):
        super().__init__(
            {
                "i": In(data.StructLayout({"integers": data.ArrayLayout(16, config.lanes)})),
                "o": Out(data.ArrayLayout(FP16, config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.as_value().eq(self.i.as_value())
        return m


class StepDecoder(wiring.Component):
    """Gives one term of each lane's code per step (equations D1 to D3 of docs/weights.md).

    A beat comes in consecutive steps with ``plane`` from the number of its datatype's terms, minus 1, down to 0. A
    reserved datatype, which comes with a fault, has no terms.

    Latency ``latency`` cycles, a step per cycle, no back-pressure.

    Members
    -------
    i : CodeStep, In
        ``first`` does not matter here.
    i_valid : In
    specials : array of 8 Special, In
    digits : TermStep, Out
    control : TermControl, Out
    """

    latency = 1

    def __init__(self, config: BitSerialConfig):
        self.config = config
        super().__init__(
            {
                "i": In(CodeStep(config.lanes)),
                "i_valid": In(1),
                "specials": In(data.ArrayLayout(Special, SPECIAL_VALUES)),
                "digits": Out(TermStep(config.lanes)),
                "control": Out(TermControl),
            }
        )

    def elaborate(self, platform):
        m = Module()
        i = self.i
        m.submodules.decoder = decoder = TermDecoder(self.config.lanes, self.config.signed_special_terms)
        code, terms = decoder.i.p, decoder.o.p
        m.d.comb += [
            decoder.specials.eq(self.specials),
            decoder.i.valid.eq(self.i_valid),
            code.datatype.eq(i.datatype),
            code.select.eq(i.select),
            code.codes.eq(i.codes),
            code.mask.eq(i.mask),
            decoder.o.ready.eq(1),
        ]
        digits = Signal.like(self.digits, reset_less=True)
        control = Signal(TermControl)
        m.d.sync += [
            digits.bsig.eq(terms.bsig),
            control.valid.eq(self.i_valid),
            control.last.eq(self.i_valid & i.last & (i.plane == 0)),
        ]
        for lane, term in enumerate(terms.terms):
            m.d.sync += [
                digits.terms[lane].eq(term),
                digits.terms[lane].man.eq(term.man & self.i_valid),
            ]
        m.d.comb += [self.digits.eq(digits), self.control.eq(control)]
        return m


class DrainedPE(wiring.Component):
    """A :class:`BitSerialPE` in a drain chain: a group's partial sum is in the drain register ``latency`` cycles after
    its last step. In every other cycle the register takes ``chain``, the next PE's ``o``.

    Members
    -------
    digits : TermStep, In
    multiples : array of FP16, In
    control : TermControl, In
    chain : PartialSum, In
    o : PartialSum, Out
    """

    def __init__(self, config: BitSerialConfig):
        self._pe = BitSerialPE(config.lanes, config.rounding, config.accumulator_bits)
        self.latency = self._pe.latency + 1
        super().__init__(
            {
                "digits": In(TermStep(config.lanes)),
                "multiples": In(data.ArrayLayout(FP16, config.lanes)),
                "control": In(TermControl),
                "chain": In(PartialSum(config.accumulator_bits)),
                "o": Out(PartialSum(config.accumulator_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.pe = pe = self._pe
        drain = Signal.like(self.o, reset_less=True)
        m.d.comb += [
            pe.valid.eq(self.control.valid),
            pe.step.last.eq(self.control.last),
            pe.step.bsig.eq(self.digits.bsig),
            pe.step.terms.eq(self.digits.terms),
            pe.step.activations.eq(self.multiples),
            self.o.eq(drain),
        ]
        m.d.sync += drain.eq(Mux(pe.o_valid, pe.o.as_value(), self.chain.as_value()))
        return m


class SerialDequantizer(wiring.Component):
    """Partial sum times scale8, exact, to FP32, exact (equations G1 and G2 of docs/weights.md).

    The PEs of a drain chain share it: a sum per cycle, so all 8 bits of the scale at once.

    Latency ``latency`` cycles.

    Members
    -------
    i : PartialSum, In
    exponent : In
        Not used: a partial sum has its own.
    scale : unsigned 8, In
    o : FP32, Out
    """

    latency = 3

    def __init__(self, config: BitSerialConfig):
        self.config = config
        super().__init__(
            {"i": In(PartialSum(config.accumulator_bits)), "exponent": In(5), "scale": In(8), "o": Out(FP32)}
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.config.accumulator_bits
        m.submodules.dequantizer = dequantizer = BitSerialDequantizer(8, bits)
        m.submodules.to_fp32 = to_fp32 = ScaledSumToFp32(bits)
        m.d.comb += [
            dequantizer.i.eq(self.i),
            dequantizer.scale.eq(self.scale),
            dequantizer.i_valid.eq(1),
            to_fp32.i.eq(delay(m, dequantizer.o.as_value(), "scaled")),
            self.o.eq(delay(m, to_fp32.o.as_value(), "converted")),
        ]
        return m

"""Mixed-datatype decoder: weight codes of any datatype to bit-serial terms."""

from amaranth import C, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bitserial.pe import Term
from hw.special_values import SPECIAL_VALUES, Special
from spec import checks
from spec.datatypes import DATATYPE_BITS, FLOATS, INTEGERS, MAX_CODE_BITS, Datatype

__all__ = ["CodeBeat", "TermBeat", "TermDecoder"]

MAX_STEPS = 4


class CodeBeat(data.StructLayout):
    """A beat of codes of one group.

    Members: ``datatype``, ``select``, ``codes`` (one per lane, right-aligned in 8 bits; the bits above the datatype's
    width are ignored), ``mask`` (lanes in use).
    """

    def __init__(self, lanes):
        super().__init__(
            {
                "datatype": DATATYPE_BITS,
                "select": 2,
                "codes": data.ArrayLayout(MAX_CODE_BITS, lanes),
                "mask": lanes,
            }
        )


class TermBeat(data.StructLayout):
    """One step of a beat: ``terms`` (one per lane), their common ``bsig``, ``final`` (the beat's last step) and
    ``reserved`` (the datatype or a code in use has no value; its terms are zero)."""

    def __init__(self, lanes):
        super().__init__({"terms": data.ArrayLayout(Term, lanes), "bsig": 3, "final": 1, "reserved": 1})


class TermDecoder(wiring.Component):
    """Turns each beat of codes into its datatype's bit-serial terms (BitMoD section III-D, Fig. 4).

    Equations D1 to D3 of docs/weights.md, exact. A beat takes ``datatype.terms`` steps of one cycle each:
    INT8 4, INT6 and INT5 3, ternary and binary 1, the others 2; a reserved datatype 1, without terms. No register
    lies between ``i`` and ``o``: latency 0; the only state is the step counter.

    Parameters
    ----------
    lanes : int
        Codes per beat, a positive number.
    signed_special_terms : bool
        Special values may be differences of two terms (7 = 8 - 1).

    Members
    -------
    i : stream of CodeBeat, In
    o : stream of TermBeat, Out
    specials : array of 8 Special, In
        FP3's four special values, then FP4's.

    Raises
    ------
    ValueError
        For a number of lanes that is not positive.
    """

    def __init__(self, lanes=4, signed_special_terms=False):
        checks.whole("lanes", lanes, 1)
        self.lanes = lanes
        self.signed_special_terms = signed_special_terms
        super().__init__(
            {
                "i": In(stream.Signature(CodeBeat(lanes))),
                "o": Out(stream.Signature(TermBeat(lanes))),
                "specials": In(data.ArrayLayout(Special, SPECIAL_VALUES)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat, out = self.i.payload, self.o.payload
        step = Signal(range(MAX_STEPS))
        steps_left = Signal(range(MAX_STEPS))
        is_integer = Signal()
        known = Signal()
        with m.Switch(beat.datatype):
            for datatype in Datatype:
                with m.Case(datatype):
                    m.d.comb += [
                        known.eq(1),
                        is_integer.eq(datatype in INTEGERS),
                        steps_left.eq(datatype.terms - 1),
                    ]
            with m.Default():
                pass

        final = step == steps_left
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & final),
            out.final.eq(final),
            out.bsig.eq(Mux(is_integer, Cat(C(0, 1), step), steps_left[0] & ~step[0])),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += step.eq(Mux(final, 0, step + 1))

        special = Signal(Special)
        m.d.comb += special.eq(self.specials[Cat(beat.select, beat.datatype == Datatype.FP4)])
        reserved = []
        for lane in range(self.lanes):
            term, lane_reserved = self._lane(m, lane, beat, step, special, is_integer)
            enabled = known & beat.mask[lane]
            m.d.comb += [
                out.terms[lane].sign.eq(term.sign),
                out.terms[lane].exp.eq(term.exp),
                out.terms[lane].man.eq(term.man & enabled),
            ]
            reserved.append(lane_reserved & beat.mask[lane])
        m.d.comb += out.reserved.eq(~known | Cat(reserved).any())
        return m

    def _lane(self, m, lane, beat, step, special, is_integer):
        code = beat.codes[lane]
        extended = Signal(signed(MAX_CODE_BITS), name=f"extended{lane}")
        magnitude = Signal(5, name=f"magnitude{lane}")
        sign = Signal(name=f"sign{lane}")
        reserved = Signal(name=f"reserved{lane}")
        m.d.comb += extended.eq(code)
        with m.Switch(beat.datatype):
            for datatype in INTEGERS:
                with m.Case(datatype):
                    m.d.comb += extended.eq(code[: datatype.bits].as_signed())
            for datatype in FLOATS:
                bits = datatype.bits
                with m.Case(datatype):
                    with m.If(code[:bits] == 1 << (bits - 1)):
                        m.d.comb += [magnitude.eq(special.magnitude), sign.eq(special.sign)]
                    with m.Else():
                        table = Cat(Const(value, 5) for value in datatype.magnitudes)
                        m.d.comb += [magnitude.eq(table.word_select(code[: bits - 1], 5)), sign.eq(code[bits - 1])]
            with m.Case(Datatype.TERNARY):
                m.d.comb += [magnitude.eq(code[0]), sign.eq(code[1]), reserved.eq(code[:2] == 0b10)]
            with m.Case(Datatype.BINARY):
                m.d.comb += [magnitude.eq(1), sign.eq(~code[0])]
            with m.Case(Datatype.U2):
                m.d.comb += magnitude.eq(code[:2])
            with m.Case(Datatype.S2):
                m.d.comb += [magnitude.eq(Cat(C(1, 1), ~(code[1] ^ code[0]))), sign.eq(~code[1])]
            with m.Default():
                pass

        term = Signal(Term, name=f"term{lane}")
        one_step = (beat.datatype == Datatype.TERNARY) | (beat.datatype == Datatype.BINARY)
        with m.If(is_integer):
            self._booth(m, term, extended, step)
        with m.Elif(one_step):
            m.d.comb += [term.man.eq(magnitude[0]), term.sign.eq(sign)]
        with m.Else():
            self._fixed_point(m, term, magnitude, sign, step)
        return term, reserved

    @staticmethod
    def _booth(m, term, extended, step):
        """D1: the radix-4 Booth digit of significance 2 * step."""
        with m.Switch(step):
            for index in range(MAX_STEPS):
                with m.Case(index):
                    digit = Cat(C(0, 1), extended)[2 * index : 2 * index + 3]
                    m.d.comb += [
                        term.sign.eq(digit[2]),
                        term.exp.eq(digit[0] == digit[1]),
                        term.man.eq((digit != 0) & (digit != 0b111)),
                    ]

    def _fixed_point(self, m, term, magnitude, sign, step):
        """D2: the leading one of bits 4..1, then the rest, which is one bit or none."""
        leading = Signal(2)
        trailing = Signal(2)
        for bit in range(1, 5):
            with m.If(magnitude[bit]):
                m.d.comb += leading.eq(bit - 1)
        for bit in reversed(range(4)):
            with m.If(magnitude[bit]):
                m.d.comb += trailing.eq(bit)
        # Only values that are differences of powers of two (7, 14, 15) have three bits in a row.
        difference = Signal()
        if self.signed_special_terms:
            m.d.comb += difference.eq(magnitude[1] & magnitude[2] & (magnitude[0] | magnitude[3]))
        # The trailing one is the rest if it is not the leading one itself (or that is bit 0, which step 0 cannot take).
        has_rest = Signal()
        pairs = Cat(magnitude[bit] & magnitude[:bit].any() for bit in range(1, 5))
        m.d.comb += has_rest.eq(pairs.any() | ~magnitude[1:].any() & magnitude[0])
        with m.If(step == 0):
            m.d.comb += [term.exp.eq(leading + difference), term.man.eq(magnitude[1:].any()), term.sign.eq(sign)]
        with m.Else():
            m.d.comb += [term.exp.eq(trailing), term.man.eq(has_rest), term.sign.eq(sign ^ difference)]

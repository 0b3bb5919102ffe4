"""Weight codes of any datatype to digits, one plane at a time."""

from functools import reduce
from operator import or_

from amaranth import C, Cat, Const, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.prealigned.digits import MAX_STEPS, code_digits, steps, value_digits
from hw.prealigned.pe import Control, DigitBeat
from hw.special_values import SPECIAL_VALUES, Special
from spec.datatypes import DATATYPE_BITS, FLOATS, MAX_CODE_BITS, SPECIAL_LIMIT, Datatype
from spec.prealigned import PrealignedConfig

__all__ = ["CodeStep", "DigitDecoder"]

ZERO, ONE = -100, 100  # sources of a key's bits that are no bits of the code


class CodeStep(data.StructLayout):
    """A beat of codes and which of their digits is wanted.

    Members: ``datatype``, ``select`` (of the special value), ``plane`` (0 the lowest), ``codes`` (right-aligned in 8
    bits; the bits above the datatype's width are ignored), ``mask`` (lanes in use), ``first`` and ``last`` beat of the
    group.
    """

    def __init__(self, lanes):
        super().__init__(
            {
                "datatype": DATATYPE_BITS,
                "select": 2,
                "plane": ceil_log2(MAX_STEPS),
                "codes": data.ArrayLayout(MAX_CODE_BITS, lanes),
                "mask": lanes,
                "first": 1,
                "last": 1,
            }
        )


class DigitDecoder(wiring.Component):
    """Gives the digits of one plane of a beat of codes, and what the PEs' accumulators do with them.

    A group is sent once per plane, from plane ``steps(datatype) - 1`` down to 0 (docs/prealigned.md, section 3;
    ``planes`` says how many). A cycle without ``valid`` and a lane out of ``mask`` give
    the digit 0, a reserved code any.

    Latency ``latency`` cycles, a step per cycle, no back-pressure.

    Parameters
    ----------
    config : PrealignedConfig

    Members
    -------
    i : CodeStep, In
    i_valid : In
    specials : array of 8 Special, In
        FP3's four special values, then FP4's. Must be among ``hw.prealigned.digits.allowed_specials``.
    digits : DigitBeat, Out
    control : Control, Out
    reserved : Out
        The datatype is not of this build, or a code in use has no value.
    """

    latency = 3

    def __init__(self, config: PrealignedConfig):
        self.config = config
        lanes = config.lanes
        super().__init__(
            {
                "i": In(CodeStep(lanes)),
                "i_valid": In(1),
                "specials": In(data.ArrayLayout(Special, SPECIAL_VALUES)),
                "digits": Out(DigitBeat(config.digits, lanes)),
                "control": Out(Control),
                "reserved": Out(1),
            }
        )

    def planes(self, datatype: Datatype) -> int:
        """Planes of the datatype, which is cycles per beat."""
        return steps(datatype, self.config.digits)

    def elaborate(self, platform):
        m = Module()
        config, lanes = self.config, self.config.lanes
        # A lane looks at some bits of an integer and the bit below them, or at an FP3 or FP4 code.
        floats = [d for d in config.datatypes if d in FLOATS]
        tables = [(d, plane) for d in floats for plane in range(self.planes(d))]
        views = {self._view(d, p) for d in config.datatypes if d not in floats for p in range(self.planes(d))}
        # Where a bit of the integer's key may come from, for every bit of it.
        sources = [sorted({view[bit] for view in views} - {ZERO}) for bit in range(config.plane_bits + 1)]

        # Cycle 1: what the datatype and the plane mean, for all lanes.
        meaning = data.StructLayout(
            {
                "sources": sum(map(len, sources)),  # one-hot for every bit of the key, or none
                "table": len(tables),  # one-hot, or none
                "float": len(floats),  # one-hot
                "ternary": 1,
                "known": 1,
                "keep": 1,
                "shift": 1,
                "last": 1,
                "valid": 1,
            }
        )
        about = Signal(meaning)
        later = Signal(meaning)
        codes = Signal.like(self.i.codes, reset_less=True)
        mask = Signal(lanes, reset_less=True)
        special = Signal(Special, reset_less=True)
        place = Signal(1 + len(self.i.plane), reset_less=True)
        is_fp4 = ~self.i.datatype[0]  # FP4 is 6 and FP3 7; of others it does not matter
        self._look_up(m, about, sources, tables, floats)
        m.d.sync += [
            codes.eq(self.i.codes),
            mask.eq(self.i.mask & self.i_valid.replicate(lanes)),
            special.eq(self.specials[Cat(self.i.select, is_fp4)]),
            place.eq(Cat(is_fp4, self.i.plane)),
        ]

        # Cycle 2: every lane's key, 0 if there is none, and whether it is a special value; the special value's digit.
        is_special = Signal(lanes, reset_less=True)
        no_value = Signal(lanes)
        bad = Signal()
        special_digit = Signal(len(config.digits.multiples) + 1, reset_less=True)
        m.d.sync += [
            later.eq(about),
            bad.eq(about.valid & (~about.known | (about.ternary & no_value.any()))),
            special_digit.eq(self._special_digit(m, special, place)),
        ]
        keys = []
        for lane, code in enumerate(codes):
            minus_zero = [about.float[k] & (code[: d.bits] == 1 << (d.bits - 1)) for k, d in enumerate(floats)]
            lines = iter(about.sources)
            integer = (
                reduce(or_, (self._source(code, source) & next(lines) for source in known), C(0, 1))
                for known in sources
            )
            number = Cat(
                code[bit] & Cat(about.float[k] for k, d in enumerate(floats) if d.bits > bit).any()
                for bit in range(max((d.bits for d in floats), default=0))
            )
            key = Signal(
                data.StructLayout({"integer": len(sources), "float": len(number)}), name=f"key{lane}", reset_less=True
            )
            keys.append(key)
            m.d.sync += [
                key.eq(Cat(*integer, number) & mask[lane].replicate(len(key.as_value()))),
                is_special[lane].eq(reduce(or_, minus_zero, C(0, 1)) & mask[lane]),
            ]
            m.d.comb += no_value[lane].eq((code[:2] == 0b10) & mask[lane])

        # Cycle 3: the digits.
        digits = Signal(self.digits.shape(), reset_less=True)
        control = Signal(Control)
        reserved = Signal()
        for lane, key in enumerate(keys):
            digit = self._digit(m, lane, key, later.table, tables)
            digit |= special_digit & is_special[lane].replicate(len(special_digit))
            m.d.sync += [digits.select[lane].eq(digit[:-1]), digits.negative[lane].eq(digit[-1])]
        m.d.sync += [
            control.keep.eq(later.keep | ~later.valid),
            control.shift.eq(later.shift & later.valid),
            control.last.eq(later.last & later.valid),
            reserved.eq(bad),
        ]
        m.d.comb += [self.digits.eq(digits), self.control.eq(control), self.reserved.eq(reserved)]
        return m

    def _view(self, datatype, plane):
        """Where each bit of the key comes from: a bit of the code, ``~`` one inverted, or the constants ZERO and ONE.

        The KV cache's types are two's complement numbers of few bits, or nearly.
        """
        bits = datatype.bits
        number = {
            Datatype.BINARY: (ONE, ~0),
            Datatype.U2: (0, 1, ZERO),
            Datatype.S2: (ONE, 0, ~1),
        }.get(datatype, tuple(range(bits)))
        first = self.config.plane_bits * plane - 1
        places = range(first, first + self.config.plane_bits + 1)
        return tuple(number[min(place, len(number) - 1)] if place >= 0 else ZERO for place in places)

    @staticmethod
    def _source(code, source):
        if source in (ZERO, ONE):
            return C(source == ONE, 1)
        return code[source] if source >= 0 else ~code[~source]

    def _look_up(self, m, about, sources, tables, floats):
        i = self.i
        top = Signal()
        m.d.sync += [
            about.eq(0),
            about.valid.eq(self.i_valid),
            about.keep.eq(~i.first),
            about.shift.eq(i.first & ~top),
            about.last.eq(i.last & (i.plane == 0)),
            about.ternary.eq(i.datatype == Datatype.TERNARY),
            about.float.eq(Cat(i.datatype == datatype for datatype in floats)),
        ]
        with m.Switch(Cat(i.plane, i.datatype)):
            for datatype in self.config.datatypes:
                count = self.planes(datatype)
                for plane in range(count):
                    is_float = datatype in floats
                    table = 1 << tables.index((datatype, plane)) if is_float else 0
                    view = [ZERO] * len(sources) if is_float else self._view(datatype, plane)
                    lines = [source == view[bit] for bit, known in enumerate(sources) for source in known]
                    with m.Case(plane | datatype << len(i.plane)):
                        m.d.sync += [
                            about.known.eq(1),
                            about.table.eq(table),
                            about.sources.eq(Cat(map(C, lines))),
                        ]
                        m.d.comb += top.eq(plane == count - 1)
            with m.Default():
                m.d.comb += top.eq(1)

    def _encode(self, digit):
        """One-hot select below the sign."""
        multiples = self.config.digits.multiples
        select = 1 << multiples.index(abs(digit)) if digit else 0
        return Const(select | (digit < 0) << len(multiples), len(multiples) + 1)

    def _special_digit(self, m, special, place):
        """The digit of a special value: a table over magnitude, FP3 or FP4, and plane; the sign follows."""
        digits = self.config.digits
        found = Signal(len(digits.multiples) + 1)
        with m.Switch(Cat(special.magnitude, place)):
            for index, datatype in enumerate(FLOATS):
                if datatype not in self.config.datatypes:
                    continue
                for magnitude in range(SPECIAL_LIMIT + 1):
                    expansion = value_digits(magnitude, self.planes(datatype), digits) or ()
                    for plane, digit in enumerate(expansion):
                        with m.Case(magnitude | index << 5 | plane << 6):
                            m.d.comb += found.eq(self._encode(digit))
            with m.Default():
                pass
        return found ^ (special.sign << len(digits.multiples))

    def _digit(self, m, lane, key, table, tables):
        """The digit of a key: from Booth recoding or the table that is enabled; 0 gives 0 in each."""
        digits = self.config.digits
        bits = self.config.plane_bits + 1
        booth = Signal(len(digits.multiples) + 1, name=f"booth{lane}")
        with m.Switch(key.integer):
            for pattern in range(1 << bits):  # two's complement above the lowest bit, which counts once more
                value = (pattern >> 1) + (pattern & 1) - (pattern >> (bits - 1) << (bits - 1))
                with m.Case(pattern):
                    m.d.comb += booth.eq(self._encode(value))
        found = booth
        for index, (datatype, plane) in enumerate(tables):
            entry = Signal(len(booth), name=f"{datatype.name.lower()}_{plane}_{lane}")
            width = datatype.bits
            with m.Switch(key.float[:width]):
                for code in range(1 << width):
                    with m.Case(code):
                        m.d.comb += entry.eq(self._encode(code_digits(datatype, code, digits)[plane]))
            found |= entry & table[index].replicate(len(booth))
        return found

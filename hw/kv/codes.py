"""Codes of one beat of elements out of the row window."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.trits import TritDecoder
from hw.kv.window import RowGeometry
from hw.spec.kv_block import TRITS_PER_BYTE
from hw.spec.kv_config import KvEngineConfig

__all__ = ["CodeSelect"]


class CodeSelect(wiring.Component):
    """Cuts the window into 1-bit, 2-bit or ternary codes, one per lane; combinational but for the phase of the trits.

    A beat may hold both 2-bit codes (its first groups of 8 lanes) and 1-bit ones. Trits run on across rows: a beat
    starts at digit ``phase`` of the window's first byte, and the phase moves on by the lanes modulo 5.

    Members
    -------
    window : In
        From :class:`hw.kv.window.RowWindow`.
    ternary : In
    groups : In
        How many groups of 8 lanes exist in this beat, minus 1 (with 4 lanes: 0).
    double : In
        Which of them have 2-bit codes.
    final : In
        The block's last beat: its last byte's remaining digits are padding.
    start, take : In
        A block begins: phase 0; the beat is taken: the phase moves on.
    need, units : Out
        Units of the window that the beat touches, and by how many to move on.
    partial : Out
        The beat ends within a byte.
    codes : Out
        2 bits per lane.
    invalid, padding : Out
        A ternary byte of 243 or more; a padding digit other than 1.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.geometry = geometry = RowGeometry(config.lanes)
        self.groups_count = max(1, config.lanes // 8)
        super().__init__(
            {
                "window": In(geometry.window_bits),
                "ternary": In(1),
                "groups": In(range(self.groups_count)),
                "double": In(self.groups_count),
                "final": In(1),
                "start": In(1),
                "take": In(1),
                "need": Out(geometry.need_shape),
                "units": Out(geometry.units_shape),
                "partial": Out(1),
                "codes": Out(data.ArrayLayout(2, config.lanes)),
                "invalid": Out(1),
                "padding": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, window = self.config.lanes, self.window
        count = self.geometry.window_bits // 8
        digits, invalid = [], []
        for k in range(count):
            m.submodules[f"trits{k}"] = decoder = TritDecoder()
            m.d.comb += decoder.byte.eq(window[8 * k : 8 * k + 8])
            digits += [decoder.digits[d] for d in range(TRITS_PER_BYTE)]
            invalid.append(decoder.invalid)

        phase, next_phase = Signal(range(TRITS_PER_BYTE)), Signal(range(TRITS_PER_BYTE))
        with m.If(self.start):
            m.d.sync += phase.eq(0)
        with m.Elif(self.take):
            m.d.sync += phase.eq(next_phase)

        # Ternary: everything follows from the phase and the number of lanes that exist.
        touched, passed = Signal.like(self.need), Signal.like(self.units)
        per_byte = 8 // self.geometry.unit_bits
        with m.Switch(Cat(phase, self.groups)):
            for start in range(TRITS_PER_BYTE):
                for groups in range(self.groups_count):
                    total = start + min(lanes, 8) * (groups + 1)
                    size = -(-total // TRITS_PER_BYTE)
                    pads = digits[total : size * TRITS_PER_BYTE]
                    with m.Case(start | groups << 3):
                        m.d.comb += [
                            touched.eq(size * per_byte),
                            passed.eq(total // TRITS_PER_BYTE * per_byte),
                            next_phase.eq(total % TRITS_PER_BYTE),
                            self.invalid.eq(self.ternary & Cat(invalid[:size]).any()),
                            self.padding.eq(self.ternary & self.final & Cat(pad != 1 for pad in pads).any()),
                        ]
            with m.Default():
                pass

        # 1 and 2 bits: lane l of a 1-bit group is preceded by l bits, and one more per lane of the 2-bit groups.
        exists = [1, *(self.groups >= g for g in range(1, self.groups_count))]
        if lanes >= 8:
            plain = sum(Mux(exists[g], 1 + self.double[g], 0) for g in range(self.groups_count))
        else:
            plain = Mux(self.double, 2, 1)
        with m.If(self.ternary):
            m.d.comb += [self.need.eq(touched), self.units.eq(passed), self.partial.eq(next_phase != 0)]
        with m.Else():
            m.d.comb += [self.need.eq(plain), self.units.eq(plain)]

        wide = Signal(self.geometry.window_bits)
        m.d.comb += wide.eq(window)
        for lane in range(lanes):
            trit, single = Signal(2, name=f"trit{lane}"), Signal(name=f"single{lane}")
            with m.Switch(phase):
                for start in range(TRITS_PER_BYTE):
                    with m.Case(start):
                        m.d.comb += trit.eq(digits[start + lane])
                with m.Default():
                    pass
            # The 2-bit groups come first, so those before this lane's are all of them.
            m.d.comb += single.eq(wide[lane])
            for doubled in range(1, lane // 8 + 1):
                with m.If(self.double[doubled - 1]):
                    m.d.comb += single.eq(wide[lane + 8 * doubled])
            pair = wide[2 * lane : 2 * lane + 2]
            code = Mux(self.double[min(lane // 8, self.groups_count - 1)], pair, Cat(single, Const(0, 1)))
            m.d.comb += self.codes[lane].eq(Mux(self.ternary, trit, code))
        return m

"""Codes of one beat of elements out of the row window."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.packet.rows import RowGeometry
from spec.kv_config import KvEngineConfig

__all__ = ["CodeSelect"]


class CodeSelect(wiring.Component):
    """Cuts the window into codes of 1 or 2 bits, one per lane; combinational.

    A beat may hold both: its first groups of 8 lanes 2-bit codes, the others 1-bit ones. Ternary digits come as 2-bit
    codes.

    Members
    -------
    window : In
        From :class:`hw.kv.packet.rows.RowWindow`.
    groups : In
        Which groups of 8 lanes exist in this beat (with 4 lanes: of 4).
    double : In
        Which of them have 2-bit codes.
    units : Out
        Units of the window that the beat takes.
    codes : Out
        2 bits per lane.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.geometry = RowGeometry(config.lanes)
        self.groups_count = max(1, config.lanes // 8)
        super().__init__(
            {
                "window": In(2 * config.lanes),
                "groups": In(self.groups_count),
                "double": In(self.groups_count),
                "units": Out(self.geometry.units_shape),
                "codes": Out(data.ArrayLayout(2, config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # A group of 8 codes of a bit is a unit; with 4 lanes a group of 4 is.
        m.d.comb += self.units.eq(
            sum(Cat(exists & ~two, exists & two) for exists, two in zip(self.groups, self.double, strict=True))
        )
        for lane in range(self.config.lanes):
            group = lane // 8
            # The 2-bit groups come first: if any before this lane's is not one, this is not either.
            single = Signal(name=f"single{lane}")
            m.d.comb += single.eq(self.window[lane])
            for doubled in range(1, group + 1):
                with m.If(self.double[doubled - 1]):
                    m.d.comb += single.eq(self.window[lane + 8 * doubled])
            pair = self.window[2 * lane : 2 * lane + 2]
            m.d.comb += self.codes[lane].eq(Mux(self.double[group], pair, Cat(single, Const(0, 1))))
        return m

"""Shifts to the right that round."""

from amaranth import C, Cat, Mux, Signal

__all__ = ["round_shift"]


def round_shift(m, value, amount, name):
    """(``value >> amount``, whether to round up to the nearest even); a shift beyond the value gives 0."""
    width = len(value)
    shifted, lost = Signal(width + 1, name=f"{name}_shifted"), Signal(name=f"{name}_lost")
    extended = Cat(C(0, 1), value)
    stages, sticky = extended, C(0, 1)
    for k in range(len(amount)):
        step = 1 << k
        dropped = stages[: min(step, width + 1)]
        following = Signal(width + 1, name=f"{name}_stage{k}")
        gone = Signal(name=f"{name}_gone{k}")
        m.d.comb += following.eq(Mux(amount[k], stages >> step, stages))
        m.d.comb += gone.eq(sticky | (amount[k] & dropped.any()))
        stages, sticky = following, gone
    m.d.comb += [shifted.eq(stages), lost.eq(sticky)]
    return shifted[1:], shifted[0] & (lost | shifted[1])

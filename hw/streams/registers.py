"""Pipeline registers: for data, which need no reset, and for control, which does."""

from amaranth import Signal
from amaranth.lib import data

__all__ = ["delay"]


def delay(m, value, name, cycles=1, *, reset_less=True):
    """``value`` of ``cycles`` cycles ago; a view keeps its layout."""
    shape = value.shape() if isinstance(value, data.View) else len(value)
    for cycle in range(cycles):
        register = Signal(shape, name=f"{name}_{cycle}" if cycles > 1 else name, reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value

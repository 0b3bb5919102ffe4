"""Pipeline registers for data, which need no reset."""

from amaranth import Signal

__all__ = ["delay"]


def delay(m, value, name, cycles=1):
    """``value`` of ``cycles`` cycles ago."""
    for cycle in range(cycles):
        register = Signal(len(value), name=f"{name}_{cycle}" if cycles > 1 else name, reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value

"""What operations share: the leading one, shifts that round, FP32 results with all that may come instead of one."""

from amaranth import C, Cat, Module, Mux, Signal, Value

from hw.arith.formats import FP32_NAN

__all__ = ["leading_zeros", "round_shift", "rounded_fp32", "shifted_right"]


def leading_zeros(m, value, name):
    """Number of zeros above the leading one of ``value``; its length if it is 0."""
    count = Signal(range(len(value) + 1), name=name, init=len(value))
    m.d.comb += count.eq(len(value))
    for bit in range(len(value)):
        with m.If(value[bit]):
            m.d.comb += count.eq(len(value) - 1 - bit)
    return count


def shifted_right(m: Module, value: Value, distance: Value, name: str) -> tuple[Value, Value]:
    """(``value`` shifted to the right by less than its width, whether ones were lost)."""
    width = len(value)
    shifted = Signal(width, name=name)
    m.d.comb += shifted.eq(value >> distance)
    kept = (C((1 << width) - 1, width) << distance)[:width]
    return shifted, (value & ~kept).any()


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


def rounded_fp32(
    m: Module,
    biased: Value,
    fraction: Value,
    up: Value,
    sign: Value,
    *,
    nan: Value,
    infinite: Value,
    underflows: bool = False,
) -> tuple[Signal, Signal]:
    """A register of the FP32 number, rounded, and one of whether it overflowed to Inf.

    Parameters
    ----------
    biased, fraction : Value
        9 bits or more, and 23; a carry out of the fraction raises the exponent, from subnormal to normal too.
    up : Value
        Whether the fraction is rounded up.
    sign : Value
        0 for an exact zero, which is +0.
    nan, infinite : Value
        The result is the NaN, or Inf because an operand was.
    underflows : bool
        Numbers that are not zero may round to it, and are +0, too.
    """
    rounded = Signal(len(fraction) + len(biased))
    m.d.comb += rounded.eq(Cat(fraction, biased) + up)
    too_large = rounded[23:] >= 255
    out = Signal(32, reset_less=True)
    overflow = Signal(reset_less=True)
    with m.If(nan):
        m.d.sync += out.eq(FP32_NAN)
    with m.Elif(infinite | too_large):
        m.d.sync += out.eq(Cat(C(0, 23), C(0xFF, 8), sign))
    with m.Else():
        m.d.sync += out.eq(Cat(rounded[:31], sign & rounded.any() if underflows else sign))
    m.d.sync += overflow.eq(too_large & ~infinite & ~nan)
    return out, overflow

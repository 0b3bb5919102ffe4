"""The alignment of one activation to its group's exponent, in short cycles."""

from amaranth import C, Cat, Signal

from hw.arith.carry import increment
from hw.streams.registers import delay

__all__ = ["ALIGNMENT", "aligned_integer"]

ALIGNMENT = 7
"""Cycles that it takes."""
SIGNIFICAND_BITS = 11


def aligned_integer(m, width, lane, activation, flags):
    """An activation as an integer of ``width`` bits: A2 and A3 in ``ALIGNMENT`` cycles.

    Exponents; how far, lower and upper bits; shift, in three steps; which way to round; round and negate. ``flags``
    are the next cycle's.
    """
    # Half of the lanes look at the complement: a register of its own, with half of the load.
    largest = ~flags.complement if lane % 2 else flags.exponent

    def register(value, name):
        return delay(m, value, f"{name}_{lane}")

    # Cycle 1.
    normal, finite = activation.exponent.any(), ~activation.exponent.all()
    significand = register(Cat(activation.fraction, normal) & finite.replicate(SIGNIFICAND_BITS), "significand1")
    exponent = register(Cat(activation.exponent[0] | ~normal, activation.exponent[1:]), "exponent1")
    sign = delay(m, activation.sign, f"sign_{lane}", 5)

    # Cycle 2: how far: the lower bits with a borrow, and the upper bits that have yet to lend it.
    amount = register((largest[:2] - exponent[:2])[:3], "amount2")
    upper = register((largest[2:] - exponent[2:])[:3], "upper2")
    significand = register(significand, "significand2")

    # Cycles 3 to 5. With the largest exponent the significand ends below bit `place`; an integer has width - 1
    # bits. Two bits more below: guard, and another that gathers what the shift loses.
    place = max(width - 1, SIGNIFICAND_BITS)
    excess = place - (width - 1)
    value = Cat(C(0, 2 + place - SIGNIFICAND_BITS), significand)
    value = register(_shift(m, value, amount[:2], f"shift3_{lane}"), "value3")
    amount = register((upper - amount[2])[:3], "amount3")
    value = register(_shift(m, value, Cat(C(0, 2), amount[:2]), f"shift4_{lane}"), "value4")
    amount = register(Cat(C(0, 4), amount[2]), "amount4")
    value = register(_shift(m, value, amount, f"shift5_{lane}"), "value5")

    # Cycle 6. -(floor + up) = ~floor + 1 - up. Then: cycle 7.
    floor, guard, sticky = value[2 + excess :], value[1 + excess], value[: 1 + excess].any()
    up = guard & (sticky | floor[0]) & ~floor.all()
    carry = register(sign ^ up, "carry")
    integer = increment(m, Cat(floor, C(0, 1)) ^ sign.replicate(width), carry, f"round_{lane}")
    return register(integer[:width], "integer").as_signed()


def _shift(m, value, amount, name):
    """``value >> amount`` with bit 0 set if a one was lost, now or earlier."""
    width = len(value)
    ones = C((1 << width) - 1, width)
    shifted = Signal(width, name=name)
    lost = (value & ~(ones << amount)[:width]).any()
    m.d.comb += shifted.eq((value >> amount) | lost)
    return shifted

"""FP32 arithmetic cut into short cycles: conversion of scaled sums, and addition."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.carry import add_both, add_select, increment, leading_zeros, less_than
from hw.arith.formats import FP32, FRACTION_BITS
from hw.streams.registers import delay
from spec import checks

__all__ = ["IntegerToFp32", "NormalFp32Adder"]


class IntegerToFp32(wiring.Component):
    """Converts ``+-magnitude * 2**(exponent - offset)`` to FP32, rounding once to nearest even; zero gives +0.

    The result must be a normal number or zero: with 5-bit exponents it always is. Latency ``latency`` cycles,
    throughput 1 per cycle, no back-pressure.

    Parameters
    ----------
    magnitude_bits : int
        More than 24.
    offset : int

    Members
    -------
    magnitude : In
    sign : In
    exponent : In, unsigned 5
    o : FP32, Out
        Registered.
    """

    latency = 7

    def __init__(self, magnitude_bits: int, offset: int):
        checks.whole("magnitude_bits", magnitude_bits, 25, 64)
        self._offset = offset
        super().__init__({"magnitude": In(magnitude_bits), "sign": In(1), "exponent": In(5), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        width = len(self.magnitude)

        def register(value, name):
            return delay(m, value, name)

        # Cycles 1 and 2: how many zeros lie above the leading one.
        zeros = Signal((width - 1).bit_length())
        m.d.comb += zeros.eq(leading_zeros(m, self.magnitude, "zeros", cut=3))
        zeros = register(zeros, "zeros2")
        value = register(register(self.magnitude, "value1"), "value2")
        base = Signal(8)  # one more than the exponent: ~zeros is -zeros - 1
        m.d.comb += base.eq(self.exponent + (128 - self._offset + width - 1))
        base = register(register(base, "base1"), "base2")

        # Cycles 3 to 5: the leading one to the top; the exponent, with and without a carry out of the fraction.
        exponents = add_both(m, base, ~Cat(zeros, C(0, 8 - len(zeros))), "exponent")
        for cycle, first in ((3, 4), (4, 2), (5, 0)):
            value = register((value << Cat(C(0, first), zeros[first : first + 2]))[:width], f"value{cycle}")
            zeros = register(zeros[:first], f"zeros{cycle}") if first else zeros
        lower, upper = (delay(m, e[:8], name, 2) for e, name in zip(exponents, ("lower", "upper"), strict=True))

        # Cycle 6: whether to round up. Cycle 7: do it.
        sign = delay(m, self.sign, "sign", 5)
        below = width - 1 - FRACTION_BITS
        guard, sticky, nonzero = value[below - 1], value[: below - 1].any(), value[-1]
        up = register(guard & (sticky | value[below]), "up")
        lower = register(lower & nonzero.replicate(8), "lower6")
        upper = register(upper, "upper6")
        sign = register(sign & nonzero, "sign6")
        rounded = increment(m, value[below:-1], up, "round")
        packed = register(Cat(rounded[:-1], Mux(rounded[-1], upper, lower), sign), "packed")
        m.d.comb += self.o.eq(packed)
        return m


class NormalFp32Adder(wiring.Component):
    """Adds two FP32 numbers, each normal or +0, whose sum is so too: round to nearest even, exact zero is +0.

    Sums of groups are multiples of 2**-49 below 2**51, which leaves subnormals, Inf and NaN out. Error at most half a
    unit in the last place.

    Latency ``latency`` cycles to ``o``, which a last piece of logic drives: whoever takes it registers it. Throughput 1
    per cycle, no back-pressure.

    Members
    -------
    a, b : FP32, In
    alone : In
        ``o`` is to be b: a counts as 0, whatever it is.
    o : FP32, Out
    """

    latency = 14

    def __init__(self):
        super().__init__({"a": In(FP32), "b": In(FP32), "alone": In(1), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()

        def register(value, name):
            return delay(m, value, name)

        # Cycles 1 and 2: which is smaller, and by how many places. (`before` is a's exponent less b's less 1.)
        a, b = self.a, self.b
        swap = less_than(m, a.as_value()[:31], b.as_value()[:31], "compare")
        before, gap = add_both(m, a.exponent, ~b.exponent, "gap", 3)
        alone = register(self.alone, "alone1")
        swap, alone = register(swap | alone, "swap2"), register(alone, "alone2")
        gap_a, gap_b = register(gap[:8], "gap_a"), register(~before[:8], "gap_b")
        a, b = (FP32(delay(m, v.as_value(), name, 2)) for v, name in ((a, "a"), (b, "b")))

        # Cycle 3: order them. 3 bits below: guard, round, sticky.
        big, small = Mux(swap, b.as_value(), a.as_value()), FP32(Mux(swap, a.as_value(), b.as_value()))
        gap = Mux(swap, gap_b, gap_a)
        # 31 shifts everything out; so does `alone`, whose a may be unknown, so that no shift is by an unknown amount.
        gap = register(gap[:5] | (gap[5:].any() | alone).replicate(5), "gap3")
        small = register(Cat(C(0, 3), small.fraction, small.exponent.any()) & (~alone).replicate(27), "small3")
        big = FP32(register(big, "big3"))
        subtract = register((a.sign ^ b.sign) & ~alone, "subtract3")

        # Cycles 4 to 6: the alignment, short shifts first; what is lost goes into the lowest bit.
        for cycle, first, bits in ((4, 0, 2), (5, 2, 2), (6, 4, 1)):
            amount = Cat(C(0, first), gap[first : first + bits])
            lost = (small & ~(C((1 << 27) - 1, 27) << amount)[:27]).any()
            small = (small >> amount) | lost
            if cycle < 6:
                small, gap = register(small, f"small{cycle}"), register(gap, f"gap{cycle}")
        subtract = delay(m, subtract, "subtract", 2)
        two, subtract = register(small ^ subtract.replicate(27), "two"), register(subtract, "subtract6")
        one = delay(m, Cat(big.fraction, big.exponent.any()), "one", 3)
        sign = delay(m, big.sign, "sign", 10)
        exponent = delay(m, (delay(m, big.exponent, "exponent", 1) + 2)[:8], "raised", 8)

        # Cycles 7 to 9: add.
        total = add_select(m, Cat(C(0, 3), one, C(0, 1)), Cat(two, subtract), "add", subtract, 5, 3)[:28]
        total = register(total, "total")

        # Cycles 10 and 11: how far to normalize, and 16 places of it.
        zeros = Signal(5)
        m.d.comb += zeros.eq(leading_zeros(m, total, "zeros", cut=3))
        total = register(total, "total10")
        normalized = register(Mux(zeros[4], total << 16, total)[:28], "normalized11")
        zeros = register(zeros, "zeros11")

        # Cycles 12 and 13: the rest.
        normalized = register((normalized << Cat(C(0, 2), zeros[2:4]))[:28], "normalized12")
        zeros = register(zeros, "zeros12")
        normalized = register((normalized << zeros[:2])[:28], "normalized13")

        # Cycle 14: the exponent, with and without a carry out of the fraction (~zeros is -zeros - 1); whether to round
        # up. Then: do it.
        lower, upper = add_both(m, exponent, ~Cat(zeros, C(0, 3)), "exponents")
        nonzero = normalized[-1]
        up = register(normalized[3] & (normalized[4] | normalized[:3].any()), "up")
        lower, upper = register(lower[:8] & nonzero.replicate(8), "lower14"), register(upper[:8], "upper14")
        rounded = increment(m, normalized[4:27], up, "round")
        sign = register(sign & nonzero, "sign14")
        m.d.comb += self.o.eq(Cat(rounded[:-1], Mux(rounded[-1], upper, lower), sign))
        return m

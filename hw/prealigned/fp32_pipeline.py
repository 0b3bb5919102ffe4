"""FP32 arithmetic cut into short cycles: conversion of scaled sums, and addition."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fp32 import FP32
from hw.prealigned.carry import add_select, add_short, increment, leading_zeros, less_than

__all__ = ["IntegerToFp32", "NormalFp32Adder"]

FRACTION_BITS = 23


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

    latency = 5

    def __init__(self, magnitude_bits: int, offset: int):
        if magnitude_bits not in range(25, 65):
            raise ValueError(f"magnitude_bits must be in 25..64, not {magnitude_bits!r}")
        self._offset = offset
        super().__init__({"magnitude": In(magnitude_bits), "sign": In(1), "exponent": In(5), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        width = len(self.magnitude)
        # Cycles 1 to 3: shift the leading one to the top, by powers of two, two per cycle.
        sign, exponent, value = self.sign, self.exponent, self.magnitude
        levels = (width - 1).bit_length()
        zeros = []
        cuts = [0, levels // 3, 2 * levels // 3, levels]
        for cycle in range(3):
            for k in reversed(range(levels - cuts[cycle + 1], levels - cuts[cycle])):
                none = Signal(name=f"none{k}")
                moved = Signal(width, name=f"moved{k}")
                m.d.comb += [
                    none.eq(~value[-min(1 << k, width) :].any()),
                    moved.eq(Mux(none, value << (1 << k), value)),
                ]
                zeros.insert(0, none)
                value = moved
            register = Signal(width, name=f"shifted{cycle}", reset_less=True)
            m.d.sync += register.eq(value)
            value = register
            sign, exponent, zeros = self._delay(m, cycle, sign, exponent, zeros)

        # Cycle 4: the exponent, with and without a carry out of the fraction; whether to round up.
        below = width - 1 - FRACTION_BITS
        guard, sticky = value[below - 1], value[: below - 1].any()
        base = Signal(8)  # one more than the exponent: ~zeros is -zeros - 1
        m.d.comb += base.eq(exponent + (128 - self._offset + width - 1))
        wide_zeros = Cat(Cat(zeros), C(0, 8 - len(zeros)))
        nonzero = value[-1]
        lower, upper, up, sign_out = Signal(8), Signal(8), Signal(), Signal()
        m.d.sync += [
            lower.eq(add_short(m, base, ~wide_zeros, C(0, 1), "lower")[:8] & nonzero.replicate(8)),
            upper.eq(add_short(m, base, ~wide_zeros, C(1, 1), "upper")[:8]),
            up.eq(guard & (sticky | value[below])),
            sign_out.eq(sign & nonzero),
        ]

        # Cycle 5: round.
        rounded = increment(m, value[below:-1], up, "round")
        packed = Signal(32, reset_less=True)
        m.d.sync += packed.eq(Cat(rounded[:-1], Mux(rounded[-1], upper, lower), sign_out))
        m.d.comb += self.o.eq(packed)
        return m

    @staticmethod
    def _delay(m, cycle, sign, exponent, zeros):
        delayed = []
        for name, value in (("sign", sign), ("exponent", exponent), ("zeros", Cat(zeros))):
            register = Signal(max(1, len(value)), name=f"{name}{cycle}", reset_less=True)
            m.d.sync += register.eq(value)
            delayed.append(register)
        sign, exponent, packed = delayed
        return sign, exponent, [packed[k] for k in range(len(zeros))]


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

    latency = 8

    def __init__(self):
        super().__init__({"a": In(FP32), "b": In(FP32), "alone": In(1), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()

        def register(value, name):
            signal = Signal(len(value), name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # Cycle 1: which is smaller, and by how many places.
        a, b = self.a, self.b
        swap = Signal()
        alone = register(self.alone, "alone1")
        m.d.comb += swap.eq(less_than(m, a.as_value()[:31], b.as_value()[:31], "compare") | alone)
        gap_a = register((a.exponent - b.exponent)[:8], "gap_a")
        gap_b = register((b.exponent - a.exponent)[:8], "gap_b")
        a, b = FP32(register(a.as_value(), "a1")), FP32(register(b.as_value(), "b1"))

        # Cycle 2: order them; the first step of the alignment. 3 bits below: guard, round, sticky.
        big, small = FP32(Mux(swap, b.as_value(), a.as_value())), FP32(Mux(swap, a.as_value(), b.as_value()))
        gap = Mux(swap, gap_b, gap_a)
        significand = Cat(C(0, 3), small.fraction, small.exponent.any()) & (~alone).replicate(27)
        aligned = register(Mux(gap[0], significand[1:], significand), "aligned2")
        gap = register(gap[1:5] | gap[5:].any().replicate(4), "gap2")  # 30 shifts everything out
        one = register(Cat(big.fraction, big.exponent.any()), "one2")
        subtract = register((a.sign ^ b.sign) & ~alone, "subtract2")
        head = register(Cat(big.exponent, big.sign), "head2")

        # Cycle 3: the other steps of the alignment; what is lost goes into the sticky bit.
        amount = Cat(C(0, 1), gap)
        shifted = Signal(27)
        m.d.comb += shifted.eq(aligned >> amount)
        kept = (C((1 << 27) - 1, 27) << amount)[:27]
        sticky = (aligned & ~kept).any()
        two = register((shifted | sticky) ^ subtract.replicate(27), "two3")
        one, subtract = register(one, "one3"), register(subtract, "subtract3")
        head = register(Cat((head[:8] + 2)[:8], head[8]), "head3")

        # Cycles 4 and 5: add.
        total = add_select(m, Cat(C(0, 3), one, C(0, 1)), Cat(two, subtract), "add", subtract)[:28]
        total = register(total, "total5")
        head = register(register(head, "head4"), "head5")

        # Cycle 6: how far to normalize, and 16 places of it.
        zeros = Signal(5)
        m.d.comb += zeros.eq(leading_zeros(m, total, "zeros"))
        normalized = register(Mux(zeros[4], total << 16, total)[:28], "normalized6")
        zeros, head = register(zeros, "zeros6"), register(head, "head6")

        # Cycle 7: the rest; the exponent, with and without a carry out of the fraction (~zeros is -zeros - 1).
        normalized = register((normalized << zeros[:4])[:28], "normalized7")
        zeros = Cat(zeros, C(0, 3))
        nonzero = ~zeros[2:5].all()  # 28 says there is no one
        lower = register(add_short(m, head[:8], ~zeros, C(0, 1), "lower")[:8] & nonzero.replicate(8), "lower7")
        upper = register(add_short(m, head[:8], ~zeros, C(1, 1), "upper")[:8], "upper7")
        sign = register(head[8] & nonzero, "sign7")

        # Cycle 8: whether to round up. Then: do it.
        up = register(normalized[3] & (normalized[4] | normalized[:3].any()), "up8")
        rounded = increment(m, normalized[4:27], up, "round")
        exponent = Mux(rounded[-1], register(upper, "upper8"), register(lower, "lower8"))
        m.d.comb += self.o.eq(Cat(rounded[:-1], exponent, register(sign, "sign8")))
        return m

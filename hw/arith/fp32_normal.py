"""FP32 where every number is normal or zero: from integers times powers of two, and sums."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit, prefix_sum, ripple_sum
from hw.arith.formats import FP32, FRACTION_BITS, UNIT_BITS

__all__ = ["FiniteAdder", "SignedToFp32"]


def normalize(m, value):
    """(``value`` with its leading one moved to the top, by how much), by powers of two."""
    width, zeros = len(value), []
    for k in reversed(range((width - 1).bit_length())):
        step = 1 << k
        none, moved = Signal(name=f"none{k}"), Signal(width, name=f"moved{k}")
        m.d.comb += [none.eq(~value[-step:].any()), moved.eq(Mux(none, Cat(C(0, step), value)[:width], value))]
        zeros.insert(0, none)
        value = moved
    return value, Cat(zeros)


class SignedToFp32(wiring.Component):
    """``fl32(i * 2**unit)``: rounds once, to nearest even; zero gives +0. Results must be normal numbers or zero.

    Latency ``latency`` cycles, one per cycle, no back-pressure.

    Parameters
    ----------
    bits : int
        Of ``i``, signed; 26 or more.

    Members
    -------
    i, unit : In
    o : FP32, Out
    """

    latency = 2

    def __init__(self, bits: int):
        self.bits = bits
        super().__init__({"i": In(signed(bits)), "unit": In(signed(UNIT_BITS)), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        width = self.bits - 1
        sign = self.i[-1]
        value = add_bit(m, self.i[:-1] ^ sign.replicate(width), sign, "magnitude")
        # Cycle 1: the leading one to the top; the exponent falls by as much.
        value, zeros = normalize(m, value)
        normal = Signal(width, reset_less=True)
        exponent = Signal(8, reset_less=True)
        negative = Signal(reset_less=True)
        largest = ripple_sum(m, self.unit.as_unsigned(), C((127 + width - 1) % 256, 8), 8, "largest")
        m.d.sync += [
            normal.eq(value),
            exponent.eq(ripple_sum(m, largest, ~Cat(zeros, C(0, 8))[:8], 8, "exponent_here", C(1, 1))),
            negative.eq(sign),
        ]
        # Cycle 2: round.
        below = width - 1 - FRACTION_BITS
        guard = normal[below - 1]
        up = guard & (normal[: below - 1].any() | normal[below]) if below > 1 else guard & normal[below]
        rounded = add_bit(m, Cat(normal[below:-1], exponent), up, "rounded")
        out = Signal(32, reset_less=True)
        m.d.sync += out.eq(Mux(normal[-1], Cat(rounded, negative), 0))
        m.d.comb += self.o.eq(out)
        return m


class FiniteAdder(wiring.Component):
    """Adds two FP32 numbers where operands and results are normal numbers or zero: round to nearest even.

    Attention's are: all are multiples of 2^-100 and less than 2^100. A zero operand must be +0; a zero result is. It is
    smaller than :class:`hw.arith.fp32_adder.Fp32Adder`, which takes everything (docs/arithmetic.md). Latency
    ``latency`` cycles, one per cycle, no back-pressure.

    Members
    -------
    a, b : FP32, In
    o : FP32, Out
    """

    latency = 2

    def __init__(self):
        super().__init__({"a": In(FP32), "b": In(FP32), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        # Cycle 1: the larger first; the smaller moved to its exponent, with two bits below and whether more is lost.
        a, b = self.a.as_value(), self.b.as_value()
        swap = ~prefix_sum(m, a[:31], ~b[:31], 32, "order", C(1, 1))[-1]
        big = Signal(FP32)
        small = Signal(FP32)
        m.d.comb += [big.eq(Mux(swap, b, a)), small.eq(Mux(swap, a, b))]
        gap = ripple_sum(m, big.exponent, ~small.exponent, 8, "gap", C(1, 1))
        aligned, lost = Cat(C(0, 2), small.fraction, small.exponent.any()), C(0, 1)
        for k in range(5):
            step = 1 << k
            following, gone = Signal(len(aligned), name=f"aligned{k}"), Signal(name=f"gone{k}")
            m.d.comb += [
                following.eq(Mux(gap[k], aligned >> step, aligned)),
                gone.eq(lost | (gap[k] & aligned[:step].any())),
            ]
            aligned, lost = following, gone
        far = gap[5:].any()
        one = Signal(27, reset_less=True)
        two = Signal(27, reset_less=True)
        exponent = Signal(8, reset_less=True)
        sign = Signal(reset_less=True)
        subtract = Signal(reset_less=True)
        m.d.sync += [
            one.eq(Cat(C(0, 3), big.fraction, big.exponent.any())),
            two.eq(Mux(far, small.exponent.any(), Cat(lost, aligned))),
            exponent.eq(big.exponent),
            sign.eq(big.sign),
            subtract.eq(big.sign ^ small.sign),
        ]
        # Cycle 2: add, normalize, round.
        total = prefix_sum(m, one, Cat(two, C(0, 1)) ^ subtract.replicate(28), 28, "total", subtract)
        normal, zeros = normalize(m, total)
        up = normal[3] & (normal[4] | normal[:3].any())
        biased = ripple_sum(m, exponent, ~Cat(zeros, C(0, 8))[:8], 8, "biased_less", C(1, 1))
        # The sum's top bit is worth twice the larger's.
        rounded = add_bit(m, Cat(normal[4:27], ripple_sum(m, biased, C(1, 8), 8, "biased")), up, "rounded")
        out = Signal(32, reset_less=True)
        m.d.sync += out.eq(Cat(rounded, sign) & normal[-1].replicate(32))
        m.d.comb += self.o.eq(out)
        return m

"""Sum of two magnitudes at different exponents, exact as far as one rounding to FP16 can tell."""

from amaranth import C, Cat, Module, Mux, Signal, Value

from hw.arith.normalize import nearest_fp16
from hw.arith.ripple import add, increment

__all__ = ["aligned_sum", "held", "held_and_rounded"]


def aligned_sum(
    m: Module, larger: Value, smaller: Value, shift: Value, subtract: Value, guard: int
) -> tuple[Value, Value]:
    """``larger +- smaller / 2^shift``: (its magnitude, it is negative).

    Operands have one width; the magnitude has a bit more on top and ``guard`` below, the lowest of which is sticky: it
    stands for everything that was shifted out.
    """
    width = len(larger)
    total_bits = width + guard
    shifted, sticky = Cat(C(0, guard - 1), smaller), C(0, 1)
    stages = [k for k in range(len(shift)) if 1 << k < total_bits - 1]
    for k in stages:
        lost = Mux(shift[k], shifted[: 1 << k].any(), 0)
        sticky = sticky | lost
        shifted = Mux(shift[k], shifted >> (1 << k), shifted)
    aligned = Signal(total_bits)
    far = shift[len(stages) :].any()
    m.d.comb += aligned.eq(Mux(far, (shifted != 0) | sticky, Cat(sticky, shifted)))
    total = Signal(total_bits + 1)
    negative = Signal()
    m.d.comb += [
        total.eq(add(m, Cat(C(0, guard), larger), aligned ^ subtract.replicate(total_bits), subtract)),
        negative.eq(subtract & ~total[-1]),
    ]
    magnitude = Signal(total_bits + 1)
    m.d.comb += magnitude.eq(
        Cat(increment(m, total[:-1] ^ negative.replicate(total_bits), negative), total[-1] & ~subtract)
    )
    return magnitude, negative


def held(m: Module, step: Value, *parts: Value) -> list[Value]:
    """Registers that take ``parts`` with ``step``."""
    names = [f"held_{getattr(part, 'name', index)}" for index, part in enumerate(parts)]
    registers = [Signal(len(part), name=name, reset_less=True) for part, name in zip(parts, names, strict=True)]
    with m.If(step):
        m.d.sync += [register.eq(part) for register, part in zip(registers, parts, strict=True)]
    return registers


def held_and_rounded(m: Module, step: Value, magnitude: Value, exponent: Value, negative: Value) -> tuple[Value, Value]:
    """A sum rounded to FP16 a ``step`` later, zero as +0: (the number, it was beyond FP16 and is +-65504).

    ``exponent``: as :func:`hw.arith.normalize.nearest_fp16` takes it.
    """
    magnitude, exponent, negative = held(m, step, magnitude, exponent, negative)
    bits, beyond = nearest_fp16(m, magnitude, exponent)
    return Cat(bits, negative & (bits != 0)), beyond

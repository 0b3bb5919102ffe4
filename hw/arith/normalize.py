"""Fixed point to FP16 in few gates."""

from amaranth import C, Cat, Module, Mux, Signal, Value

from hw.arith.ripple import add

__all__ = ["nearest_fp16", "normalize"]


def normalize(m: Module, value: Value, most: Value) -> tuple[Value, Value]:
    """Shift left until the top bit is set, but by no more than ``most``: (the value, what is left of ``most``).

    No leading zeros are counted: each stage looks whether the bits that it would push out are 0.
    """
    value, left = Value.cast(value), Value.cast(most)
    width = len(value)
    for k in reversed(range((width - 1).bit_length())):
        step = 1 << k
        move = Signal(name="move")
        m.d.comb += move.eq(~value[width - step :].any() & left[k:].any())
        # Bits that a move would push out are 0 with it: what comes in their place is added to them.
        kept = Cat(bit & ~move for bit in value[:step])
        moved = [
            value[j] | (value[j - step] & move) if j >= width - step else Mux(move, value[j - step], value[j])
            for j in range(step, width)
        ]
        borrow, rest = move, []
        for bit in left[k:]:
            following = Signal(name="borrow")
            m.d.comb += following.eq(~bit & borrow)
            rest.append(bit ^ borrow)
            borrow = following
        stage = Signal(width, name="stage"), Signal(len(left), name="left")
        m.d.comb += [stage[0].eq(Cat(kept, *moved)), stage[1].eq(Cat(left[:k], *rest))]
        value, left = stage
    return value, left


def nearest_fp16(m: Module, magnitude: Value, most: Value) -> tuple[Value, Value]:
    """R16 of docs/kv-engine.md: (the lower 15 bits of the FP16 number, it was beyond FP16 and became 65504).

    ``most`` is 1 less than the biased exponent of a number whose highest bit is the magnitude's top bit; 0 or more.
    Numbers are multiples of 2^-24, so that one with a biased exponent of 0 is exact.
    """
    shifted, left = normalize(m, magnitude, most)
    top, hidden = shifted[-11:-1], shifted[-1]
    half, rest = shifted[-12], shifted[:-12].any()
    rounded = add(m, top, C(0, 0), half & (rest | top[0]))
    # Without a leading 1 the exponent is 0: nothing is left of `most` then, or the number is 0.
    exponent = add(m, left & hidden.replicate(len(left)), Cat(hidden), rounded[10])
    beyond = Signal()
    m.d.comb += beyond.eq(exponent[5] | exponent[:5].all())
    number = Cat(rounded[:10], exponent[:5]) | beyond.replicate(15)
    return Cat(number[:10], number[10] & ~beyond, number[11:]), beyond

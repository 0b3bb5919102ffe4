"""Adders and multipliers written out, so that they stay small whatever a synthesis tool makes of ``+`` and ``*``."""

from functools import reduce
from operator import or_

from amaranth import C, Cat, Signal, Value

from hw.arith.compressor import compress

__all__ = ["add_bit", "booth_product", "booth_row", "prefix_sum", "ripple_sum", "select"]


def ripple_sum(m, a, b, width, name, carry=None):
    """``a + b + carry`` of unsigned values, modulo 2**width: a chain of full adders, about 7 gate equivalents a bit."""
    a, b = (Cat(x, C(0, max(0, width - len(x))))[:width] for x in (a, b))
    carry, bits = C(0, 1) if carry is None else carry, []
    for k in range(width):
        bits.append(a[k] ^ b[k] ^ carry)
        following = Signal(name=f"{name}_carry{k}")
        m.d.comb += following.eq((a[k] & b[k]) | (carry & (a[k] | b[k])))
        carry = following
    total = Signal(width, name=name)
    m.d.comb += total.eq(Cat(*bits))
    return total


def prefix_sum(m, a, b, width, name, carry=None):
    """``a + b + carry`` of unsigned values, modulo 2**width, by Brent and Kung's prefix tree: the fewest cells in
    logarithmic time."""
    a, b = (Cat(x, C(0, max(0, width - len(x))))[:width] for x in (a, b))
    half = Signal(width, name=f"{name}_half")
    m.d.comb += half.eq(a ^ b)
    generate, propagate = [a[k] & b[k] for k in range(width)], [half[k] for k in range(width)]
    carry = C(0, 1) if carry is None else carry
    generate[0] = generate[0] | (carry & half[0])
    distances = [1 << k for k in range((width - 1).bit_length())]

    def merge(places, distance, level):
        """Takes the span below each place into it."""
        for k in places:
            g, p = Signal(name=f"{name}_g{level}_{k}"), Signal(name=f"{name}_p{level}_{k}")
            m.d.comb += [
                g.eq(generate[k] | (propagate[k] & generate[k - distance])),
                p.eq(propagate[k] & propagate[k - distance]),
            ]
            generate[k], propagate[k] = g, p

    for level, distance in enumerate(distances):
        merge(range(2 * distance - 1, width, 2 * distance), distance, level)
    for level, distance in enumerate(reversed(distances[:-1]), len(distances)):
        merge(range(3 * distance - 1, width, 2 * distance), distance, level)
    total = Signal(width, name=name)
    m.d.comb += total.eq(half ^ Cat(carry, *generate[:-1]))
    return total


def add_bit(m, a, bit, name):
    """``a + bit``, modulo 2**len(a)."""
    return prefix_sum(m, a, C(0, len(a)), len(a), name, bit)


def select(choices):
    """The value whose bit is set, of (bit, value) pairs of which at most one is; else 0: ANDs and ORs, which are
    smaller than multiplexers."""
    return reduce(or_, (Value.cast(value) & bit.replicate(len(value)) for bit, value in choices))


def booth_row(a, bits):
    """(``d a`` without its sign, whether that is negative) of a radix-4 Booth digit: its two bits and the one below."""
    below, low, high = bits
    one, two = below ^ low, (high & ~low & ~below) | (~high & low & below)
    width = len(a) + 1
    return (Cat(a, C(0, 1)) & one.replicate(width)) | (Cat(C(0, 1), a) & two.replicate(width)), high


def booth_product(m, a, b, name):
    """``a * b`` of unsigned values: a row per two bits of ``b``, added as carries and sums until the last addition."""
    width, size = len(a) + len(b), len(a) + 1
    digits = len(b) // 2 + 1
    bits = Cat(C(0, 1), b, C(0, 2))
    rows, constant, missing = [], 0, None
    for i in range(digits):
        row, negative = booth_row(a, bits[2 * i : 2 * i + 3])
        low = C(0, 2 * i) if missing is None else Cat(C(0, 2 * i - 2), missing, C(0, 1))
        if i < digits - 1:
            # The sign's weight as a bit that is 1 where the row is not negative, and a constant.
            here = Signal(size + 1, name=f"{name}_row{i}")
            m.d.comb += here.eq(Cat(row ^ negative.replicate(size), ~negative))
            constant -= 1 << size + 2 * i
            missing = negative
        else:
            here = row
        rows.append(Cat(low, here, C(0, width))[:width])
    rows.append(C(constant % (1 << width), width))
    level = 0
    while len(rows) > 2:
        reduced = []
        for k in range(len(rows) // 3):
            reduced += [x[:width] for x in compress(m, *rows[3 * k : 3 * k + 3], width, f"{name}_level{level}_{k}")]
        rows, level = reduced + rows[len(rows) // 3 * 3 :], level + 1
    return prefix_sum(m, *rows, width, name)

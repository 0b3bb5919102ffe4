"""Fp32Adder against NumPy's float32, with its own conventions for NaN and zero."""

import numpy as np
import pytest

from hw.arith.fp32_adder import Fp32Adder
from sim.design import build_design
from verif.bitserial.coverage import Coverage, cross
from verif.bitserial.player import play

NAN = 0x7FC00000
CORNERS = """
0 1 2 7FFFFF 800000 800001 FFFFFF 3F800000 3F800001 33800000 33800001 4B000000 4B800000
7F000000 7F7FFFFE 7F7FFFFF 7F800000 7F800001 7FC00000 7FFFFFFF
"""
CLASSES = ("zero", "subnormal", "normal", "inf", "nan")


def random_operands(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of float32 bit patterns, most near a corner: close or far exponents, few bits, near-cancellation."""
    kind = rng.integers(0, 6, count)
    base = rng.integers(0, 256, count)
    exponent = np.choose(
        kind,
        [
            rng.choice([0, 1, 2, 127, 253, 254, 255], count),
            base,
            rng.choice([252, 253, 254], count),
            rng.choice([0, 1, 2, 23, 24, 25, 26], count),
            base,
            base,
        ],
    )
    other = np.choose(
        kind,
        [
            rng.choice([0, 1, 2, 127, 253, 254, 255], count),
            rng.integers(0, 256, count),
            rng.choice([252, 253, 254], count),
            rng.choice([0, 1, 2, 23, 24, 25, 26], count),
            base + rng.integers(-3, 4, count),
            base + rng.choice([-27, -26, -25, -24, -23, 23, 24, 25, 26, 27], count),
        ],
    ).clip(0, 255)

    def fraction():
        few = 1 << rng.integers(0, 23, count) | 1 << rng.integers(0, 23, count)
        ones = (1 << 23) - (1 << rng.integers(0, 23, count))
        anything = rng.integers(0, 1 << 23, count)
        return np.choose(rng.integers(0, 6, count), [0, (1 << 23) - 1, few, ones, anything, anything])

    def assemble(exponent):
        return (rng.integers(0, 2, count) << 31 | exponent << 23 | fraction()).astype(np.uint32)

    a, b = assemble(exponent), assemble(other)
    near = rng.random(count) < 0.1  # the other operand's negative, or its neighbour
    b = np.where(near, (a ^ np.uint32(1 << 31)) + rng.integers(-2, 3, count).astype(np.uint32), b).astype(np.uint32)
    return a, b


def operands(rng, count: int) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([int(bits, 16) for bits in CORNERS.split()], np.uint32)
    corners = np.concatenate([corners, corners | np.uint32(1 << 31)])
    pairs = np.array(np.meshgrid(corners, corners)).reshape(2, -1)
    random = random_operands(rng, count)
    return tuple(np.concatenate([pair, more]) for pair, more in zip(pairs, random, strict=True))


def total(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's float32 sum with the design's conventions for NaN and zero, and whether a finite sum overflowed."""
    x, y = a.view(np.float32), b.view(np.float32)
    with np.errstate(all="ignore"):
        z = x + y
    bits = np.where(np.isnan(z), np.uint32(NAN), np.where(z == 0, np.uint32(0), z.view(np.uint32)))
    return bits, np.isinf(z) & np.isfinite(x) & np.isfinite(y)


def float_class(bits: np.ndarray) -> np.ndarray:
    """Index into CLASSES."""
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    finite = np.where(exponent == 0, (fraction != 0).astype(int), 2)
    return np.where(exponent == 255, 3 + (fraction != 0), finite)


def cover(a: np.ndarray, b: np.ndarray, out: np.ndarray, overflow: np.ndarray) -> None:
    coverage = Coverage(
        "fp32-adder",
        {
            "operands": cross(CLASSES, CLASSES),
            "signs": cross((0, 1), (0, 1)),
            "exponent distance": range(28),
            "result": cross(CLASSES, ("plus", "minus"), without=[("zero", "minus"), ("nan", "minus")]),
            "rounding": ("exact", "below half", "half to even, down", "half to even, up", "above half"),
            "cancelled to zero": (True,),
            "leading bits cancelled": range(25),
            "overflow": (False, True),
            "subnormals become normal": (True,),
        },
    )
    for pair in zip(float_class(a).tolist(), float_class(b).tolist(), strict=True):
        coverage.hit("operands", (CLASSES[pair[0]], CLASSES[pair[1]]))
    for pair in zip((a >> 31).tolist(), (b >> 31).tolist(), strict=True):
        coverage.hit("signs", pair)
    for kind, sign in zip(float_class(out).tolist(), (out >> 31).tolist(), strict=True):
        coverage.hit("result", (CLASSES[kind], ("plus", "minus")[sign]))
    finite = (float_class(a) < 3) & (float_class(b) < 3)
    ea, eb = (np.maximum(bits >> 23 & 0xFF, 1).astype(int) for bits in (a, b))
    coverage.sample("exponent distance", np.minimum(np.abs(ea - eb), 27), finite)
    coverage.sample("overflow", overflow)

    # Exact sums in units of 2^-149, as Python integers: the float64 sum could itself round.
    rows = np.flatnonzero(finite & ~overflow)
    for row in rows[:: max(1, len(rows) // 20000)]:
        exact = sum(
            (-1 if int(bits) >> 31 else 1) * ((int(bits) & 0x7FFFFF) | (0x800000 if int(bits) >> 23 & 0xFF else 0))
            << max(int(bits) >> 23 & 0xFF, 1) - 1
            for bits in (a[row], b[row])
        )
        size = abs(exact)
        if size == 0:
            coverage.hit("cancelled to zero", True, int(a[row] & 0x7FFFFFFF != 0))
        lost = max(size.bit_length() - 24, 0)
        rest, half = size & (1 << lost) - 1, 1 << lost >> 1
        if rest == 0:
            coverage.hit("rounding", "exact")
        elif rest == half:
            coverage.hit("rounding", f"half to even, {'up' if size >> lost & 1 else 'down'}")
        else:
            coverage.hit("rounding", "below half" if rest < half else "above half")
        larger = max(ea[row], eb[row]) + 23
        if (a[row] ^ b[row]) >> 31 and size:
            coverage.hit("leading bits cancelled", min(max(int(larger) - size.bit_length(), 0), 24))
        if max(ea[row], eb[row]) == 1 and (a[row] | b[row]) >> 23 & 0xFF == 0 and size >> 23:
            coverage.hit("subnormals become normal", True)
    coverage.close()


@pytest.mark.sim
def test_adder(rng, seed):
    """A pair per cycle, the sum 2 cycles later: bit for bit NumPy's, but one NaN and one zero."""
    a, b = operands(rng, 60_000)
    want, overflow = total(a, b)
    cover(a, b, want, overflow)
    built = build_design(Fp32Adder(), "fp32_adder")
    inputs = {name: np.append(bits, [0, 0]).astype(np.uint64) for name, bits in (("a", a), ("b", b))}
    got = play(built, inputs, ["o", "overflow"], seed=seed)
    np.testing.assert_array_equal(got["o"][2:], want)
    np.testing.assert_array_equal(got["overflow"][2:].astype(bool), overflow)

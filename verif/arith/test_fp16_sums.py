"""The FP16 arithmetic around the engine against exact rationals: one rounding, subnormals, ties, cancellation."""

from fractions import Fraction

import numpy as np
import pytest

from hw.arith.fp16_adder import Fp16Adder
from sim.design import build_design
from studies.kv.multiply_add import Fp16MultiplyAdd
from verif.bitserial.player import play

COUNT = 20_000
CODES = (0x0000, 0x3C00, 0xBC00, 0x4000, 0x4200, 0xC200)
"""The factors that codes are: 0, +-1, 2, +-3."""


def rounded(x: Fraction) -> tuple[int, bool]:
    """R16 from its definition: FP16 bits and overflow."""
    size, sign = abs(x), 0x8000 if x < 0 else 0
    places = 24
    while places > -6 and size * Fraction(2) ** (places - 11) >= 1:
        places -= 1
    units = round(size * Fraction(2) ** places)  # of ties the even one
    value = units * Fraction(1, 2) ** places if places > 0 else units * Fraction(2) ** -places
    if value > 65504:
        return sign | 0x7BFF, True
    bits = int(np.float16(float(value)).view(np.uint16))
    return (sign | bits if bits else 0), False


def numbers(rng: np.random.Generator, count: int) -> np.ndarray:
    """FP16 bits of finite numbers: any exponent, fractions often at an end or in the middle."""
    fraction = np.where(
        rng.random(count) < 0.4, rng.choice([0, 1, 511, 512, 1022, 1023], count), rng.integers(0, 1024, count)
    )
    return (rng.integers(0, 31, count) << 10 | fraction | rng.integers(0, 2, count) << 15).astype(np.uint16)


def near(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Numbers that cancel most of float64 ``x``, where FP16 holds it."""
    bits = np.clip(-x, -65504, 65504).astype(np.float16).view(np.uint16).astype(np.int64)
    moved = (bits & 0x7FFF) + rng.integers(-2, 3, len(x))
    return (np.clip(moved, 0, 0x7BFF) | bits & 0x8000).astype(np.uint16)


def exact(bits: np.ndarray) -> list[Fraction]:
    return [Fraction(float(x)) for x in bits.view(np.float16)]


def check(got: dict[str, np.ndarray], results: list[Fraction], latency: int) -> None:
    expected = [rounded(x) for x in results]
    values, beyond = (np.array(column) for column in zip(*expected, strict=True))
    count = len(results) - latency
    np.testing.assert_array_equal(got["beyond"][latency:], beyond[:count])
    np.testing.assert_array_equal(got["value"][latency:], values[:count])
    assert 0 < beyond.sum() < count / 4
    assert ((values & 0x7C00 == 0) & (values & 0x3FF != 0)).sum() > count / 50


@pytest.mark.sim
def test_multiply_add(rng, seed):
    a, b, c = (numbers(rng, COUNT) for _ in range(3))
    a = np.where(rng.random(COUNT) < 0.3, rng.choice(CODES, COUNT), a).astype(np.uint16)
    small = rng.random(COUNT) < 0.3  # products around the smallest numbers
    b = np.where(small, (b & 0x83FF) | np.clip(12 - (a >> 10 & 31), 0, 30) << 10, b).astype(np.uint16)
    product = a.view(np.float16).astype(np.float64) * b.view(np.float16).astype(np.float64)
    c = np.where(rng.random(COUNT) < 0.4, near(rng, product), c).astype(np.uint16)
    built = build_design(Fp16MultiplyAdd(), "fp16_multiply_add")
    inputs = {"a": a, "b": b, "c": c, "step": np.ones(COUNT)}
    got = play(built, {name: x.astype(np.uint64) for name, x in inputs.items()}, ["value", "beyond"], seed=seed)
    check(got, [x * y + z for x, y, z in zip(exact(a), exact(b), exact(c), strict=True)], 1)


@pytest.mark.sim
def test_adder(rng, seed):
    a, b = numbers(rng, COUNT), numbers(rng, COUNT)
    close = rng.random(COUNT) < 0.6  # exponents that overlap, sums that cancel
    b = np.where(close, (b & 0x83FF) | np.clip((a >> 10 & 31) + rng.integers(-13, 3, COUNT), 0, 30) << 10, b)
    b = np.where(rng.random(COUNT) < 0.2, near(rng, a.view(np.float16).astype(np.float64)), b).astype(np.uint16)
    built = build_design(Fp16Adder(), "fp16_adder")
    inputs = {name: x.astype(np.uint64) for name, x in (("a", a), ("b", b), ("step", np.ones(COUNT)))}
    got = play(built, inputs, ["value", "beyond"], seed=seed)
    check(got, [x + y for x, y in zip(exact(a), exact(b), strict=True)], 1)

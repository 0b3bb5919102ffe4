"""Fp32Multiplier and Fp32ToFp16 against NumPy, with the design's conventions for NaN, zero and saturation."""

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP16, FP32
from hw.arith.fp32_multiplier import Fp32Multiplier, Fp32ToFp16
from sim.design import build_design
from verif.arith.test_fp32 import CLASSES, NAN, float_class, operands
from verif.bitserial.coverage import Coverage, cross
from verif.bitserial.player import play

FP16_NAN = 0x7E00
LARGEST = 0x7BFF  # 65504


def tiny_products(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose product is near or below the smallest normal, or near overflow: exponents that add up to the edge."""
    edge = rng.choice([*range(100, 131), 379, 380, 381, 382], count)
    low, high = np.maximum(0, edge - 254), np.minimum(254, edge)
    first = (low + rng.random(count) * (high - low + 1)).astype(np.int64)
    few, anything = 1 << rng.integers(0, 23, (2, count)), rng.integers(0, 1 << 23, (2, count))
    # Ones at both ends only: products that are ties but for their last bit.
    ends = rng.choice([1, 2, 3, 0x400001, 0x7FFFFF], (2, count))
    fraction = np.choose(rng.integers(0, 4, count), [few, anything, anything, ends])
    sign = rng.integers(0, 2, (2, count)) << 31
    return tuple((sign[k] | e << 23 | fraction[k]).astype(np.uint32) for k, e in enumerate((first, edge - first)))


def product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits of NumPy's float32 product, whether a finite one overflowed, and whether it was rounded."""
    x, y = a.view(np.float32), b.view(np.float32)
    with np.errstate(all="ignore"):
        z = x * y
        exact = x.astype(np.float64) * y  # 48 bits: exact
        inexact = exact != z
    bits = np.where(np.isnan(z), np.uint32(NAN), np.where(z == 0, np.uint32(0), z.view(np.uint32)))
    return bits, np.isinf(z) & np.isfinite(x) & np.isfinite(y), inexact & np.isfinite(exact)


@pytest.mark.sim
def test_multiplier(rng, seed):
    """A pair per cycle, the product ``latency`` cycles later: bit for bit NumPy's, but one NaN and one zero."""
    pairs = [operands(rng, 60_000), tiny_products(rng, 40_000)]
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    want, overflow, inexact = product(a, b)
    coverage = Coverage(
        "fp32-multiplier",
        {
            "operands": cross(CLASSES, CLASSES),
            "result": cross(CLASSES, ("plus", "minus"), without=[("zero", "minus"), ("nan", "minus")]),
            "overflow": (False, True),
            "rounded": cross(("zero", "subnormal", "normal"), (False, True)),
        },
    )
    kinds = float_class(want).tolist()
    for first, second in zip(float_class(a).tolist(), float_class(b).tolist(), strict=True):
        coverage.hit("operands", (CLASSES[first], CLASSES[second]))
    for kind, sign in zip(kinds, (want >> 31).tolist(), strict=True):
        coverage.hit("result", (CLASSES[kind], ("plus", "minus")[sign]))
    coverage.sample("overflow", overflow)
    for kind, lossy in zip(kinds, inexact.tolist(), strict=True):
        if kind < 3:
            coverage.hit("rounded", (CLASSES[kind], lossy))
    coverage.close()

    latency = Fp32Multiplier.latency
    built = build_design(Fp32Multiplier(), "fp32_multiplier")
    inputs = {name: np.append(bits, [0] * latency).astype(np.uint64) for name, bits in (("a", a), ("b", b))}
    got = play(built, inputs, ["o", "overflow"], seed=seed)
    np.testing.assert_array_equal(got["o"][latency:], want)
    np.testing.assert_array_equal(got["overflow"][latency:].astype(bool), overflow)


class Narrowing(wiring.Component):
    """Fp32ToFp16 with a register behind it, for the player's clock."""

    i: In(FP32)
    o: Out(FP16)
    saturated: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.narrow = narrow = Fp32ToFp16()
        m.d.comb += narrow.i.eq(self.i)
        m.d.sync += [self.o.eq(narrow.o), self.saturated.eq(narrow.saturated)]
        return m


@pytest.mark.sim
def test_narrowing(seed):
    """Every FP16 number, every midpoint between two neighbours, and the float32 on either side of each."""
    half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(over="ignore"):
        above = np.append(half[1:], 65536.0)
        points = np.concatenate([half, (half + above) / 2]).astype(np.float32).view(np.uint32).astype(np.int64)
    near = np.concatenate(
        [points - 1, points, points + 1, [0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF]]
    )
    bits = np.concatenate([near[near >= 0], near[near >= 0] | 1 << 31]).astype(np.uint32)

    with np.errstate(all="ignore"):
        narrow = bits.view(np.float32).astype(np.float16).view(np.uint16)
    nan = np.isnan(bits.view(np.float32))
    saturated = ~nan & (narrow & 0x7FFF == 0x7C00)
    want = np.where(saturated, narrow & 0x8000 | LARGEST, narrow)
    want = np.where(nan, FP16_NAN, np.where(narrow & 0x7FFF == 0, 0, want))

    inputs = {"i": np.append(bits, 0).astype(np.uint64)}
    got = play(build_design(Narrowing(), "narrowing"), inputs, ["o", "saturated"], seed=seed)
    np.testing.assert_array_equal(got["o"][1:], want)
    np.testing.assert_array_equal(got["saturated"][1:].astype(bool), saturated)

"""FP32 sums of numbers that are normal or zero, against numpy's float32."""

import numpy as np
from amaranth.sim import Simulator

from hw.arith.fp32_normal import FiniteAdder


def operands(rng, count):
    """float32 ``[count, 2]``: any exponents, near ones, equal magnitudes, zeros, sums halfway between two numbers."""
    exponent = rng.integers(-60, 61, count)
    near = rng.random(count) < 0.7
    other = np.where(near, exponent + rng.integers(-3, 4, count), exponent + rng.integers(-40, 41, count))
    pair = np.ldexp(1 + rng.random((count, 2)), np.stack([exponent, other], 1)).astype(np.float32)
    short = rng.random(count) < 0.3
    bits = pair.view(np.uint32)
    bits[short] &= np.uint32(0xFFFFFF00) << rng.integers(0, 12, (int(short.sum()), 1)).astype(np.uint32)
    same = rng.random(count) < 0.05
    pair[same, 1] = pair[same, 0]
    half = rng.random(count) < 0.2
    pair[half, 1] = np.spacing(pair[half, 0]) * rng.choice([0.5, 1.5, 0.25, 0.75], int(half.sum()))
    pair[rng.random((count, 2)) < 0.03] = 0
    sign = rng.choice([-1, 1], (count, 2)).astype(np.float32)
    return np.where(pair == 0, pair, pair * sign)


def test_finite_adder(rng):
    dut, pairs = FiniteAdder(), operands(rng, 600)
    expected = (pairs[:, 0] + pairs[:, 1]) + np.float32(0)
    assert (expected == 0).sum() > 3

    async def bench(context):
        for number in range(len(pairs) + dut.latency):
            if number >= dut.latency:
                at = number - dut.latency
                assert context.get(dut.o.as_value()) == int(expected[at : at + 1].view(np.uint32)[0]), pairs[at]
            for port, x in zip((dut.a, dut.b), pairs[min(number, len(pairs) - 1)], strict=True):
                context.set(port.as_value(), int(np.float32(x).view(np.uint32)))
            await context.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()

"""What the compared route does with exact tokens, in small: every code, and numbers against numpy's own rounding."""

import numpy as np
from amaranth.lib import wiring
from amaranth.sim import Simulator

from studies.attention.baseline_exact import ExactElements, ScaledScore, ScaledWeight


def play(component: wiring.Component, latency: int, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """``o`` for each cycle's inputs."""
    found = []

    async def bench(context):
        count = len(next(iter(inputs.values())))
        for cycle in range(count + latency):
            for name, values in inputs.items():
                context.set(getattr(component, name).as_value(), int(values[min(cycle, count - 1)]))
            if cycle >= latency:
                found.append(context.get(component.o.as_value()))
            await context.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(found)


def test_every_code():
    codes = np.arange(-128, 128).astype(np.int8)
    found = play(ExactElements(1), 1, {"i": codes.view(np.uint8)})
    np.testing.assert_array_equal(found.astype(np.uint16).view(np.float16), codes.astype(np.float16))


def test_scaled_scores(rng):
    sums = (rng.normal(size=300) * 2.0 ** rng.integers(-20, 20, 300)).astype(np.float32)
    scales = np.exp(rng.normal(size=300) * 4 - 6).astype(np.float16)
    found = play(ScaledScore(), ScaledScore.latency, {"i": sums.view(np.uint32), "scale": scales.view(np.uint16)})
    np.testing.assert_array_equal(found.astype(np.uint32).view(np.float32), sums * scales.astype(np.float32))


def test_scaled_weights(rng):
    p, scales = (np.exp(rng.normal(size=300) * 4 - 6).astype(np.float16) for _ in range(2))
    found = play(ScaledWeight(), ScaledWeight.latency, {"i": p.view(np.uint16), "scale": scales.view(np.uint16)})
    np.testing.assert_array_equal(found.astype(np.uint16).view(np.float16), p * scales)

"""SkidBuffer: order, throughput, latency, the rules of streams, and reset in the midst of a packet."""

import re

import numpy as np
import pytest
from amaranth.lib import data

from hw.streams.skid_buffer import SkidBuffer
from sim.design import build_design
from sim.job import run_job
from sim.layout import pack

WIDTH = 40


@pytest.fixture(scope="module")
def skid_buffer():
    return build_design(SkidBuffer(WIDTH), "skid_buffer")


def payloads(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 1 << WIDTH, count, dtype=np.uint64)


@pytest.mark.parametrize("shape", [None, "8", 1.5])
def test_bad_shape_is_named(shape):
    with pytest.raises(TypeError, match=f"shape must be shape-like.*not {re.escape(repr(shape))}"):
        SkidBuffer(shape)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("idle", "stall", "burst"), [(0, 0, 1), (0.5, 0, 1), (0, 0.5, 1), (0.3, 0.3, 1), (0.2, 0.9, 1), (0.5, 0.5, 8)]
)
def test_random_traffic(skid_buffer, rng, seed, idle, stall, burst):
    sent = payloads(rng, 3000)
    resets = rng.integers(1, 200, 4)
    result = run_job(
        skid_buffer, {"i": sent}, {"o": len(sent)}, idle=idle, stall=stall, burst=burst, resets=resets, seed=seed
    )
    np.testing.assert_array_equal(result.outputs["o"], sent)


@pytest.mark.sim
def test_latency_and_throughput(skid_buffer, rng, seed):
    sent = payloads(rng, 500)
    result = run_job(skid_buffer, {"i": sent}, {"o": len(sent)}, seed=seed)
    np.testing.assert_array_equal(np.diff(result.input_cycles["i"]), 1)
    np.testing.assert_array_equal(result.output_cycles["o"] - result.input_cycles["i"], SkidBuffer.latency)


@pytest.mark.sim
def test_valid_does_not_wait_for_ready(skid_buffer, rng, seed):
    sent = payloads(rng, 200)
    result = run_job(skid_buffer, {"i": sent}, {"o": len(sent)}, wait_for_valid=True, seed=seed)
    np.testing.assert_array_equal(result.outputs["o"], sent)


@pytest.mark.sim
def test_struct_payload(rng, seed):
    layout = data.StructLayout({"sign": 1, "value": 99, "last": 1})
    value = np.frombuffer(rng.bytes(50 * 13), np.uint8).reshape(50, 13) & np.array([255] * 12 + [7], np.uint8)
    sent = pack(layout, {"sign": rng.integers(0, 2, 50), "value": value, "last": rng.integers(0, 2, 50)})
    built = build_design(SkidBuffer(layout), "skid_buffer_struct")
    result = run_job(built, {"i": sent}, {"o": 50}, idle=0.3, stall=0.3, seed=seed)
    np.testing.assert_array_equal(result.outputs["o"], sent)

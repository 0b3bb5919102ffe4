"""The KV dequant engine against the exact model: every format, transform and size, good packets and bad ones."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from golden.kv.engine_model import decode
from golden.kv.pack import pack_block, unpack_block
from sim.job import run_job, run_jobs
from spec.kv_config import KvEngineConfig
from verif.kv.bench import CONFIGS, compare, engine_job
from verif.kv.blocks import random_block, random_header
from verif.kv.expected import expect

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
TRAFFIC = [{}, {"idle": 0.4, "stall": 0.4}, {"idle": 0.1, "stall": 0.8, "burst": 6.0}]


def vector_packet(vector) -> bytes:
    return bytes.fromhex("".join(vector["bytes"]))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_hand_worked_vectors_meet_the_model(vector):
    assert not expect(vector_packet(vector), CONFIGS[4]).marked.any()
    decoded = decode(unpack_block(vector_packet(vector)))
    worked = [[float(Fraction(x)) for x in row] for row in vector["values"]]
    np.testing.assert_array_equal(decoded.values.astype(np.float64), worked)
    np.testing.assert_array_equal(decoded.tokens, vector["tokens"])


@pytest.mark.sim
def test_hand_worked_vectors(engine, seed):
    config, built = engine
    job, expected = engine_job([vector_packet(vector) for vector in VECTORS], config)
    compare(
        run_job(built, job.inputs, job.outputs, signals=job.signals, observe=job.observe, seed=seed), expected, config
    )


@pytest.mark.sim
def test_random_blocks(engine, rng, seed):
    config, built = engine
    jobs, expectations = [], []
    for options in TRAFFIC:
        headers = [random_header(rng, config, rows=int(rng.choice([1, 2, 7, 40]))) for _ in range(60)]
        job, expected = engine_job([pack_block(random_block(rng, header)) for header in headers], config, **options)
        jobs.append(job)
        expectations.append(expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        compare(result, expected, config)


def spoil(rng, packet: bytes, config: KvEngineConfig) -> bytes:
    """The packet made bad in one of many ways; sometimes it stays good."""
    size = config.input_bits // 8
    data = bytearray(packet)
    kind = rng.choice(["header", "flip", "short", "long", "noise"])
    if kind == "header":
        data[int(rng.integers(8))] ^= 1 << int(rng.integers(8))
    elif kind == "flip":
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(8, len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == "short":
        data = data[: size * int(rng.integers(1, len(data) // size + 1))]
    elif kind == "long":
        data += rng.bytes(size * int(rng.integers(1, 12)))
    else:
        data = bytearray(rng.bytes(size * int(rng.integers(1, 60))))
    return bytes(data)


@pytest.mark.sim
def test_bad_packets_are_marked_and_forgotten(engine, rng, seed):
    config, built = engine
    jobs, expectations = [], []
    for options in TRAFFIC:
        packets = []
        for _ in range(60):
            packet = pack_block(random_block(rng, random_header(rng, config, rows=int(rng.choice([1, 3, 12])))))
            packets += [spoil(rng, packet, config), packet]
        job, expected = engine_job(packets, config, **options)
        jobs.append(job)
        expectations.append(expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        assert sum(bool(packet.error) for packet in expected) > 20
        assert not any(packet.error for packet in expected[1::2])
        compare(result, expected, config)


@pytest.mark.sim
def test_reset_in_mid_packet(engine, rng, seed):
    config, built = engine
    packets = [pack_block(random_block(rng, random_header(rng, config, rows=20))) for _ in range(8)]
    job, expected = engine_job(packets, config, idle=0.2, stall=0.3, resets=[int(x) for x in rng.integers(1, 900, 6)])
    result = run_jobs(built, [job], seed=seed)[0]
    compare(result, expected, config)

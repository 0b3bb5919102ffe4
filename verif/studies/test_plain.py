"""The plain alternatives that the engine's area is compared with do the same: bit exact on every format they take."""

import pytest

from golden.kv.pack import pack_block
from sim.design import build_design
from sim.job import run_jobs
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvTransform
from studies.kv.plain import PLAIN, PlainDequantizer, PlainLanes
from verif.kv.bench import compare, engine_job
from verif.kv.blocks import random_block, random_header

CONFIG = KvEngineConfig(lanes=4, max_channels=64, transforms=frozenset())


@pytest.mark.sim
@pytest.mark.parametrize("method", PLAIN)
def test_same_elements(method, rng, seed):
    built = build_design(PlainDequantizer(CONFIG, method), "plain_dequantizer")
    jobs, expectations = [], []
    for options in ({}, {"idle": 0.3, "stall": 0.5}):
        headers = [random_header(rng, CONFIG, rows=int(rng.choice([1, 5, 40]))) for _ in range(60)]
        job, expected = engine_job([pack_block(random_block(rng, header)) for header in headers], CONFIG, **options)
        jobs.append(job)
        expectations.append(expected)
        assert not any(packet.error for packet in expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        compare(result, expected, CONFIG)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="method must be one of multiply-add, adder, FP16 multiply-add, not 'table'"):
        PlainLanes(CONFIG, "table")
    with pytest.raises(ValueError, match="transforms must be none"):
        PlainLanes(KvEngineConfig(transforms={KvTransform.WHT}), PLAIN[0])

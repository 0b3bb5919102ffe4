"""Engines built for some of the formats: exact on those, and a block of another one is an error like any other."""

import pytest

from golden.kv.pack import pack_block
from sim.job import run_jobs
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat
from verif.kv.bench import build_engine, compare, engine_job
from verif.kv.blocks import random_block, random_header

CONFIGS = {
    name: KvEngineConfig(lanes=4, max_channels=64, transforms=frozenset(), formats=frozenset(kinds))
    for name, kinds in {
        "keys": (KvFormat.K1, KvFormat.K2S),
        "values": (KvFormat.V158, KvFormat.V2),
        "ternary": (KvFormat.V158,),
    }.items()
}


@pytest.mark.sim
@pytest.mark.parametrize("name", CONFIGS)
def test_its_formats_and_no_other(name, rng, seed):
    config = CONFIGS[name]
    absent = sorted(set(KvEngineConfig().formats) - config.formats)
    jobs, expectations = [], []
    for options in ({}, {"idle": 0.3, "stall": 0.5}):
        packets = []
        for k in range(90):
            kind = {"format": absent[k // 3 % len(absent)]} if k % 3 == 2 else {}
            header = random_header(rng, config, rows=int(rng.choice([1, 5, 40])), **kind)
            packets.append(pack_block(random_block(rng, header)))
        job, expected = engine_job(packets, config, **options)
        assert [packet.error for packet in expected] == [KvError.NONE, KvError.NONE, KvError.FORMAT] * 30
        jobs.append(job)
        expectations.append(expected)
    for result, expected in zip(run_jobs(build_engine(config), jobs, seed=seed), expectations, strict=True):
        compare(result, expected, config)

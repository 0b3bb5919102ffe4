"""`ValueCore` against the exact model: formats, exact tokens, bad packets and weights, real caches, rate."""

import numpy as np
import pytest
import torch

from hw.attention.value import ValueCore
from hw.spec.attention import AttentionConfig
from hw.spec.kv_formats import KvFormat, KvTransform
from sim.design import build_design
from sim.job import run_jobs
from verif.attention.value_lists import Run, ValueList, compare_values, value_job
from verif.kv.blocks import random_block, random_header

CONFIGS = (AttentionConfig(), AttentionConfig(channels=128, weight_bits=8))
FORMATS = (KvFormat.V158, KvFormat.V2)
TRAFFIC = [{}, {"idle": 0.3, "stall": 0.3}, {"idle": {"i": 0.7}, "stall": 0.1, "burst": 4.0}]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda c: f"{c.channels}")
def core(request):
    return request.param, build_design(ValueCore(request.param), "value_core")


def random_weights(rng, rows):
    """Probabilities over the whole range of FP16, zeros and subnormals among them."""
    p = np.exp(rng.normal(size=rows) * rng.integers(1, 6)) * 2.0 ** -rng.integers(0, 16)
    return torch.from_numpy(np.where(rng.random(rows) < 0.05, 0, p)).clamp(max=1).half()


def random_item(rng, config, channels, rows):
    if rng.random() < 0.35:
        cuts = tuple(int(n) for n in rng.integers(1, max(2, rows // 4), rng.integers(1, 4)))
        tokens = sum(cuts)
        codes = torch.from_numpy(rng.integers(-128, 128, (tokens, channels))).to(torch.int8)
        scale = torch.from_numpy(np.exp(rng.normal(size=tokens) * 3) / 64).half()
        scale[torch.from_numpy(rng.random(tokens) < 0.1)] *= 2.0**-12
        return Run(codes, scale, cuts)
    header = random_header(rng, config.parser, rows=rows, format=KvFormat(rng.choice(FORMATS)), channels=channels,
                           segment0=channels, transform0=KvTransform.NONE)  # fmt: skip
    return random_block(rng, header)


def random_list(rng, config, channels, items=3, rows=20):
    found = [random_item(rng, config, channels, rows) for _ in range(items)]
    sizes = [len(item.codes) for item in found]
    return ValueList(found, [random_weights(rng, size) for size in sizes])


@pytest.mark.sim
def test_random_lists(core, rng, seed):
    config, built = core
    jobs, expectations = [], []
    for channels in (64, config.channels, 8 * int(rng.integers(1, 9)), 8 * int(rng.integers(1, config.channels // 8))):
        for options in TRAFFIC:
            lists = [random_list(rng, config, channels) for _ in range(6)]
            lists.append(random_list(rng, config, channels, items=1, rows=128))
            job, expected = value_job(lists, config, **options)
            jobs.append(job)
            expectations.append(expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        compare_values(result, expected)

"""`ScoreCore` against the exact model: formats, transforms, exact tokens, bad packets, real caches."""

import numpy as np
import pytest
import torch

from hw.attention.score import ScoreCore
from hw.spec.attention import AttentionConfig
from hw.spec.kv_formats import KvFormat
from sim.design import build_design
from sim.job import run_jobs
from verif.attention.bench import Exact, KeyList, compare_scores, score_job
from verif.kv.blocks import random_block, random_header

CONFIG = AttentionConfig()
TRAFFIC = [{}, {"idle": 0.3, "stall": 0.3}, {"idle": {"i": 0.7}, "stall": 0.1, "burst": 4.0}]
FORMATS = (KvFormat.K1, KvFormat.K2S)


@pytest.fixture(scope="module")
def core():
    return build_design(ScoreCore(CONFIG), "score_core")


def random_run(rng, channels, tokens):
    codes = torch.from_numpy(rng.integers(-128, 128, (tokens, channels))).to(torch.int8)
    scales = [torch.from_numpy(np.exp(rng.normal(size=tokens) * 3) / 64).half() for _ in range(2)]
    scales[0][rng.random(tokens) < 0.1] *= 2.0**-12
    return Exact(codes, *scales)


def random_list(rng, config, items=3, rows=20, **fixed):
    """A list of one layout: blocks and runs in any order."""
    first = random_header(
        rng, config.parser, format=fixed.pop("format", None) or KvFormat(rng.choice(FORMATS)), **fixed
    )
    layout = random_block(rng, first)
    found = []
    for _ in range(items):
        if rng.random() < 0.35:
            found.append(random_run(rng, first.channels, int(rng.integers(1, rows // 3 + 2))))
            continue
        names = ("format", "channels", "segment0", "transform0", "transform1")
        header = random_header(rng, config.parser, rows=rows, **{name: getattr(first, name) for name in names})
        block = random_block(rng, header)
        found.append(type(block)(header, layout.channels, block.tokens, block.scales, block.minima, block.codes))
    query = torch.from_numpy(rng.normal(size=first.channels) * 2.0 ** rng.integers(-6, 5)).half()
    return KeyList(query, first, layout.channels, found, {}, {})


@pytest.mark.sim
def test_random_lists(core, rng, seed):
    jobs, expectations = [], []
    for options in TRAFFIC:
        job, expected = score_job([random_list(rng, CONFIG) for _ in range(12)], CONFIG, **options)
        jobs.append(job)
        expectations.append(expected)
    for result, expected in zip(run_jobs(core, jobs, seed=seed), expectations, strict=True):
        compare_scores(result, expected)
        assert result.observed["error_count"] == 0

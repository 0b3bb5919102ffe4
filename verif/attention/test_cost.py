"""Cycles that the cost report counts with, against a simulation of the same workload."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gen.attention_cost import EXACT_ROWS, Workload, array_busy, score_cycles, value_cycles
from golden.kv.block import Block
from hw.attention.score import ScoreCore
from hw.attention.value import ValueCore
from hw.spec.attention import AttentionConfig
from hw.spec.kv_formats import KvFormat, KvMetadata, KvTransform
from sim.design import build_design
from sim.job import run_jobs
from verif.attention.bench import Exact, KeyList, compare_scores, score_job
from verif.attention.value_lists import Run, ValueList, compare_values, value_job
from verif.kv.blocks import random_block, random_header

CONFIG = AttentionConfig()


def default_list(rng, work: Workload) -> KeyList:
    """Random contents in the default formats: sinks, blocks, residual."""
    layout, items = None, []
    for rows in work.blocks:
        header = random_header(rng, CONFIG.parser, format=KvFormat.K2S, channels=work.head_dim,
                               segment0=work.head_dim // 2, transform0=KvTransform.WHT, transform1=KvTransform.WHT,
                               metadata=KvMetadata.F6, span=0)  # fmt: skip
        block = random_block(rng, replace(header, rows=rows))
        layout = layout if layout is not None else block.channels
        items.append(Block(block.header, layout, block.tokens, block.scales, None, block.codes))
    runs = []
    for tokens in work.runs:
        codes = torch.from_numpy(rng.integers(-127, 128, (tokens, work.head_dim))).to(torch.int8)
        runs.append(Exact(codes, torch.ones(tokens).half(), torch.ones(tokens).half()))
    query = torch.from_numpy(rng.normal(size=work.head_dim)).half()
    return KeyList(query, items[0].header, layout, [runs[0], *items, runs[1]], {}, {})


@pytest.mark.sim
def test_score_cycles(rng, seed):
    work = Workload()
    assert work.blocks == [112, *[128] * 6]
    assert work.runs == [16, 128]
    built = build_design(ScoreCore(CONFIG), "score_core")
    job, expected = score_job([default_list(rng, work) for _ in range(3)], CONFIG)
    (result,) = run_jobs(built, [job], seed=seed)
    compare_scores(result, expected)
    ends = result.output_cycles["o"][np.flatnonzero([score["final"] for score in expected])]
    measured = np.diff(ends)
    counted = score_cycles(work, CONFIG)
    assert (abs(measured - counted) <= 0.02 * counted).all(), (measured, counted)
    assert array_busy(work, CONFIG) >= 0.9


def value_list(rng, work: Workload) -> ValueList:
    """Random contents in the default formats: sinks, blocks, residual, in groups of the size that the report counts."""
    items = []
    for rows in work.blocks:
        header = random_header(rng, CONFIG.parser, format=KvFormat.V158, channels=work.head_dim,
                               segment0=work.head_dim, transform0=KvTransform.NONE, metadata=KvMetadata.F6, span=0,
                               exponent0=-12)  # fmt: skip
        items.append(random_block(rng, replace(header, rows=rows)))
    runs = []
    for tokens in work.runs:
        codes = torch.from_numpy(rng.integers(-127, 128, (tokens, work.head_dim))).to(torch.int8)
        cuts = [min(EXACT_ROWS, tokens - start) for start in range(0, tokens, EXACT_ROWS)]
        runs.append(Run(codes, torch.ones(tokens).half(), tuple(cuts)))
    items = [runs[0], *items, runs[1]]
    sizes = [len(item.codes) for item in items]
    p = torch.from_numpy(rng.normal(size=sum(sizes)) * 3).softmax(0).half()
    return ValueList(items, list(torch.split(p, sizes)))


@pytest.mark.sim
def test_value_cycles(rng, seed):
    work = Workload()
    built = build_design(ValueCore(CONFIG), "value_core")
    job, expected = value_job([value_list(rng, work) for _ in range(4)], CONFIG)
    (result,) = run_jobs(built, [job], seed=seed)
    compare_values(result, expected)
    measured = np.diff(result.output_cycles["o"][work.head_dim - 1 :: work.head_dim])
    counted = value_cycles(work, CONFIG)
    assert (abs(measured - counted) <= 0.02 * counted).all(), (measured, counted)

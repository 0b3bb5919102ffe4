"""Throughput: a beat per cycle but for the few cycles between blocks, over a hundred blocks of each format."""

import json
import os

import numpy as np
import pytest

from golden.kv.pack import pack_block
from sim.build import ROOT
from sim.job import run_jobs
from spec.kv_block import KvHeader
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from verif.kv.bench import compare, engine_job
from verif.kv.blocks import random_block

RATES = ROOT / "build" / "verif" / "kv-rates"
NONE, WHT, RFFT = KvTransform.NONE, KvTransform.WHT, KvTransform.RFFT
KINDS = {
    "K1": {"format": KvFormat.K1},
    "K2S": {"format": KvFormat.K2S},
    "K2": {"format": KvFormat.K2, "metadata": KvMetadata.Q8},
    "V158": {"format": KvFormat.V158},
    "V2": {"format": KvFormat.V2, "metadata": KvMetadata.Q8},
    "K2S+K1": {"format": KvFormat.K2S, "split": True},
    "K1 wht": {"format": KvFormat.K1, "transform": WHT},
    "K2S wht": {"format": KvFormat.K2S, "transform": WHT},
    "V158 wht": {"format": KvFormat.V158, "transform": WHT},
    "K2S+K1 wht": {"format": KvFormat.K2S, "split": True, "transform": WHT},
    "K1 rfft": {"format": KvFormat.K1, "transform": RFFT},
    "K2S+K1 rfft": {"format": KvFormat.K2S, "split": True, "transform": RFFT},
}
BLOCKS = 100
FEW_BLOCKS = 10
SMALLEST_GROUP = 32
GROUP = 128
SMALLEST_KEPT = {4: 32, 8: 64, 16: 64, 32: 128}
"""Tokens per block from which on every format keeps its rate."""


def header(kind: dict, channels: int, rows: int) -> KvHeader:
    """Halves of the channels where the format is split; 6-bit scales but where there are minima."""
    transform, split = kind.get("transform", NONE), kind.get("split", False)
    return KvHeader(
        format=kind["format"],
        metadata=kind.get("metadata", KvMetadata.F6),
        channels=channels,
        segment0=channels // 2 if split else channels,
        transform0=transform,
        transform1=transform if split else NONE,
        rows=rows,
        exponent0=-12,
        exponent1=-12,
    )


def promised(config: KvEngineConfig, kind: dict) -> int:
    """Elements per cycle while a block streams: rfft has one pipeline of 4."""
    return 4 if kind.get("transform") is RFFT else config.lanes


@pytest.mark.sim
def test_rates(engine, rng, seed):
    """Blocks of 128 tokens and the shortest that keep the rate, back to back; for the report blocks of the smallest
    group."""
    config, built = engine
    lanes = config.lanes
    channels = 32 if lanes == 4 else 64
    rows = SMALLEST_KEPT[lanes]
    jobs, names = [], []
    for name, kind in KINDS.items():
        if kind.get("transform", NONE) not in {NONE, *config.transforms}:
            continue
        slow = promised(config, kind) < lanes
        lengths = {SMALLEST_GROUP: FEW_BLOCKS} | dict.fromkeys((rows, GROUP), FEW_BLOCKS if slow else BLOCKS)
        for tokens, count in lengths.items():
            block = random_block(rng, header(kind, channels, tokens))  # contents do not matter, but they are compared
            jobs.append(engine_job([pack_block(block)] * count, config))
            names.append((name, tokens, count))
    rates = {}
    results = run_jobs(built, [job for job, _ in jobs], seed=seed)
    for result, (_, expected), (name, tokens, count) in zip(results, jobs, names, strict=True):
        compare(result, expected, config)
        cycles = result.output_cycles["o"]
        rate = channels * tokens * count / int(cycles[-1] - cycles[0] + 1)
        entry = rates.setdefault(name, {"promised": promised(config, KINDS[name])})
        if tokens == SMALLEST_GROUP:
            entry["rate_smallest_group"] = rate
        if tokens == GROUP:
            entry["rate_128"] = rate
        if tokens == rows:
            entry |= {"tokens": tokens, "blocks": count, "rate": rate, "first_element": int(cycles[0])}
            entry["longest_gap"] = int(np.diff(cycles).max()) - 1
    RATES.mkdir(parents=True, exist_ok=True)
    part = RATES / f".{lanes}-{os.getpid()}"
    part.write_text(json.dumps(rates, indent=2) + "\n")
    os.replace(part, RATES / f"{lanes}.json")
    for name, entry in rates.items():
        assert min(entry["rate"], entry["rate_128"]) >= 0.95 * entry["promised"], (name, entry)

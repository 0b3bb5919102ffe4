"""`ScoreCore` against the exact model: formats, transforms, exact tokens, bad packets, real caches."""

import numpy as np
import pytest
import torch

from golden.kv.pack import pack_block
from hosts.attention.lists import Exact, KeyList, compare_scores, score_job
from hw.attention.score.core import ScoreCore
from sim.design import build_design
from sim.job import run_jobs
from spec.attention import BUS_BYTES, AttentionConfig, AttentionError
from spec.kv_block import KvHeader
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvTransform
from verif.kv.blocks import random_block, random_header

BOTH = frozenset({KvTransform.WHT, KvTransform.RFFT})
CONFIG = AttentionConfig(minima=True, transforms=BOTH)
TRAFFIC = [{}, {"idle": 0.3, "stall": 0.3}, {"idle": {"i": 0.7}, "stall": 0.1, "burst": 4.0}]
FORMATS = (KvFormat.K1, KvFormat.K2S, KvFormat.K2)


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


def spoil(rng, found: KeyList, number: int) -> KvError:
    """Makes packet ``number`` of the list bad; what must come of it goes into ``found.bad``."""
    item = found.items[number]
    exact = isinstance(item, Exact)
    good = item.packet() if exact else pack_block(item)
    beats = len(good) // BUS_BYTES
    kinds = ["short"] if exact else ["header", "format", "short", "long", "prefix", "layout"]
    kind = rng.choice(kinds)
    if kind == "short":
        per_row = CONFIG.token_bytes(item.codes.shape[1]) if exact else item.header.row_bits // 8
        offset = 0 if exact else item.header.rows_offset
        kept = int(rng.integers(1, beats)) if beats > 1 else 1
        while exact and kept < beats and kept * BUS_BYTES % per_row < BUS_BYTES:
            kept += 1  # with a slot's last beat the run would merely be shorter; a slot of one beat has no other
        if kept >= beats:
            return KvError.NONE
        rows = max(0, kept * BUS_BYTES - offset) // per_row
        found.packets[number], found.bad[number] = good[: kept * BUS_BYTES], (rows + 1, rows)
        return KvError.SHORT
    if kind == "long":
        found.packets[number] = good + rng.bytes(BUS_BYTES * int(rng.integers(1, 9)))
        found.bad[number] = (item.header.rows, item.header.rows - 1)
        return KvError.LONG
    found.bad[number] = (1, 0)
    if kind == "header":
        found.packets[number] = bytes([good[0] ^ 1 << int(rng.integers(8))]) + good[1:]
        return KvError.HEADER
    if kind == "prefix":
        found.packets[number] = good[: BUS_BYTES * max(1, item.header.rows_offset // BUS_BYTES)]
        return KvError.SHORT
    fields = vars(item.header)
    if kind == "format":
        header = KvHeader(**(fields | {"format": KvFormat.V158, "segment0": item.header.channels,
                                       "transform0": KvTransform.NONE, "transform1": KvTransform.NONE}))  # fmt: skip
        found.packets[number] = pack_block(random_block(rng, header))
        return KvError.FORMAT
    channels = item.header.channels
    other = random_header(rng, CONFIG.parser, format=KvFormat.K1, channels=channels + (8 if channels < 64 else -8))
    found.packets[number] = pack_block(random_block(rng, other))
    return AttentionError.LAYOUT


@pytest.mark.sim
def test_bad_packets_are_marked_and_forgotten(core, rng, seed):
    jobs, expectations, counts = [], [], []
    for options in TRAFFIC:
        lists, errors = [], []
        for _ in range(12):
            lists.append(random_list(rng, CONFIG, items=4, rows=24))
            errors += [spoil(rng, lists[-1], number) for number in range(4) if rng.random() < 0.6]
        job, expected = score_job(lists, CONFIG, **options)
        jobs.append(job)
        expectations.append(expected)
        counts.append([error for error in errors if error])
    for result, expected, errors in zip(run_jobs(core, jobs, seed=seed), expectations, counts, strict=True):
        compare_scores(result, expected)
        assert result.observed["error"] == errors[0]
        assert result.observed["error_count"] == len(errors) > 5


@pytest.mark.sim
def test_bad_scales_and_queries_mark_what_they_touch(core, rng, seed):
    run = random_run(rng, 64, 9)
    run.scale[2], run.scale[5] = torch.inf, -1.0
    lists = [random_list(rng, CONFIG, channels=64) for _ in range(3)]
    plain = random_list(rng, CONFIG, channels=64)
    lists[0].query[7] = torch.nan
    lists[1].query[60] = -torch.inf
    lists += [KeyList(plain.query, plain.header, plain.channels, [run], {}, {}), plain]
    job, expected = score_job(lists, CONFIG, idle=0.1)
    start = len(expected) - len(score_job([plain], CONFIG)[1]) - len(run.scale)
    for row in (2, 5):
        expected[start + row]["marked"] = 1
    (result,) = run_jobs(core, [job], seed=seed)
    compare_scores(result, expected)


@pytest.mark.full
@pytest.mark.sim
def test_two_steps_per_row(rng, seed):
    """A build for 128 channels, with the widest integers."""
    config = AttentionConfig(channels=128, query_bits=16, fold_bits=16, transforms=BOTH)
    core = build_design(ScoreCore(config), "score_core_128")
    lists = [random_list(rng, config, format=kind) for kind in (KvFormat.K1, KvFormat.K2S) for _ in range(4)]
    job, expected = score_job(lists, config, idle=0.1, stall=0.1)
    (result,) = run_jobs(core, [job], seed=seed)
    compare_scores(result, expected)


@pytest.mark.sim
def test_reset_in_mid_packet(core, rng, seed):
    lists = [random_list(rng, CONFIG) for _ in range(5)]
    resets = [int(x) for x in rng.integers(1, 900, 4)]
    job, expected = score_job(lists, CONFIG, idle=0.2, stall=0.2, resets=resets)
    (result,) = run_jobs(core, [job], seed=seed)
    compare_scores(result, expected)

"""Cycles that the cost report counts with, against a simulation of the same workload."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.synth.liberty import LibraryError, named_library
from gen.synth.run import measure
from golden.kv.block import Block
from hosts.attention.lists import Exact, KeyList, compare_scores, score_job
from hosts.attention.value_lists import Run, ValueList, compare_values, value_job
from hw.attention.score.core import ScoreCore
from hw.attention.value.core import ValueCore
from sim.design import build_design
from sim.job import run_jobs
from spec.attention import AttentionConfig
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from studies.attention.workload import EXACT_ROWS, Workload, array_busy, score_cycles, value_cycles
from verif.kv.blocks import random_block, random_header

CONFIG = AttentionConfig()
LEAST_RATIO = {1: 8.0, 3: 7.0}
"""Gate-cycles of the other route over those of this one, by query heads per KV head."""


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


def documented() -> list[dict]:
    """Rows of docs/attention.md's cost table."""
    text = (Path(__file__).parents[2] / "docs" / "attention.md").read_text()
    text = text.partition("<!-- attention cost: begin")[2].partition("<!-- attention cost: end")[0]
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "query head" in cells[0] and len(cells) == 8:
            heads, route = cells[0].split()[0], cells[0].split()[-1]
            gates, _, _, cycles, share = (float(cell.replace(",", "")) for cell in cells[2:7])
            found.append({"heads": int(heads), "route": route, "block": cells[1], "gates": gates, "cycles": cycles,
                          "share": share})  # fmt: skip
    return found


def test_documented_ratios():
    """The table's ratios follow from its gates and from today's cycles, and are what the text promises."""
    work, rows = Workload(), documented()
    cycles = {"score_core": score_cycles(work, CONFIG), "value_core": value_cycles(work, CONFIG)}
    for row in rows:
        if row["route"] == "fused":
            assert row["cycles"] == cycles[row["block"].split(",")[0]]
    for heads, least in LEAST_RATIO.items():
        totals = {
            route: sum(
                row["gates"] * row["cycles"] / row["share"]
                for row in rows
                if row["heads"] == heads and row["route"] == route
            )
            for route in ("baseline", "fused")
        }
        assert totals["baseline"] / totals["fused"] >= least
    assert array_busy(work, CONFIG) >= 0.9


@pytest.mark.full
@pytest.mark.parametrize("core", [ScoreCore, ValueCore], ids=["score_core", "value_core"])
def test_gates_are_the_documented_ones(core):
    """Quick variant, sky130hd: what the table says of the fused route at one query head."""
    try:
        named_library("sky130hd")
    except LibraryError as error:
        pytest.skip(str(error))
    name = {ScoreCore: "score_core", ValueCore: "value_core"}[core]
    (row,) = (row for row in documented() if (row["heads"], row["block"]) == (1, name))
    assert measure(core(CONFIG), "sky130hd", "quick").gate_equivalents == pytest.approx(row["gates"], rel=0.03)

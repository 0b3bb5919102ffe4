"""Attention-aware rounding: against exhaustive search, plain loops and least squares."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from golden.kv import refine as module
from golden.kv.block import key_block
from golden.kv.blocks import plan_keys, plan_values, quantize_keys, quantize_values
from golden.kv.cache import LayerCache
from golden.kv.config import CacheFormat, KeyFormat, ValueFormat
from golden.kv.engine_model import decode
from golden.kv.moments import key_moment, value_moment
from golden.kv.pack import pack_block, unpack_block
from golden.kv.packed import pack_cache
from golden.kv.quantizers import quantize
from golden.kv.refine import refine

ATTENTION = {"rounding": "attention"}


def moment_of(rng, heads, size, rank=3):
    """Few strong directions, as queries have."""
    q = rng.normal(size=(heads, 200, rank)) @ rng.normal(size=(heads, rank, size)) * 3
    return torch.from_numpy((q + 0.3 * rng.normal(size=q.shape)).transpose(0, 2, 1)) @ torch.from_numpy(q) / 200


def symmetric(rng, heads, size):
    m = moment_of(rng, heads, size)
    return m @ m.mT


def weighted(error, moment):
    """Sum over tokens of e^T M e, with M as `refine` uses it."""
    size = moment.shape[-1]
    scaled = moment / moment.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + module.DAMPING * torch.eye(size)
    return torch.einsum("hgtd,hde,hgte->hg", error, scaled, error)


@pytest.mark.parametrize("code", ["binary", "s2", "ternary"])
def test_refined_codes_are_near_the_best_of_all(rng, code):
    """Four channels, scales held: every combination of levels is tried."""
    x = torch.from_numpy(rng.normal(size=(1, 1, 40, 4)))
    moment = symmetric(rng, 1, 4)
    segment = quantize(x, code, metadata="fp16", gamma=0.7)
    got = refine([x], [segment], moment, "fp16")[0]
    levels = {"binary": (-1, 1), "s2": (-3, -1, 1, 3), "ternary": (-1, 0, 1)}[code]
    choices = torch.tensor(list(itertools.product(levels, repeat=4))).double() * got.scales.value[0, 0]
    best = torch.stack(
        [weighted(x[:, :, t : t + 1] - choices[:, None, None].reshape(1, -1, 1, 4), moment).min() for t in range(40)]
    )
    reached = torch.stack([weighted((x - got.values)[:, :, t : t + 1], moment).sum() for t in range(40)])
    nearest = torch.stack([weighted((x - segment.values)[:, :, t : t + 1], moment).sum() for t in range(40)])
    assert (reached >= best - 1e-9).all()
    assert reached.sum() < best.sum() + 0.25 * (nearest.sum() - best.sum())


def test_one_sweep_by_loops(rng, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 0)
    monkeypatch.setattr(module, "SWEEPS", 1)
    x = torch.from_numpy(rng.normal(size=(1, 1, 12, 5)))
    moment = symmetric(rng, 1, 5)
    segment = quantize(x, "s2", metadata="fp16")
    got = refine([x], [segment], moment, "fp16")[0]
    m = (moment[0] / moment[0].diagonal().mean() + module.DAMPING * torch.eye(5)).numpy()
    scale = segment.scales.value[0, 0].numpy()
    for token in range(12):
        levels = 2 * segment.codes[0, 0, token].numpy().astype(int) - 3
        for i in range(5):

            def cost(level, levels=levels, i=i, token=token):
                trial = levels.copy()
                trial[i] = level
                e = x[0, 0, token].numpy() - trial * scale
                return e @ m @ e

            levels[i] = min((-3, -1, 1, 3), key=cost)
        assert (2 * got.codes[0, 0, token].numpy().astype(int) - 3).tolist() == levels.tolist()


def test_refitted_scales_solve_the_normal_equations(rng):
    x = torch.from_numpy(rng.normal(size=(1, 1, 30, 4)))
    moment = symmetric(rng, 1, 4)
    weight = moment / moment.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + torch.eye(4)
    levels = torch.sign(x)
    got = module._least_squares(x, levels, weight)[0, 0].numpy()
    root = np.linalg.cholesky(weight[0].numpy()).T
    rows = np.concatenate([root @ np.diag(levels[0, 0, t].numpy()) for t in range(30)])
    target = np.concatenate([root @ x[0, 0, t].numpy() for t in range(30)])
    expected = np.linalg.lstsq(rows, target, rcond=None)[0]
    assert (expected > 0).all()
    # The ridge that keeps singular problems solvable, 1e-6 of the mean diagonal, moves a solution by this at most.
    gram = rows.T @ rows
    moved = 1e-6 * gram.diagonal().mean() / np.linalg.eigvalsh(gram)[0] * np.linalg.norm(expected)
    assert np.linalg.norm(got - expected) <= moved


@pytest.mark.parametrize("fmt", [KeyFormat(**ATTENTION), KeyFormat(code="ternary", anomalous_code=None, **ATTENTION)])
@pytest.mark.parametrize("transform", ["wht", "rfft", "none"])
def test_key_scores_get_closer_and_the_format_stays(rng, fmt, transform):
    fmt = replace(fmt, transform=transform)
    keys = torch.from_numpy(rng.normal(size=(2, 128, 64)) * np.exp(rng.normal(size=(2, 1, 64)) / 2))
    q = torch.from_numpy(rng.normal(size=(6, 300, 6)) @ rng.normal(size=(6, 6, 64)))
    moment = key_moment(q, 2)
    errors = []
    for rounding in ("nearest", "attention"):
        trial = replace(fmt, rounding=rounding)
        plan = plan_keys(keys, trial, moment)
        blocks = quantize_keys(keys[:, None], plan, trial)
        error = keys - plan.centre[:, None] - blocks.reference()[:, 0]
        errors.append(torch.einsum("htd,hsd->hts", q[[0, 3]], error).square().mean().item())
        packed = unpack_block(pack_block(key_block(blocks, trial, 1, 0, torch.arange(128))))
        np.testing.assert_allclose(decode(packed).values, blocks.reference()[1, 0].numpy(), rtol=0.01, atol=0.02)
    assert errors[1] < 0.6 * errors[0]


def test_values_and_their_moment(rng):
    weight = torch.from_numpy(rng.normal(size=(50, 6 * 16)) @ np.diag(np.exp(rng.normal(size=96))))
    moment = value_moment(weight, 6, 2)
    for kv in range(2):
        expected = sum(
            weight[:, 16 * h : 16 * h + 16].T @ weight[:, 16 * h : 16 * h + 16] for h in range(3 * kv, 3 * kv + 3)
        )
        assert torch.allclose(moment[kv], expected)
    values = torch.from_numpy(rng.normal(size=(2, 64, 16)))
    errors = []
    for rounding in ("nearest", "attention"):
        fmt = ValueFormat(rounding=rounding, metadata="fp16")
        plan = plan_values(values, fmt, moment)
        error = values - quantize_values(values[:, None], plan, fmt).reference()[:, 0]
        errors.append(weighted(error[:, None], moment).sum().item())
    assert errors[1] < 0.9 * errors[0]


def test_key_moment_by_loops(rng):
    q = torch.from_numpy(rng.normal(size=(4, 7, 3)))
    expected = sum(torch.outer(q[h, t], q[h, t]) for h in (2, 3) for t in range(7)) / 14
    assert torch.allclose(key_moment(q, 2)[1], expected)


def test_growing_and_packed_caches_take_moments(rng):
    keys, values = (torch.from_numpy(rng.normal(size=(1, 2, 300, 64))) for _ in range(2))
    moments = [(moment_of(rng, 2, 64) @ moment_of(rng, 2, 64).mT, torch.eye(64).expand(2, -1, -1))]
    moments[0] = (moments[0][0] @ moments[0][0].mT, moments[0][1])
    fmt = CacheFormat(key=KeyFormat(**ATTENTION), value=ValueFormat(**ATTENTION))
    cache = LayerCache(fmt, moments[0])
    cache.prefill(keys[0], values[0])
    packed = pack_cache(keys, values, fmt, moments=moments)
    (_, head, block), *_ = packed.blocks("key")
    expected = cache.key_blocks[0][1].reference()[head, 0].numpy()
    np.testing.assert_allclose(decode(block).values, expected, rtol=2.0**-10, atol=2.0**-10)
    with pytest.raises(ValueError, match="moments must have an entry for each of 1 layers, not 2"):
        pack_cache(keys, values, fmt, moments=moments * 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KeyFormat(rounding="best"), "rounding must be one of"),
        (lambda: KeyFormat(anomalous_code="u2", metadata="q8", **ATTENTION), "rounding must be 'nearest' for u2"),
        (lambda: ValueFormat(code="u2", metadata="q8", **ATTENTION), "rounding must be 'nearest' for u2"),
        (lambda: plan_keys(torch.ones(2, 9, 64), KeyFormat(**ATTENTION)), r"moment must have shape \(2, 64, 64\)"),
        (lambda: plan_values(torch.ones(2, 9, 8), ValueFormat(**ATTENTION), torch.eye(8)), r"not \(8, 8\)"),
        (lambda: key_moment(torch.ones(3, 2, 4), 2), "kv_heads must divide the 3 heads, not 2"),
        (lambda: value_moment(torch.ones(3, 10), 3, 1), "heads and kv_heads must divide 10"),
        (
            lambda: refine(
                [torch.ones(1, 1, 4, 4)], [quantize(torch.ones(1, 1, 4, 4), "u2")], torch.eye(4)[None], "q8"
            ),
            "not 'u2'",
        ),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

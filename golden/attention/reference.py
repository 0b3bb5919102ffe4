"""The float64 oracle of the attention cores and the stated bounds (docs/attention.md, sections 4 and 5)."""

import numpy as np
import torch

from golden.attention.integers import fp16_fields, multipliers, scale_fields
from golden.attention.rfft import rfft_error
from golden.attention.scores import Query, fold
from golden.attention.values import Weights
from golden.kv.block import Block
from golden.kv.transforms import fold_of, inverse, matrix
from spec.kv_formats import KvFormat, KvTransform

__all__ = ["real_block", "score_bound", "value_bound"]

_EPS = 2.0**-23


def real_block(block: Block) -> torch.Tensor:
    """float64 ``[rows, D]`` by channel: scale times code, transformed back, without any rounding."""
    header = block.header
    parts = []
    for segment, (where, transform) in enumerate(
        ((slice(0, header.segment0), header.transform0), (slice(header.segment0, None), header.transform1))
    ):
        if segment and not header.segment1:
            continue
        g, r, *_ = scale_fields(block.scales[where], header, segment)
        scale = torch.ldexp(g.double(), r.int())
        codes = torch.as_tensor(block.codes[:, where].astype(np.int64))
        if segment == 0 and block.minima is not None:
            m, e = fp16_fields(block.minima)
            values = codes * scale + torch.ldexp(m.double(), (e - 25).int())
        elif segment == 0 and header.format is KvFormat.V158:
            values = (codes - 1) * scale
        else:
            kind = KvFormat.K1 if segment else header.format
            values = multipliers(block.codes[:, where], kind) * scale
        if transform is KvTransform.WHT:
            # Stored scales are divided by sqrt(n) already (kv-engine.md T2).
            size = values.shape[1]
            values = inverse(values, "wht") * size**0.5
            assert torch.equal(matrix("wht", size), matrix("wht", size).T)
        elif transform is KvTransform.RFFT:
            values = inverse(values / fold_of("rfft", values.shape[1]), "rfft")
        parts.append(values)
    out = torch.empty(header.rows, header.channels, dtype=torch.float64)
    out[:, torch.as_tensor(block.channels)] = torch.cat(parts, 1)
    return out


def score_bound(
    query: Query, q: torch.Tensor, keys: torch.Tensor, scores: torch.Tensor, block: Block | None
) -> torch.Tensor:
    """Largest error that the document allows each score.

    Parameters
    ----------
    query : Query
    q : torch.Tensor
        float16 ``[D]``.
    keys : torch.Tensor
        float64 ``[rows, D]``, as `real_block` or INT8 codes times scale give them.
    scores : torch.Tensor
        float32 ``[rows]``.
    block : Block or None
        None for exact tokens.
    """
    config = query.config
    bound = 2.0 ** -(config.query_bits - 1) * float(q.double().abs().max()) * keys.abs().sum(1)
    bound = bound + _EPS * scores.double().abs()
    if block is None:
        unit = 2.0 ** (query.unit + config.query_bits - config.fold_bits)
        return bound + unit * keys.abs().sum(1)
    header, n0 = block.header, block.header.segment0
    folded = fold(query, block)
    u0 = multipliers(block.codes[:, :n0], header.format).abs().sum(1)
    bound = bound + 2.0**folded.unit * (u0 + header.segment1)
    for segment, (where, transform) in enumerate(
        ((slice(0, n0), header.transform0), (slice(n0, None), header.transform1))
    ):
        if transform is KvTransform.RFFT:
            g, r, *_ = scale_fields(block.scales[where], header, segment)
            kind = KvFormat.K1 if segment else header.format
            scaled = multipliers(block.codes[:, where], kind).abs() * torch.ldexp(g.double(), r.int())
            size, largest = scaled.shape[1], 2 ** (config.query_bits - 1) - 1
            error = rfft_error(size, largest, config.rotation_bits)
            bound = bound + error * 2.0**query.unit * scaled.sum(1)
    if folded.minima is not None:
        bound = bound + n0 * (3 * 2.0**folded.unit + 2.0**folded.minima_unit)
        # The two terms of S5 may be larger than their sum.
        bound = bound + 2 * _EPS * 2.0**folded.minima_unit * folded.minima.sum().abs()
    return bound


def value_bound(rows: torch.Tensor, weights: Weights, part: torch.Tensor, *, exact: bool) -> torch.Tensor:
    """Largest error that one group may add to each channel; float64 ``[D]``.

    Parameters
    ----------
    rows : torch.Tensor
        float64 ``[rows, D]``: values, or of exact tokens the INT8 codes.
    weights : Weights
    part : torch.Tensor
        float32 ``[D]``: the running sums after the group, whose rounding counts.
    exact : bool
    """
    per_row = 2.0**weights.unit + (2.0**-11 * weights.weight if exact else torch.zeros(len(rows)))
    return (rows.abs() * per_row[:, None]).sum(0) + 4 * _EPS * (
        part.double().abs() + (rows.abs() * weights.weight[:, None]).sum(0)
    )

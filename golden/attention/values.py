"""Bit-exact model of `ValueCore`: equations P and V of docs/attention.md."""

from dataclasses import dataclass

import numpy as np
import torch

from golden.attention.integers import fl32, fp16_fields, rne_shift, scale_fields
from golden.kv.block import Block
from golden.kv.engine_model import round_fp16
from spec.attention import GROUP_ROWS, PLANE_OFFSET, AttentionConfig
from spec.kv_formats import KvFormat

__all__ = ["Weights", "add_block", "add_exact", "align_weights", "finish"]

RESULT_BITS = 11


@dataclass(frozen=True)
class Weights:
    """A group's weights (P1, P2): ``y`` int64 ``[rows]``, worth ``2^unit`` each; ``weight``: w before P2, float64."""

    y: torch.Tensor
    unit: int
    weight: torch.Tensor


def align_weights(probabilities: torch.Tensor, config: AttentionConfig, scale: torch.Tensor | None = None) -> Weights:
    """P1 and P2 of one group; float16 ``[rows]``, in exact rows with the values' scales beside it.

    Raises
    ------
    ValueError
        No row, too many, or numbers that are negative or not finite.
    """
    if not 1 <= len(probabilities) <= GROUP_ROWS:
        raise ValueError(f"probabilities must be 1..{GROUP_ROWS} rows, not {len(probabilities)}")
    for name, x in (("probabilities", probabilities), ("scale", scale)):
        if x is not None and (not torch.isfinite(x).all() or (x < 0).any()):
            raise ValueError(f"{name} must be finite and not negative")
    m, e = fp16_fields(probabilities.numpy().view(np.uint16))
    m, e = m.abs(), e + 25
    if scale is not None:
        g, r = fp16_fields(scale.numpy().view(np.uint16))
        product = m * g.abs()
        drop = torch.where(product >= 1 << 21, 11, 10)
        m, e = rne_shift(product, -drop), e - 25 + r + drop
        carried = m == 1 << RESULT_BITS
        m, e = torch.where(carried, m >> 1, m), e + carried.long()
    top = int(torch.where(m > 0, e, 0).max())
    y = rne_shift(m, e - top + config.weight_bits - RESULT_BITS).clamp(max=(1 << config.weight_bits) - 1)
    unit = top - 50 + RESULT_BITS - config.weight_bits
    return Weights(y, unit, torch.ldexp(m.double(), (e - 50).int()))


def add_block(sums: torch.Tensor, block: Block, weights: Weights) -> torch.Tensor:
    """V1 to V5 of a packed block: the running sums, float32 ``[D]``, with the block's part added."""
    header = block.header
    if header.format not in (KvFormat.V158, KvFormat.V2) or header.transform0:
        raise ValueError(f"format must be V158 or V2 without a transform, not {header.format.name}")
    if len(weights.y) != header.rows:
        raise ValueError(f"weights must have {header.rows} rows, not {len(weights.y)}")
    total = weights.y @ torch.as_tensor(block.codes.astype(np.int64))
    if header.format is KvFormat.V158:
        total = total - weights.y.sum()
    g, r, *_ = scale_fields(block.scales, header, 0)
    sums = sums + fl32(total * g, r + weights.unit)
    if block.minima is not None:
        m, e = fp16_fields(block.minima)
        sums = sums + fl32(weights.y.sum() * m, e - 25 + weights.unit)
    return sums


def add_exact(sums: torch.Tensor, codes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """V1 to V5 of a group of exact tokens, int8 ``[rows, D]``."""
    total = weights.y @ (codes.long() + PLANE_OFFSET) - PLANE_OFFSET * weights.y.sum()
    return sums + fl32(total, weights.unit)


def finish(sums: torch.Tensor) -> tuple[np.ndarray, bool]:
    """V6: float16 ``[D]``, and whether one of them was beyond FP16, which marks the list (OVERFLOW)."""
    values, beyond = round_fp16(sums.double().numpy())
    return values, bool(beyond.any())

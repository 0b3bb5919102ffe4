"""Attention-aware rounding: codes and scales chosen for small errors where they matter, not for small errors.

A key's error e changes the scores by q . e, so what counts is e^T M e with M the mean of q q^T over queries; a value's
error reaches the residual stream through the output projection, M = W_o^T W_o. Codes are improved channel by channel
(each time the best level given the errors of all other channels), scales by least squares for the codes. The stored
format is the same; only the quantizer works harder. The idea is that of GPTQ (arXiv 2210.17323), applied to a cache.
"""

from dataclasses import replace

import torch

from golden.kv.metadata import store_scales
from golden.kv.quantizers import Segment

__all__ = ["refine"]

DAMPING = 0.3
"""Multiple of the identity added to M, in units of its mean diagonal: M is an estimate, and later queries differ."""
ROUNDS = 2
SWEEPS = 2
_SCALE_RANGE = (0.25, 3.0)
"""A refitted scale stays within these multiples of its first value."""


def refine(parts: list[torch.Tensor], segments: list[Segment], moment: torch.Tensor, metadata: str) -> list[Segment]:
    """Improve quantized segments of the same blocks together.

    Parameters
    ----------
    parts : list of torch.Tensor
        What `segments` were quantized from, ``[heads, groups, tokens, n]`` each, centred and transformed.
    segments : list of Segment
        Codes ``binary``, ``s2`` or ``ternary``.
    moment : torch.Tensor
        M in the coordinates of the concatenated parts, symmetric, ``[heads, D, D]``.
    metadata : str
        How scales are stored.

    Raises
    ------
    ValueError
        A segment coded as ``u2``.
    """
    if any(segment.code == "u2" for segment in segments):
        raise ValueError("code must be binary, s2 or ternary to be refined, not 'u2'")
    x = torch.cat([part.double() for part in parts], -1)
    diagonal = moment.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    weight = moment.double() / diagonal + DAMPING * torch.eye(x.shape[-1], dtype=torch.float64)
    first = torch.cat([segment.scales.value for segment in segments], -1)
    levels = torch.cat([_levels(segment) for segment in segments], -1)
    codes = [segment.code for segment in segments for _ in range(segment.codes.shape[-1])]
    scales = [segment.scales for segment in segments]
    value = first
    for step in range(ROUNDS + 1):
        if step:
            wanted = _least_squares(x, levels, weight)
            wanted = torch.minimum(torch.maximum(wanted, _SCALE_RANGE[0] * first), _SCALE_RANGE[1] * first)
            sizes = [segment.codes.shape[-1] for segment in segments]
            scales = [
                store_scales(part, metadata, transform=segment.transform)
                for part, segment in zip(wanted.split(sizes, -1), segments, strict=True)
            ]
            value = torch.cat([stored.value for stored in scales], -1)
        levels = _sweep(x, levels, value, weight, codes)
    out, position = [], 0
    for segment, stored in zip(segments, scales, strict=True):
        part = levels[..., position : position + segment.codes.shape[-1]]
        position += segment.codes.shape[-1]
        out.append(replace(segment, codes=_to_codes(part, segment.code), scales=stored))
    return out


def _levels(segment: Segment) -> torch.Tensor:
    """Multiples of the scale, float64."""
    c = segment.codes.double()
    return {"binary": 2 * c - 1, "s2": 2 * c - 3, "ternary": c}[segment.code]


def _to_codes(levels: torch.Tensor, code: str) -> torch.Tensor:
    if code == "ternary":
        return levels.to(torch.int8)
    return ((levels + (1 if code == "binary" else 3)) / 2).to(torch.uint8)


def _nearest(ratio: torch.Tensor, code: str) -> torch.Tensor:
    if code == "binary":
        return torch.where(ratio >= 0, 1.0, -1.0)
    if code == "s2":
        return (torch.floor(ratio / 2) * 2 + 1).clamp(-3, 3)
    return torch.round(ratio).clamp(-1, 1)


def _least_squares(x: torch.Tensor, levels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Scales ``[heads, groups, D]`` that minimise sum over tokens of e^T M e, e = x - levels * scale; not below 0."""
    gram = weight[:, None] * (levels.mT @ levels)
    target = (levels * (x @ weight[:, None])).sum(-2)
    ridge = 1e-6 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-30
    gram = gram + ridge * torch.eye(x.shape[-1], dtype=torch.float64)
    return torch.linalg.solve(gram, target).clamp(min=0)


def _sweep(
    x: torch.Tensor, levels: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor, codes: list[str]
) -> torch.Tensor:
    """`SWEEPS` passes over the channels; each takes the level nearest to what the other channels' errors ask for."""
    heads, groups, tokens, channels = x.shape

    def channel_first(y: torch.Tensor) -> torch.Tensor:
        return y.permute(0, 3, 1, 2).reshape(heads, channels, groups * tokens).float()

    x_c, levels_c = channel_first(x), channel_first(levels)
    scale_c = channel_first(scale[:, :, None].expand_as(x))
    divisor = torch.where(scale_c > 0, scale_c, 1.0)
    weight_c = weight.float()
    error = x_c - levels_c * scale_c
    for _ in range(SWEEPS):
        for i, code in enumerate(codes):
            pull = (weight_c[:, i : i + 1] @ error)[:, 0] / weight_c[:, i, i, None]
            target = x_c[:, i] + pull - error[:, i]
            levels_c[:, i] = torch.where(scale_c[:, i] > 0, _nearest(target / divisor[:, i], code), levels_c[:, i])
            error[:, i] = x_c[:, i] - levels_c[:, i] * scale_c[:, i]
    return levels_c.reshape(heads, channels, groups, tokens).permute(0, 2, 3, 1).double()

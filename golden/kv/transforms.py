"""Orthonormal transforms across the channels of one token, as float64 matrices.

A row vector x of n channels becomes ``x @ matrix.T``; the inverse is ``y @ matrix``. Because the matrix is orthonormal,
dot products are kept: q . k = (F q) . (F k).
"""

import math
from functools import lru_cache

import torch

from golden.kv.config import TRANSFORM_SIZES, TRANSFORMS
from spec import checks

__all__ = ["fold_of", "forward", "inverse", "matrix"]


@lru_cache(maxsize=32)
def matrix(transform: str, size: int) -> torch.Tensor:
    """float64 ``[size, size]``, row i is basis vector i.

    ``rfft``: [X0, sqrt2 Re X1, sqrt2 Im X1, ..., X_{n/2}] / sqrt(n) with X_f = sum_i x_i exp(-2 pi j f i / n).
    ``wht``: Walsh-Hadamard in natural (Sylvester) order, entries +-1 / sqrt(n).

    Raises
    ------
    ValueError
        Unknown transform, or a size it has not (16, 32, 64, 128; any for ``none``).
    """
    checks.choice("transform", transform, TRANSFORMS)
    if transform == "none":
        return torch.eye(size, dtype=torch.float64)
    checks.choice("size", size, TRANSFORM_SIZES)
    if transform == "wht":
        rows = torch.ones(1, 1, dtype=torch.float64)
        while len(rows) < size:
            rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
        return rows / math.sqrt(size)
    i = torch.arange(size, dtype=torch.float64)
    rows = torch.empty(size, size, dtype=torch.float64)
    rows[0] = 1.0
    rows[-1] = 1.0 - 2.0 * (i % 2)
    for f in range(1, size // 2):
        # The angle's index is reduced exactly, so that equal angles give equal entries.
        angle = 2.0 * math.pi / size * ((f * i) % size)
        rows[2 * f - 1] = math.sqrt(2.0) * torch.cos(angle)
        rows[2 * f] = -math.sqrt(2.0) * torch.sin(angle)
    return rows / math.sqrt(size)


def forward(x: torch.Tensor, transform: str) -> torch.Tensor:
    """Transform the last axis; float64 ``[..., n]``."""
    x = x.double()
    return x if transform == "none" else x @ matrix(transform, x.shape[-1]).T


def inverse(y: torch.Tensor, transform: str) -> torch.Tensor:
    """Undo `forward`; float64 ``[..., n]``."""
    y = y.double()
    return y if transform == "none" else y @ matrix(transform, y.shape[-1])


@lru_cache(maxsize=32)
def fold_of(transform: str, size: int) -> torch.Tensor:
    """float64 ``[size]``: constants of the rows of `matrix`, which stored scales absorb; the inverse is plain."""
    checks.choice("transform", transform, TRANSFORMS)
    if transform != "none":
        checks.choice("size", size, TRANSFORM_SIZES)
    fold = torch.full((size,), 1.0 if transform == "none" else 1.0 / math.sqrt(size), dtype=torch.float64)
    if transform == "rfft":
        fold[1:-1] = math.sqrt(2.0 / size)
    return fold

"""How far float32 results may be from exact ones on any processor: bounds that hold for every order of summation.

A float32 sum or dot product of n terms, in any order and with or without fused multiply-adds, is within
``gamma(n) * sum |terms|`` of the exact one (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
Processors and libraries differ in that order alone, so tests use these bounds and no tried tolerances.
"""

import numpy as np
import torch

__all__ = ["UNIT", "attention_bound", "gamma"]

UNIT = 2.0**-24
"""Unit roundoff of float32."""
EXP_ULPS = 4
"""Vectorised exponentials are within 2 ulp by their libraries' own words; twice that is granted."""


def gamma(terms: int) -> float:
    """``n u / (1 - n u)`` for n terms."""
    return terms * UNIT / (1 - terms * UNIT)


def attention_bound(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float) -> float:
    """Largest error of float32 softmax attention over these keys and values (one pass or not), for any query of ``q``.

    A score is off by at most ``delta = scaling * gamma(D + 2) * max sum |q k|``, so weights before and after division
    are off by factors of ``exp(2 delta)`` and a few roundings per token, which an output of at most max |v| inherits.
    """
    tokens, dim = k.shape[-2:]
    sizes = (q.abs().double().amax(-2) * k.abs().double().amax(-2).amax(0)).sum(-1).max().item()
    delta = scaling * gamma(dim + 2) * sizes
    relative = np.expm1(2 * delta) + 2 * gamma(2 * tokens + EXP_ULPS)
    return relative * v.abs().max().item()

"""The query's real DFT in fixed point: equations Q2a to Q2d of docs/attention.md, and their error bound."""

import math

import torch

from golden.attention.integers import rne_shift

__all__ = ["rfft", "rfft_error"]


def _dft(x: torch.Tensor, fraction: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and imaginary parts of coefficients 0..n/2; int64."""
    n = len(x)
    if n == 1:
        return x, torch.zeros_like(x)
    half = n // 2
    (even_re, even_im), (odd_re, odd_im) = (_dft(x[start::2], fraction) for start in (0, 1))
    re, im = torch.zeros(half + 1, dtype=torch.int64), torch.zeros(half + 1, dtype=torch.int64)
    re[0], re[half] = even_re[0] + odd_re[0], even_re[0] - odd_re[0]
    if half >= 2:
        re[half // 2], im[half // 2] = even_re[half // 2], -odd_re[half // 2]
    k = torch.arange(1, max(1, half // 2))
    angle = 2 * math.pi * k.double() / n
    cos, sin = (torch.round(torch.ldexp(f(angle), torch.tensor(fraction))).long() for f in (torch.cos, torch.sin))
    t_re = rne_shift(cos * odd_re[k] + sin * odd_im[k], -fraction)
    t_im = rne_shift(cos * odd_im[k] - sin * odd_re[k], -fraction)
    re[k], im[k] = even_re[k] + t_re, even_im[k] + t_im
    re[half - k], im[half - k] = even_re[k] - t_re, t_im - even_im[k]
    return re, im


def rfft(x: torch.Tensor, fraction: int) -> torch.Tensor:
    """Coefficients in storage order, ``[Re 0, Re 1, Im 1, .. Re n/2]``, not normalized.

    Parameters
    ----------
    x : torch.Tensor
        int64 ``[n]``, n a power of two from 4 on.
    fraction : int
        C: fraction bits of sines and cosines.
    """
    re, im = _dft(x, fraction)
    middle = torch.stack([re[1:-1], im[1:-1]], 1).reshape(-1)
    return torch.cat([re[:1], middle, re[-1:]])


def rfft_error(n: int, largest: int, fraction: int) -> float:
    """Most that a coefficient of n elements of magnitude ``largest`` or less can be off (docs/attention.md, Q2)."""
    error, half = 0.0, 4
    while half < n:
        error = 2 * error + 0.5**0.5 + 2.0 ** -(fraction + 0.5) * (half * largest + error)
        half *= 2
    return error

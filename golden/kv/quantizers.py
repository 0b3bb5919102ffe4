"""Quantizers: float groups -> codes and stored scales, and their float64 values.

Every quantizer takes float64 ``[..., tokens, channels]``: one group of tokens, channels of one code, already
centred and transformed. A channel's tokens share one scale. Codes are uint8 (int8 -1, 0, +1 for ternary) of the same
shape, chosen with the scale *as stored*. Sums run in float64; what hardware must meet bit for bit starts at codes and
stored scales, not here.

==========  ====================  ==================================================================================
code        value                 scale
==========  ====================  ==================================================================================
binary      +-s                   s = mean |x| (least squares)
s2          (2c - 3) h            h = 0.9957 rms / 2, the best uniform step for normal data, or least squared error
u2          min + c s             min = smallest, s = (largest - smallest) / 3, or least squared error
ternary     t s                   |x| > gamma mean |x| keeps t = sign x; s = mean of the kept |x|
==========  ====================  ==================================================================================
"""

from dataclasses import dataclass

import torch

from golden.kv.config import CODES
from golden.kv.metadata import Scales, store_minima, store_scales
from spec import checks

__all__ = ["Segment", "quantize"]

NORMAL_STEP = 0.9957
"""Step, in standard deviations, of the uniform 4-level quantizer with the least squared error on normal data."""
_AFFINE_ROUNDS = 8


@dataclass(frozen=True)
class Segment:
    """Channels of one code in one block (or in a batch of blocks).

    Attributes
    ----------
    code : str
        ``"binary"``, ``"s2"``, ``"u2"`` or ``"ternary"``.
    codes : torch.Tensor
        uint8 (int8 for ternary) ``[..., tokens, channels]``.
    scales : Scales
        ``[..., channels]``; half the step for ``s2``.
    minima : torch.Tensor or None
        FP16 ``[..., channels]``, for ``u2`` only.
    transform : str
        Transform the values are in.
    """

    code: str
    codes: torch.Tensor
    scales: Scales
    minima: torch.Tensor | None
    transform: str

    @property
    def values(self) -> torch.Tensor:
        """float64 ``[..., tokens, channels]``: the coded values, exact, still transformed."""
        c, s = self.codes.double(), self.scales.value[..., None, :]
        if self.code == "binary":
            return (2 * c - 1) * s
        if self.code == "s2":
            return (2 * c - 3) * s
        if self.code == "u2":
            return self.minima.double()[..., None, :] + c * s
        return c * s


def quantize(
    x: torch.Tensor,
    code: str,
    *,
    metadata: str = "q8",
    transform: str = "none",
    gamma: float | None = 0.7,
    scale: str = "kept_mean",
    fit: str = "moment",
) -> Segment:
    """Quantize one group per leading index; the parameters are those of `KeyFormat` and `ValueFormat`.

    Parameters
    ----------
    x : torch.Tensor
        ``[..., tokens, channels]``, finite.
    transform : str
        Transform `x` is in already; it is recorded, and decides how FP16 scales are stored.

    Raises
    ------
    ValueError
        Unknown code, non-finite or empty input, or a scale that cannot be stored.
    """
    checks.choice("code", code, CODES)
    if x.dim() < 2 or 0 in x.shape:
        raise ValueError(f"x must be [..., tokens, channels] with no empty axis, not {list(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError("x must be finite; it holds Inf or NaN")
    x = x.double()
    wanted, minima = _fit(x, code, gamma, scale, fit)
    scales = store_scales(wanted, metadata, transform=transform)
    stored = scales.value[..., None, :]
    ratio = torch.where(stored > 0, x / torch.where(stored > 0, stored, 1.0), 0.0)
    if code == "binary":
        codes = (x >= 0).to(torch.uint8)
    elif code == "s2":
        codes = (torch.floor(ratio / 2) + 2).clamp(0, 3).to(torch.uint8)
    elif code == "u2":
        minima = store_minima(minima)
        offset = x - minima.double()[..., None, :]
        codes = torch.where(stored > 0, torch.round(offset / torch.where(stored > 0, stored, 1.0)), 0.0)
        codes = codes.clamp(0, 3).to(torch.uint8)
    else:
        codes = torch.where(x.abs() > _threshold(x, gamma), torch.sign(x), 0.0).to(torch.int8)
    return Segment(code, codes, scales, minima if code == "u2" else None, transform)


def _fit(x, code, gamma, scale, fit) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scale (and minimum, for ``u2``) per channel before storing, float64 ``[..., channels]``."""
    magnitude = x.abs()
    if code == "binary":
        return magnitude.mean(-2), None
    if code == "s2":
        if fit == "moment":
            return NORMAL_STEP / 2 * x.square().mean(-2).sqrt(), None
        return _best_two_levels(magnitude, 1.0, 3.0), None
    if code == "u2":
        return _affine(x, fit)
    if scale == "mean":
        return magnitude.mean(-2), None
    kept = magnitude > _threshold(x, gamma)
    return (magnitude * kept).sum(-2) / kept.sum(-2).clamp(min=1), None


def _threshold(x: torch.Tensor, gamma: float | None) -> torch.Tensor:
    """Ternary threshold ``[..., 1, channels]``: magnitudes above it are kept."""
    magnitude = x.abs()
    if gamma is not None:
        return gamma * magnitude.mean(-2, keepdim=True)
    # With the k largest kept, least squares gives scale mean(kept) and error sum x^2 - (sum kept)^2 / k.
    ordered = magnitude.sort(dim=-2, descending=True).values
    count = torch.arange(1, x.shape[-2] + 1, dtype=torch.float64)[:, None]
    best = (ordered.cumsum(-2).square() / count).argmax(-2, keepdim=True)
    smallest_kept = ordered.gather(-2, best)
    return torch.where(smallest_kept > 0, torch.nextafter(smallest_kept, torch.zeros_like(smallest_kept)), 0.0)


def _best_two_levels(magnitude: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Scale h of least squared error for levels +-low h, +-high h, ``[..., channels]``: the best split of the order."""
    ordered = magnitude.sort(dim=-2, descending=True).values
    tokens = magnitude.shape[-2]
    zero = torch.zeros_like(ordered[..., :1, :])
    top = torch.cat([zero, ordered.cumsum(-2)], -2)
    count = torch.arange(tokens + 1, dtype=torch.float64)[:, None]
    weight = high * top + low * (top[..., -1:, :] - top)
    energy = high**2 * count + low**2 * (tokens - count)
    best = (weight.square() / energy).argmax(-2, keepdim=True)
    return (weight / energy).gather(-2, best)[..., 0, :]


def _affine(x: torch.Tensor, fit: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and minimum of ``u2``; ``mse`` alternates assignment and linear regression from the min/max start."""
    low, high = x.amin(-2), x.amax(-2)
    scale = (high - low) / 3
    for _ in range(_AFFINE_ROUNDS if fit == "mse" else 0):
        divisor = torch.where(scale > 0, scale, 1.0)[..., None, :]
        c = torch.round((x - low[..., None, :]) / divisor).clamp(0, 3)
        mean_c, mean_x = c.mean(-2), x.mean(-2)
        spread = (c - mean_c[..., None, :]).square().sum(-2)
        slope = ((c - mean_c[..., None, :]) * x).sum(-2) / torch.where(spread > 0, spread, 1.0)
        scale = torch.where(spread > 0, slope, scale)
        low = torch.where(spread > 0, mean_x - slope * mean_c, low)
    return scale, low

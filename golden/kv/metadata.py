"""Scales of one segment of a block as they are stored: FP16, or integers under one power of two.

Kinds: ``fp16`` (in a transformed segment: an 11-bit integer), ``q8`` (8-bit integer), ``f6`` (6-bit float ``e m``: m
for e = 0, else (16 + m) 2^(e - 1), at most 124). An integer scale is worth raw * 2^exponent; the exponent is one per
segment and block. In a transformed segment the transform's constants are folded into what is stored
(docs/kv-engine.md, section 5 and rules P1 to P3).
"""

from dataclasses import dataclass

import torch

from golden.kv.config import METADATA
from golden.kv.transforms import fold_of
from spec import checks
from spec.kv_block import EXPONENT_BIAS

__all__ = ["ScaleError", "Scales", "store_minima", "store_scales"]

FP16_MAX = 65504.0
_EXPONENTS = (-EXPONENT_BIAS, 31 - EXPONENT_BIAS)
_LIMITS = {"fp16": 2047, "q8": 255, "f6": 124}
_F6_VALUES = torch.tensor([float(c % 16 if c < 16 else (16 + c % 16) << (c // 16 - 1)) for c in range(64)]).double()


@dataclass(frozen=True)
class Scales:
    """Stored scales.

    Attributes
    ----------
    kind : str
        ``"fp16"``, ``"q8"`` or ``"f6"``.
    raw : torch.Tensor
        ``[..., channels]``: FP16, or int16 integers (0..2047, 0..255, or f6's code 0..63).
    exponent : torch.Tensor or None
        int8 ``[...]``, -24..7; None when `raw` is FP16.
    fold : torch.Tensor or None
        float64 ``[channels]``, the transform's constants: raw * 2^exponent stands for scale * fold. None: all 1.
    """

    kind: str
    raw: torch.Tensor
    exponent: torch.Tensor | None

    fold: torch.Tensor | None = None

    @property
    def integer(self) -> torch.Tensor:
        """int64 ``[..., channels]``: scale * fold / 2^exponent."""
        if self.exponent is None:
            raise ValueError("these scales are FP16, not integers")
        return _F6_VALUES[self.raw.long()].long() if self.kind == "f6" else self.raw.long()

    @property
    def value(self) -> torch.Tensor:
        """float64 ``[..., channels]``: the scale of the orthonormal coefficient (exact but for the fold)."""
        if self.exponent is None:
            return self.raw.double()
        stored = torch.ldexp(self.integer.double(), self.exponent[..., None].int())
        return stored if self.fold is None else stored / self.fold


class ScaleError(ValueError):
    """A scale or minimum that its format cannot hold; ``index`` is its place in the tensor."""

    def __init__(self, message: str, bad: torch.Tensor) -> None:
        super().__init__(message)
        self.index = bad.nonzero()[0].tolist()


def _fits_fp16(x: torch.Tensor, name: str) -> None:
    bad = ~(x.abs() <= FP16_MAX)
    if bad.any():
        raise ScaleError(f"{name} must be finite and at most {FP16_MAX:g} in magnitude, not {x[bad][0].item():g}", bad)


def store_scales(x: torch.Tensor, kind: str, *, transform: str = "none") -> Scales:
    """Store non-negative scales, float64 ``[..., channels]``, each rounded to the nearest (ties to the even code).

    The exponent is min(7, max(-24, ceil(log2(largest / limit)))), limit = 2047, 255 or 124: the largest scale keeps
    all bits.

    Raises
    ------
    ValueError
        A scale that is negative, not finite, or too large for the kind.
    """
    checks.choice("metadata", kind, METADATA)
    _fits_fp16(x, "the scale")
    if (x < 0).any():
        raise ScaleError(f"the scale must not be negative, not {x.min().item():g}", x < 0)
    if kind == "fp16" and transform == "none":
        return Scales(kind, x.to(torch.float16), None)
    fold = None if transform == "none" else fold_of(transform, x.shape[-1])
    x = x if fold is None else x * fold
    limit, (lowest, highest) = _LIMITS[kind], _EXPONENTS
    largest = x.amax(-1)
    # frexp gives largest / limit = m 2^p with 1/2 <= m < 1; the ceiling of its logarithm is p, or p - 1 at m = 1/2.
    mantissa, power = torch.frexp(largest / limit)
    exponent = torch.where(mantissa == 0.5, power - 1, power)
    exponent = torch.where(largest == 0, lowest, exponent.clamp(lowest, highest)).int()
    units = torch.ldexp(x, -exponent[..., None])
    if kind == "f6":
        above = torch.searchsorted(_F6_VALUES, units.contiguous()).clamp(max=63)
        below = (above - 1).clamp(min=0)
        down, up = units - _F6_VALUES[below], _F6_VALUES[above] - units
        raw = torch.where((down < up) | ((down == up) & (below % 2 == 0)), below, above)
    else:
        raw = torch.round(units)
    bad = units > limit
    if bad.any():
        raise ScaleError(
            f"the scale must be at most {limit} * 2^{highest} with metadata {kind}, not {x[bad][0].item():g}"
            + (" (fp16 metadata takes 65504)" if transform == "none" else " (transformed)"),
            bad,
        )
    return Scales(kind, raw.to(torch.int16), exponent.to(torch.int8), fold)


def store_minima(x: torch.Tensor) -> torch.Tensor:
    """FP16 ``[..., channels]`` of minima, rounded to nearest even; `ValueError` beyond +-65504."""
    _fits_fp16(x, "the minimum")
    return x.to(torch.float16)

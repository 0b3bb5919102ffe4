"""Integer roundings of the attention cores, vectorised: nearest even, scale fields, FP32."""

import numpy as np
import torch

from spec.kv_block import KvHeader
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["bit_length", "fl32", "fp16_fields", "rne_shift", "scale_fields"]


def bit_length(x: torch.Tensor) -> int:
    """Least b with ``-2^b <= x < 2^b`` for all x."""
    return int((x ^ (x >> 63)).max()).bit_length() if x.numel() else 0


def rne_shift(x: torch.Tensor, amount: torch.Tensor | int) -> torch.Tensor:
    """``x * 2^amount`` rounded to nearest even; int64, exact below 2^53 (float64's own rounding does it)."""
    amount = torch.as_tensor(amount, dtype=torch.int64).expand(x.shape)
    return torch.round(torch.ldexp(x.double(), amount.clamp(-200, 60).int())).long()


def fl32(x: torch.Tensor, exponent: torch.Tensor | int) -> torch.Tensor:
    """``x * 2^exponent`` rounded once to FP32; |x| < 2^53, results normal or zero. Zero is +0."""
    exponent = torch.as_tensor(exponent, dtype=torch.int32).expand(x.shape)
    return torch.ldexp(x.double(), exponent).float()


def fp16_fields(bits: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(signed significand, ``max(exponent, 1)``) of FP16 bits: the number is ``significand * 2^(exponent - 25)``."""
    bits = torch.as_tensor(np.asarray(bits).astype(np.int64))
    exponent, fraction = bits >> 10 & 31, bits & 1023
    significand = torch.where(exponent > 0, fraction + 1024, fraction)
    return torch.where(bits >> 15 > 0, -significand, significand), exponent.clamp(min=1)


def scale_fields(stored: np.ndarray, header: KvHeader, segment: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """(g, r, R - w, w) of the scales of a segment: scale ``g * 2^r``, and F1's bound without K2's halving."""
    transform = (header.transform0, header.transform1)[segment]
    exponent = (header.exponent0, header.exponent1)[segment]
    if header.metadata is KvMetadata.FP16 and transform is KvTransform.NONE:
        g, e = fp16_fields(stored)
        return g, e - 25, int(e.max()) - 25, 11
    raw = torch.as_tensor(stored.astype(np.int64))
    if header.metadata is KvMetadata.F6:
        e, m = raw >> 4, raw & 15
        raw = torch.where(e == 0, m, (16 + m) << (e - 1).clamp(min=0))
    width = {KvMetadata.F6: 7, KvMetadata.Q8: 8, KvMetadata.FP16: 11}[header.metadata]
    return raw, torch.full_like(raw, exponent), exponent, width


def multipliers(codes: np.ndarray, kind: KvFormat) -> torch.Tensor:
    """u of a key's codes: -1, +1 (K1); 2c - 3 (K2S, K2)."""
    codes = torch.as_tensor(codes.astype(np.int64))
    return 2 * codes - 1 if kind is KvFormat.K1 else 2 * codes - 3

"""Writers for what stays outside blocks (sinks, newest tokens, RLKV's window heads): FP16, or INT8 per token, head."""

from dataclasses import dataclass

import torch

__all__ = ["Residual", "write_fp16", "write_int8"]

FP16_MAX = 65504.0
"""Largest finite FP16 number."""


@dataclass(frozen=True)
class Residual:
    """Exact or nearly exact tokens.

    Attributes
    ----------
    codes : torch.Tensor
        ``[heads, tokens, D]``: FP16, or int8 -127..127.
    scale : torch.Tensor or None
        FP16 ``[heads, tokens]`` beside int8 codes.
    """

    codes: torch.Tensor
    scale: torch.Tensor | None

    @property
    def value(self) -> torch.Tensor:
        """float64 ``[heads, tokens, D]``, exact."""
        return self.codes.double() if self.scale is None else self.codes.double() * self.scale.double()[..., None]


def _checked(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    if not (x.abs() <= FP16_MAX).all():
        raise ValueError(f"x must be finite and at most {FP16_MAX:g} in magnitude")
    return x


def write_fp16(x: torch.Tensor) -> Residual:
    """Round to FP16, nearest even."""
    return Residual(_checked(x).to(torch.float16), None)


def write_int8(x: torch.Tensor) -> Residual:
    """INT8 with scale = FP16(max |x| / 127) per token and head; codes rounded to nearest even, within -127..127."""
    x = _checked(x)
    scale = (x.abs().amax(-1) / 127).to(torch.float16)
    divisor = torch.where(scale > 0, scale.double(), 1.0)[..., None]
    return Residual(torch.round(x / divisor).clamp(-127, 127).to(torch.int8), scale)

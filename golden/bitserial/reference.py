"""What the weight path should compute: exact and float64 dot products, and the error bound of ``BitSerialPE``."""

import torch

from golden.bitserial.pe import Activations
from golden.weights.quantized import QuantizedWeight
from spec.datatypes import FLOATS, INTEGERS, Datatype

__all__ = ["exact_group_sums", "reference", "relative_error_bound"]

_GAIN_INT = 3
"""Largest sum |d_j * 4^j| / |v| of Booth digits (at v = 2 = 4 - 2)."""


def exact_group_sums(weight: QuantizedWeight, activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum a*v`` and ``sum |a*v|`` of every group, times 2^24, exactly: int64 [tokens, out, groups].

    ``activations`` is a finite float16 tensor [tokens, in]; v are the integers of the codes, scale8 left out.
    """
    values = weight.integers().long()
    integers = Activations.split(activations).integers()
    sums, sizes = [], []
    for first in range(0, weight.shape[1], weight.group_size):
        part = slice(first, first + weight.group_size)
        sums.append(integers[:, part] @ values[:, part].T)
        sizes.append(integers[:, part].abs() @ values[:, part].abs().T)
    return torch.stack(sums, 2), torch.stack(sizes, 2)


def reference(weight: QuantizedWeight, activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum a*w`` and ``sum |a*w|`` in float64, [tokens, out], with w = v(code) * scale8 (no channel scale)."""
    scaled = (weight.integers() * weight.expand(weight.scale8.int())).double()
    activations = activations.double()
    return activations @ scaled.T, activations.abs() @ scaled.abs().T


def relative_error_bound(
    datatype: Datatype, count: int, *, lanes: int = 4, rounding: str = "trunc", accumulator_bits: int = 15
) -> float:
    """Largest |error| / sum |a*v| of one group of ``count`` weights: "Error bound" in docs/weights.md."""
    datatype = Datatype(datatype)
    steps = -(-count // lanes) * datatype.terms
    # R2 and R3 of every step; R3's unit shrinks as the accumulator gets wider.
    accumulating = steps * (1 + 2.0 ** (15 - accumulator_bits))
    if rounding == "trunc":
        bound = (accumulating + lanes - 1) / 2**13
    else:
        bound = (accumulating + lanes - 1) / (2**14 - accumulating)
    if datatype in FLOATS:
        return bound * 9 / 7  # the largest ratio of a special value that is a difference, 7 = 8 - 1
    return bound * (_GAIN_INT if datatype in INTEGERS else 1)

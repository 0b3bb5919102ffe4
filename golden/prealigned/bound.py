"""How far the pre-aligned path may be from exact: the bound of section 1 of docs/prealigned.md."""

import torch

from golden.prealigned.aligner import AlignedActivations
from golden.weights.quantized import QuantizedWeight

__all__ = ["deviation_bound", "group_deviation"]


def _by_group(tensor: torch.Tensor, group_size: int) -> torch.Tensor:
    """[rows, in] -> [rows, groups, group_size], zeros at the end."""
    padded = torch.nn.functional.pad(tensor, (0, -tensor.shape[1] % group_size))
    return padded.view(tensor.shape[0], -1, group_size)


def group_deviation(
    weight: QuantizedWeight, activations: torch.Tensor, aligned: AlignedActivations
) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum v*a'`` - ``sum v*a`` (a' the aligned activations) and ``sum |v*a|`` of every group, float64.

    Shape [tokens, out, groups]. The first is exact: a' - a is a multiple of ``2^(-12 - max(W, 12))`` and at most
    ``2^(17 - W)``, so that a sum over 128 weights takes at most 45 bits. ``activations`` are the finite float16
    [tokens, in] that ``aligned`` was made from.
    """
    size = weight.group_size
    exact = activations.double()
    off = _by_group(aligned.values() - exact, size)
    values = _by_group(weight.integers().double(), size)
    magnitude = _by_group(exact.abs(), size)
    return (
        torch.einsum("tgi,ogi->tog", off, values),
        torch.einsum("tgi,ogi->tog", magnitude, values.abs()),
    )


def deviation_bound(weight: QuantizedWeight, activations: torch.Tensor, aligned: AlignedActivations) -> torch.Tensor:
    """Largest |deviation| of every group, float64 [tokens, out, groups], exact.

    ``2^-(W-1) * max|a| * sum|v|``; for W = 10 and 11, in groups of subnormals alone, ``2^(-13 - W) * sum|v|``.
    """
    bits = aligned.activation_bits
    largest = _by_group(activations.double().abs(), weight.group_size).amax(2)
    off = largest * 2.0 ** (1 - bits)
    if bits < 12:
        off = torch.where(largest < 2.0**-14, 2.0 ** (-13 - bits), off)
    values = _by_group(weight.integers().double().abs(), weight.group_size).sum(2)
    return off[:, None] * values

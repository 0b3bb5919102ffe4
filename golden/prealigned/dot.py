"""Bit-exact models of group dot products, dequantization and running sums: P3 and Q1 to Q3 of docs/prealigned.md."""

import numpy as np
import torch

from golden.bitserial.dot import MARKED_BITS
from golden.prealigned.aligner import AlignedActivations, align
from golden.weights.quantized import QuantizedWeight

__all__ = ["dot_products", "group_sums", "group_values", "running_sums"]


def group_sums(weight: QuantizedWeight, aligned: AlignedActivations) -> torch.Tensor:
    """P3: ``sum of v * q`` of every group, exact; int64 [tokens, out, groups].

    Raises
    ------
    ValueError
        Weights and activations differ in group size or input channels.
    """
    if aligned.group_size != weight.group_size or aligned.integers.shape[1] != weight.shape[1]:
        raise ValueError(
            f"activations must be [tokens, {weight.shape[1]}] in groups of {weight.group_size} like the weights, "
            f"not [tokens, {aligned.integers.shape[1]}] in groups of {aligned.group_size}"
        )
    # In float64, whose products of matrices are fast, and exact here: every partial sum is an integer, and at most
    # 128 weights * 128 * (2^23 - 1), below 2^37.
    q, v = aligned.integers.double(), weight.integers().double()
    parts = [slice(first, first + weight.group_size) for first in range(0, weight.shape[1], weight.group_size)]
    return torch.stack([q[:, part] @ v[:, part].T for part in parts], 2).long()


def group_values(weight: QuantizedWeight, aligned: AlignedActivations) -> torch.Tensor:
    """Q1 and Q2: the scaled group sums, rounded once to FP32; float32 [tokens, out, groups], zero is +0."""
    scaled = group_sums(weight, aligned) * weight.scale8.long()  # below 2^45
    return torch.ldexp(scaled.double(), (aligned.exponent - 13 - aligned.activation_bits)[:, None]).float()


def running_sums(values: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """Q3: groups added in ascending order, each addition rounded to FP32; float32 [tokens, out].

    Parameters
    ----------
    values : float32 tensor [tokens, out, groups]
    start : float32 tensor [tokens, out], optional
        Sums of the groups before these; +0 by default.
    """
    total = torch.zeros(values.shape[:2]) if start is None else start
    for group in range(values.shape[2]):
        total = total + values[:, :, group]
    return total


def dot_products(weight: QuantizedWeight, activations: torch.Tensor, *, activation_bits: int = 16) -> np.ndarray:
    """FP32 results before the channel scale, as bits: uint32 [tokens, out].

    Parameters
    ----------
    weight : QuantizedWeight
    activations : float16 tensor [tokens, in]
        A token with an Inf or NaN gives the marked NaN for every output channel.
    activation_bits : int
        W, 10..24.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter that is wrong.
    """
    aligned = align(activations, group_size=weight.group_size, activation_bits=activation_bits)
    bits = running_sums(group_values(weight, aligned)).numpy().view(np.uint32)
    bits[aligned.poison.any(1).numpy()] = MARKED_BITS
    return bits

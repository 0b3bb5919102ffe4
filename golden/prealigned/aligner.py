"""Bit-exact model of the activation aligner: equations A1 to A4 of docs/prealigned.md."""

from dataclasses import dataclass

import torch

from spec import checks
from spec.packet import group_size_code
from spec.prealigned import ACTIVATION_BITS

__all__ = ["AlignedActivations", "align"]


@dataclass(frozen=True, eq=False)
class AlignedActivations:
    """Groups of activations as integers that share an exponent: a = ``q * 2^(E - 13 - W)``.

    Parameters
    ----------
    integers : int64 tensor [tokens, in]
        q.
    exponent : int64 tensor [tokens, groups]
        E, 1..30.
    poison : bool tensor [tokens, groups]
        The group holds an Inf or NaN (whose q is 0).
    group_size, activation_bits : int
    """

    integers: torch.Tensor
    exponent: torch.Tensor
    poison: torch.Tensor
    group_size: int
    activation_bits: int

    @property
    def unit(self) -> torch.Tensor:
        """``2^(E - 13 - W)``, float64 [tokens, groups]."""
        return torch.ldexp(torch.ones_like(self.exponent).double(), self.exponent - 13 - self.activation_bits)

    def values(self) -> torch.Tensor:
        """The aligned activations, exact in float64 [tokens, in]."""
        unit = self.unit.repeat_interleave(self.group_size, dim=1)[:, : self.integers.shape[1]]
        return self.integers.double() * unit


def align(activations: torch.Tensor, *, group_size: int = 128, activation_bits: int = 16) -> AlignedActivations:
    """Align every group of a row of activations to its largest exponent.

    Rounds once, to nearest even (A2); ``|q| <= 2^(W-1) - 1``. Error at most ``2^-(W-1) * max|a|`` per activation, but
    for groups of subnormals alone with W = 10 or 11, where it is at most ``2^(-13-W)``.

    Parameters
    ----------
    activations : float16 tensor [tokens, in]
        The last group of a row may be short.
    group_size : int
        32, 64 or 128.
    activation_bits : int
        W, 10..24.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter that is wrong.
    """
    group_size_code(group_size)
    checks.choice("activation_bits", activation_bits, ACTIVATION_BITS)
    if activations.dtype != torch.float16:
        raise TypeError(f"activations must be a torch.float16 tensor, not {activations.dtype}")
    if activations.dim() != 2 or 0 in activations.shape:
        raise ValueError(f"activations must be a non-empty [tokens, in] tensor, not {list(activations.shape)}")
    tokens, length = activations.shape
    pad = (0, -length % group_size)
    halves = torch.nn.functional.pad(activations, pad).view(torch.int16).view(tokens, -1, group_size).long()

    biased, fraction = halves >> 10 & 31, halves & 1023
    finite = biased < 31
    e = biased.clamp(min=1)
    m = torch.where(finite, torch.where(biased > 0, 1024 + fraction, fraction), 0)
    largest = torch.where(finite, e, 1).amax(2, keepdim=True)  # A1
    # A2: the scaled significand is exact in float64, and torch rounds halves to even.
    u = torch.ldexp(m.double(), e - largest + activation_bits - 12).round().long()
    u = u.clamp(max=2 ** (activation_bits - 1) - 1)
    q = torch.where(halves < 0, -u, u)  # A3
    return AlignedActivations(
        integers=q.view(tokens, -1)[:, :length],
        exponent=largest.squeeze(2),
        poison=~finite.all(2),
        group_size=group_size,
        activation_bits=activation_bits,
    )

"""Rotations from the loss: coordinates whose errors cost independent amounts, sorted by what they cost."""

from dataclasses import dataclass

import torch

from golden.alloc.calibrate import Moments

__all__ = ["DAMPING", "Rotation", "rotation", "widths"]

DAMPING = 0.1
"""Share of the mean diagonal that is added to every diagonal element of the gradients' moment: a sample of it forgets
directions."""


@dataclass(frozen=True, eq=False)
class Rotation:
    """Of every layer and KV head, float64; coordinates ``z = (x - mean) F``, read as ``z F^-1 + mean``.

    Attributes
    ----------
    forward, backward : torch.Tensor
        F and its inverse, ``[2, layers, kv_heads, D, D]``.
    loss : torch.Tensor
        ``[2, layers, kv_heads, D]``, descending: twice the nats that losing a coordinate costs per token.
    deviation : torch.Tensor
        Standard deviation of each coordinate, of the same shape.
    """

    forward: torch.Tensor
    backward: torch.Tensor
    loss: torch.Tensor
    deviation: torch.Tensor


def rotation(moments: Moments, *, within: bool, damping: float = DAMPING) -> Rotation:
    """``F = A U``: A the root of the damped moment of the gradients, U the eigenvectors of the covariance of ``x A``.

    Parameters
    ----------
    within : bool
        Covariance about each window's own mean, for caches that store a mean per sequence; else about the plan's.

    Raises
    ------
    ValueError
        A head whose gradients are all zero, so that nothing says what its errors cost: the rotation is singular.
    """
    diagonal = moments.gradients.diagonal(dim1=-2, dim2=-1).mean(-1)
    if not (diagonal > 0).all():
        kind, layer, head = (int(i) for i in torch.nonzero(diagonal <= 0)[0])
        what = ("keys", "values")[kind]
        raise ValueError(f"no gradient reaches the {what} of layer {layer}, head {head}: their rotation is singular")
    eye = torch.eye(moments.mean.shape[-1], dtype=torch.float64)
    power, vectors = torch.linalg.eigh(moments.gradients + damping * diagonal[..., None, None] * eye)
    root = (vectors * power.sqrt()[..., None, :]) @ vectors.mT
    inverse = (vectors / power.sqrt()[..., None, :]) @ vectors.mT
    covariance = moments.within if within else moments.covariance
    loss, turned = torch.linalg.eigh(root @ covariance @ root)
    loss, turned = loss.flip(-1).clamp(min=0), turned.flip(-1)
    forward = root @ turned
    variance = ((forward.mT @ covariance) * forward.mT).sum(-1)
    return Rotation(forward, turned.mT @ inverse, loss, variance.clamp(min=0).sqrt())


def widths(loss: torch.Tensor, bits: float, distortion: tuple[float, ...]) -> torch.Tensor:
    """Widths uint8 of all coordinates, of mean ``bits``: one threshold on what a further bit saves, whoever's it is.

    That is reverse water-filling with whole bits: of all bits that could be stored, the ``bits * n`` that save most.
    """
    saved = torch.stack([loss * (distortion[b] - distortion[b + 1]) for b in range(len(distortion) - 1)])
    count = min(round(bits * loss.numel()), saved.numel())
    if count == 0:
        return torch.zeros(loss.shape, dtype=torch.uint8)
    chosen = torch.zeros(saved.numel(), dtype=torch.uint8)
    # Stable: among equals the earlier, so that the bits of a coordinate are taken in order.
    chosen[saved.flatten().argsort(descending=True, stable=True)[:count]] = 1
    return chosen.view(saved.shape).sum(0).to(torch.uint8)

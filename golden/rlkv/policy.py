"""Which heads keep the whole cache: deterministic selection at a sparsity, and the table the hardware is given."""

import math
from dataclasses import dataclass

import torch

from golden.arguments import tensor
from spec import checks
from spec.rlkv import RlkvConfig

__all__ = ["HeadPolicy", "full_count", "select_full"]


def full_count(heads: int, sparsity: float) -> int:
    """Full heads out of ``heads`` (all layers together): N - ceil(s (N - 1) - 1e-9), and none at s = 1.

    Raises
    ------
    TypeError, ValueError
        ``sparsity`` is not a number in [0, 1].
    """
    checks.number("sparsity", sparsity, 0, 1)
    if sparsity == 1:
        return 0
    return heads - math.ceil(sparsity * (heads - 1) - 1e-9)


@dataclass(frozen=True, eq=False)
class HeadPolicy:
    """Full or window, for every KV head.

    Attributes
    ----------
    full : torch.Tensor
        bool ``[layers, heads]``; False: window.
    """

    full: torch.Tensor

    def __post_init__(self):
        if not isinstance(self.full, torch.Tensor) or self.full.dtype != torch.bool or self.full.dim() != 2:
            raise TypeError(f"full must be a bool tensor [layers, heads], not {self.full!r}")

    @property
    def full_per_layer(self) -> list[int]:
        return self.full.sum(1).tolist()

    @property
    def n_full(self) -> int:
        return int(self.full.sum())

    @property
    def n_window(self) -> int:
        return self.full.numel() - self.n_full

    def masks(self) -> list[int]:
        """One int per layer; bit h set: KV head h is full."""
        return [sum(1 << head for head, full in enumerate(row) if full) for row in self.full.tolist()]

    def check(self, config: RlkvConfig) -> None:
        """Raise ValueError unless the table has the shape the hardware was built for."""
        if tuple(self.full.shape) != (config.layers, config.heads):
            raise ValueError(
                f"policy must be for {config.layers} layers x {config.heads} KV heads, not {tuple(self.full.shape)}"
            )


def select_full(adapter: torch.Tensor, sparsity: float) -> HeadPolicy:
    """The heads with the largest gates keep everything.

    Values are clipped to [0, 1]; among equal ones the lower layer, then the lower head, comes first (the authors draw
    ties at random, without a seed).

    Parameters
    ----------
    adapter : torch.Tensor
        ``[layers, heads]``, finite.
    sparsity : float
        Share of window heads, 0..1.
    """
    adapter = tensor("adapter", adapter, ("layers", "heads"))
    if not adapter.numel():
        raise ValueError(f"adapter must be [layers, heads], not {list(adapter.shape)}")
    if not torch.isfinite(adapter).all():
        raise ValueError("adapter must be finite")
    order = torch.sort(adapter.double().clamp(0, 1).flatten(), descending=True, stable=True).indices
    full = torch.zeros(adapter.numel(), dtype=torch.bool)
    full[order[: full_count(adapter.numel(), sparsity)]] = True
    return HeadPolicy(full.view(adapter.shape))

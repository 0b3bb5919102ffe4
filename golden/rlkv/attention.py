"""Streaming attention: what a layer of full and window heads computes, in plain PyTorch."""

import torch

from spec import checks

__all__ = ["retained", "streaming_attention", "streaming_mask"]


def retained(tokens: int, *, sink: int, recent: int) -> list[int]:
    """Positions that a window head of a sequence of ``tokens`` tokens still holds, ascending."""
    return [position for position in range(tokens) if position < sink or position >= tokens - recent]


def streaming_mask(tokens: int, *, sink: int, recent: int) -> torch.Tensor:
    """bool ``[tokens, tokens]``: query t sees key j <= t, a sink or one of the newest ``recent``, t included."""
    checks.whole("recent", recent, 1)
    checks.whole("sink", sink, 0)
    t = torch.arange(tokens)
    age = t[:, None] - t
    return (age >= 0) & ((age < recent) | (t < sink))


def streaming_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, full: torch.Tensor, *, sink: int, recent: int, scaling: float
) -> torch.Tensor:
    """Causal attention of one layer with mixed heads; float64 inside.

    Parameters
    ----------
    q : torch.Tensor
        ``[heads, tokens, D]``; query head h reads KV head ``h // (heads // kv_heads)``.
    k, v : torch.Tensor
        ``[kv_heads, tokens, D]``; keys after rotary embedding, at absolute positions: dropping tokens moves none.
    full : torch.Tensor
        bool ``[kv_heads]``: a row of the policy.

    Returns
    -------
    torch.Tensor
        float64 ``[heads, tokens, D]``.
    """
    heads, tokens, _ = q.shape
    if len(full) != len(k) or k.shape != v.shape or heads % len(k):
        raise ValueError(
            f"full, k and v must agree and divide the {heads} query heads, not {len(full)}, {list(k.shape)}, "
            f"{list(v.shape)}"
        )
    window = streaming_mask(tokens, sink=sink, recent=recent)
    causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    mask = torch.where(full[:, None, None], causal, window).repeat_interleave(heads // len(k), 0)
    k, v = (x.double().repeat_interleave(heads // len(x), 0) for x in (k, v))
    scores = (q.double() @ k.mT * scaling).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v

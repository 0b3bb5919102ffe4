"""Attention over two sets of keys and values: exact ones for sinks and newest tokens, the cache's for all older ones.

Token t sees token j exactly if j is a sink or t - j < recent, and as the cache holds it otherwise. One teacher-forced
pass over a text then equals generating it token by token with that cache, as long as no group is longer than `recent`
(a group older than that is complete) and up to the statistics that prefill fixes for the whole sequence.
"""

from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from golden.llm.capture import attention_function
from golden.llm.checkpoint import load_model

__all__ = ["Old", "cached_attention", "two_set_attention"]

CHUNK = 128

Old = Callable[[int], tuple[torch.Tensor, torch.Tensor]] | None
"""First token of a chunk -> keys, values ``[kv_heads, >= first, D]`` as cached by then; None: they are dropped."""


def two_set_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, old: Old, *, sinks: int, recent: int, scaling: float
) -> torch.Tensor:
    """Causal attention of one layer; returns ``[heads, tokens, D]``.

    Parameters
    ----------
    q : torch.Tensor
        ``[heads, tokens, D]``; head h reads KV head ``h // (heads // kv_heads)``.
    k, v : torch.Tensor
        Exact, ``[kv_heads, tokens, D]``.
    """
    tokens, share = q.shape[1], q.shape[0] // k.shape[0]
    out = torch.empty_like(q)
    for start in range(0, tokens, CHUNK):
        end = min(start + CHUNK, tokens)
        t = torch.arange(start, end)[:, None]
        first = max(sinks, start - recent + 1)  # oldest token that some query of the chunk sees exactly
        exact_sinks, near = torch.arange(min(sinks, end)), torch.arange(first, end)
        keys, values = [k[:, exact_sinks], k[:, near]], [v[:, exact_sinks], v[:, near]]
        masks = [exact_sinks <= t, (near <= t) & (t - near < recent)]
        far = torch.arange(sinks, max(sinks, end - recent))
        if old is not None and len(far):
            old_k, old_v = old(start)
            keys.append(old_k[:, far])
            values.append(old_v[:, far])
            masks.append(t - far >= recent)
        out[:, start:end] = F.scaled_dot_product_attention(
            q[None, :, start:end],
            torch.cat(keys, 1).repeat_interleave(share, 0)[None],
            torch.cat(values, 1).repeat_interleave(share, 0)[None],
            attn_mask=torch.cat(masks, 1),
            scale=scaling,
        )[0]
    return out


@contextmanager
def cached_attention(make_old: Callable[..., Old], *, sinks: int, recent: int, model: torch.nn.Module | None = None):
    """Context in which ``model`` (SmolLM2) attends through a cache.

    ``make_old(layer, q, k, v)`` gives a layer's old tokens.
    """

    def attention(module, query, key, value, _mask, scaling=None, **_kwargs):
        q, k, v = query[0], key[0], value[0]
        old = make_old(module.layer_idx, q, k, v)
        out = two_set_attention(q, k, v, old, sinks=sinks, recent=recent, scaling=scaling)
        return out.transpose(0, 1)[None], None

    with attention_function(load_model() if model is None else model, "bitmosaic_cached", attention):
        yield

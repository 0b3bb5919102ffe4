"""What attention does with errors in keys and values: the moments that rounding ``"attention"`` works with."""

from functools import lru_cache

import torch

from golden.llm.capture import capture_kv
from golden.llm.checkpoint import layer_weight
from golden.llm.text import token_count

__all__ = ["key_moment", "model_moments", "value_moment"]

CALIBRATION_TOKENS = 1536


def key_moment(queries: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Mean of q q^T per KV head, float64 ``[kv_heads, D, D]``.

    Parameters
    ----------
    queries : torch.Tensor
        ``[heads, tokens, D]``, after rotary embedding; head h reads KV head ``h // (heads // kv_heads)``.
    """
    heads, tokens, head_dim = queries.shape
    if heads % kv_heads:
        raise ValueError(f"kv_heads must divide the {heads} heads, not {kv_heads}")
    q = queries.double().reshape(kv_heads, heads // kv_heads * tokens, head_dim)
    return q.mT @ q / q.shape[1]


def value_moment(output_weight: torch.Tensor, heads: int, kv_heads: int) -> torch.Tensor:
    """Sum of W^T W over the heads that read a KV head, W their columns of the output projection.

    Parameters
    ----------
    output_weight : torch.Tensor
        ``[width, heads * D]``.

    Returns
    -------
    torch.Tensor
        float64 ``[kv_heads, D, D]``.
    """
    width, inputs = output_weight.shape
    if heads % kv_heads or inputs % heads:
        raise ValueError(f"heads and kv_heads must divide {inputs} inputs and the heads, not {heads} and {kv_heads}")
    w = output_weight.double().reshape(width, kv_heads, heads // kv_heads, inputs // heads)
    return torch.einsum("okrd,okre->kde", w, w)


@lru_cache(maxsize=1)
def model_moments() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(keys, values) moments of each layer of SmolLM2, from the last 1,536 tokens of the text.

    They belong to the model: whoever evaluates on other parts of the text evaluates on text they have not seen.
    """
    kv = capture_kv(CALIBRATION_TOKENS, start=token_count() - CALIBRATION_TOKENS)
    layers, kv_heads = kv.k.shape[:2]
    heads = kv.q.shape[1]
    return [
        (
            key_moment(kv.q[layer], kv_heads),
            value_moment(layer_weight(f"model.layers.{layer}.self_attn.o_proj"), heads, kv_heads),
        )
        for layer in range(layers)
    ]

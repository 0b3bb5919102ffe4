"""Perplexity of SmolLM2 over real text, teacher-forced."""

import math

import torch

from golden.llm.checkpoint import load_model


def token_losses(ids: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each next token, nats.

    Parameters
    ----------
    ids : torch.Tensor
        int64 ``[tokens]``, at least 2; one sequence, seen by the model in one causal pass.

    Returns
    -------
    torch.Tensor
        float64 ``[tokens - 1]``; entry t is the loss of predicting token t + 1.
    """
    if ids.dim() != 1 or len(ids) < 2:
        raise ValueError(f"ids must be one sequence of at least 2 tokens, not shape {list(ids.shape)}")
    model = load_model()
    with torch.no_grad():
        hidden = model.model(ids[None], use_cache=False).last_hidden_state[0]
        parts = []
        for begin in range(0, len(ids) - 1, 256):  # logits of 256 tokens at a time: 50 MB, not 300 MB
            end = min(begin + 256, len(ids) - 1)
            log_probability = torch.log_softmax(model.lm_head(hidden[begin:end]), dim=-1)
            parts.append(-log_probability.gather(1, ids[begin + 1 : end + 1, None])[:, 0].double())
    return torch.cat(parts)


def perplexity(ids: torch.Tensor) -> float:
    """exp of the mean of `token_losses`."""
    return math.exp(token_losses(ids).mean().item())

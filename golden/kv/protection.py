"""Semantic token protection: which tokens keep their values at 2 bits (VidKV, section on STP).

A token's score is the mean, over the text tokens, of the dot product of its hidden state with the text token's; the
share p of the highest scores is protected.
"""

import torch

from spec import checks

__all__ = ["protected_tokens", "protection_scores"]


def protection_scores(hidden: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """float64 ``[tokens]``: mean over text queries of hidden . query.

    Parameters
    ----------
    hidden : torch.Tensor
        ``[tokens, width]``, states of the cached (for example video) tokens.
    queries : torch.Tensor
        ``[text tokens, width]``, states of the text tokens.
    """
    if hidden.dim() != 2 or queries.dim() != 2 or hidden.shape[1] != queries.shape[1] or len(queries) == 0:
        raise ValueError(
            "hidden and queries must be [tokens, width] and [text tokens, width] of one width, "
            f"not {list(hidden.shape)} and {list(queries.shape)}"
        )
    # The mean of dot products is the dot product with the mean.
    return hidden.double() @ queries.double().mean(0)


def protected_tokens(scores: torch.Tensor, share: float) -> torch.Tensor:
    """bool ``[tokens]``: the floor(tokens * share) highest scores, ties to the earlier token.

    Raises
    ------
    ValueError
        `share` outside 0 <= share <= 1, or scores that are not finite.
    """
    checks.number("share", share, 0, 1)
    if scores.dim() != 1 or not torch.isfinite(scores).all():
        raise ValueError(f"scores must be a finite vector, not shape {list(scores.shape)}")
    # 1e-9: 0.2 * 35 must count as 7, whatever its binary fraction.
    count = int(len(scores) * share + 1e-9)
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[scores.argsort(descending=True, stable=True)[:count]] = True
    return mask

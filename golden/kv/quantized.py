"""A sequence of keys and values of one layer through a cache format, all groups at once."""

import torch

from golden.kv.blocks import Blocks, plan_keys, plan_values, quantize_keys, quantize_values
from golden.kv.config import CacheFormat
from golden.kv.grouping import Group, token_groups

__all__ = ["old_keys", "old_values"]


def old_keys(keys: torch.Tensor, fmt: CacheFormat, moment: torch.Tensor | None = None) -> torch.Tensor:
    """Keys ``[heads, tokens, D]`` as a reader of the cache sees them (with the centre put back), float32.

    All tokens after the sinks count as prefill for the centre and the channel split; tokens of unfinished groups, and
    the sinks, are returned as they came.
    """
    if fmt.key.code == "fp16":
        return keys
    plan = plan_keys(keys[:, fmt.sinks :], fmt.key, moment)
    groups = token_groups(fmt.sinks, keys.shape[1], fmt.key.group)
    centre = plan.centre[:, None, None]
    return _replace(keys, groups, lambda x, _: quantize_keys(x, plan, fmt.key), centre)


def old_values(
    values: torch.Tensor,
    fmt: CacheFormat,
    protected: torch.Tensor | None = None,
    moment: torch.Tensor | None = None,
) -> torch.Tensor:
    """Values ``[heads, tokens, D]`` as a reader of the cache sees them, float32; see `old_keys`."""
    if fmt.value.code == "fp16":
        return values
    plan = plan_values(values[:, fmt.sinks :], fmt.value, moment)
    groups = token_groups(fmt.sinks, values.shape[1], fmt.value.group, protected)
    return _replace(
        values,
        groups,
        lambda x, kind: quantize_values(x, plan, fmt.value, protected=kind),
        plan.centre[:, None, None],
    )


def _replace(x: torch.Tensor, groups: list[Group], to_blocks, centre: torch.Tensor) -> torch.Tensor:
    """`x` with every group replaced by what its block holds; groups of one kind and length go together."""
    out = x.float().clone()
    alike: dict[tuple[bool, int], list[torch.Tensor]] = {}
    for group in groups:
        alike.setdefault((group.protected, len(group.tokens)), []).append(group.tokens)
    for (kind, _), members in alike.items():
        index = torch.stack(members)  # [groups, rows]
        blocks: Blocks = to_blocks(x[:, index], kind)
        out[:, index] = (blocks.reference() + centre).to(torch.float16).float()
    return out

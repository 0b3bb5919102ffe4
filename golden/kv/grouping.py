"""Which tokens share a block: groups in token order, decided once and never again as the sequence grows."""

from dataclasses import dataclass
from itertools import pairwise

import torch

from golden.kv.config import GROUPS
from spec import checks
from spec.kv_block import MAX_SPAN

__all__ = ["Group", "token_groups"]


@dataclass(frozen=True)
class Group:
    """Tokens of one block: int64 ``[rows]``, ascending; `protected`: at 2 bits, by semantic token protection."""

    tokens: torch.Tensor
    protected: bool = False


def token_groups(start: int, end: int, size: int, protected: torch.Tensor | None = None) -> list[Group]:
    """Complete groups of the tokens ``start .. end - 1``, in the order in which they fill.

    Without protection groups end at multiples of `size` (a block is a page of positions; the first is short by the
    sinks). With it, protected and other tokens fill one group each, closed at `size` tokens or before its span would
    exceed the longest token bitmap (512). Groups that more tokens could still join are left out, so the result for a
    longer sequence only adds to that for a shorter one.

    Parameters
    ----------
    protected : torch.Tensor or None
        bool ``[>= end]``; None: no token is.
    """
    checks.choice("size", size, GROUPS)
    if not 0 <= start <= end:
        raise ValueError(f"start and end must be 0 <= start <= end, not {start} and {end}")
    if protected is None:
        bounds = [start, *range((start // size + 1) * size, end + 1, size)]
        return [Group(torch.arange(low, high)) for low, high in pairwise(bounds)]
    if len(protected) < end:
        raise ValueError(f"protected must cover {end} tokens, not {len(protected)}")
    groups, filling = [], {False: [], True: []}
    for token, kind in enumerate(protected[start:end].tolist(), start):
        members = filling[kind]
        for queue, queued in filling.items():
            if queued and token - queued[0] >= MAX_SPAN:
                groups.append(Group(torch.tensor(queued), queue))
                queued.clear()
        members.append(token)
        if len(members) == size:
            groups.append(Group(torch.tensor(members), kind))
            members.clear()
    return groups

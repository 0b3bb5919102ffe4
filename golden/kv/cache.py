"""A cache that grows: exact sinks and newest tokens, everything between packed group by group, each group once."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from golden.arguments import tensor
from golden.kv.blocks import Blocks, KeyPlan, ValuePlan, plan_keys, plan_values, quantize_keys, quantize_values
from golden.kv.config import CacheFormat
from golden.kv.grouping import Group, token_groups
from golden.kv.residual import write_fp16
from spec import checks

__all__ = ["LayerCache"]

_AXES = ("heads", "tokens", "D")


@contextmanager
def _placed(name: str, group: Group) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        tokens = group.tokens.tolist()
        raise ValueError(f"{name} of tokens {tokens[0]}..{tokens[-1]}, {error}") from error


class LayerCache:
    """Cache of one layer.

    `prefill` fixes centre and channel split; a group is packed when it is complete and its last token is older than the
    newest `recent`. Packed blocks are never touched again. Tokens outside blocks are held in FP16.

    Parameters
    ----------
    fmt : CacheFormat
        A ``"paper"`` format with quantized keys and values.
    moments : tuple of torch.Tensor, or None
        (keys, values), ``[heads, D, D]`` each, for rounding ``"attention"``; see `golden.kv.moments`.

    Attributes
    ----------
    tokens : int
        Length of the sequence so far.
    key_blocks, value_blocks : list[tuple[Group, Blocks]]
        What is packed, one group each, in the order of packing.
    plan : KeyPlan or None
        Centre and channel split of the keys, from `prefill` on.
    """

    def __init__(self, fmt: CacheFormat, moments: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        checks.instance("fmt", fmt, CacheFormat)
        if fmt.mode != "paper" or "fp16" in (fmt.key.code, fmt.value.code):
            raise ValueError(f"fmt must be a 'paper' format with quantized keys and values, not {fmt!r}")
        self.fmt = fmt
        self._moments = moments or (None, None)
        self.tokens = 0
        self.key_blocks: list[tuple[Group, Blocks]] = []
        self.value_blocks: list[tuple[Group, Blocks]] = []
        self.plan: KeyPlan | None = None
        self._value_plan: ValuePlan | None = None
        self._protected: torch.Tensor | None = None
        self._exact_keys: dict[int, torch.Tensor] = {}
        self._exact_values: dict[int, torch.Tensor] = {}

    def prefill(self, keys: torch.Tensor, values: torch.Tensor, protected: torch.Tensor | None = None) -> None:
        """First tokens, ``[heads, tokens, D]`` each, more than `sinks`; `protected` as in `token_groups`.

        Raises
        ------
        ValueError
            Called twice, or shapes that do not fit.
        """
        if self.plan is not None:
            raise ValueError("prefill must come once, first")
        keys, values = (tensor(name, x, _AXES) for name, x in (("keys", keys), ("values", values)))
        if keys.shape != values.shape:
            raise ValueError(f"keys and values must be alike, not {list(keys.shape)} and {list(values.shape)}")
        if keys.shape[1] <= self.fmt.sinks:
            raise ValueError(f"prefill must be longer than the {self.fmt.sinks} sinks, not {keys.shape[1]} tokens")
        if (protected is not None) != bool(self.fmt.value.protected):
            raise ValueError("protected must be given exactly when the value format protects tokens")
        if protected is not None:
            protected = tensor("protected", protected, ("tokens",), (torch.bool,))
            if len(protected) != keys.shape[1]:
                raise ValueError(f"protected must be for {keys.shape[1]} tokens, not {len(protected)}")
        key_moment, value_moment = self._moments
        plan = plan_keys(keys[:, self.fmt.sinks :], self.fmt.key, key_moment)
        self._value_plan = plan_values(values[:, self.fmt.sinks :], self.fmt.value, value_moment)
        self.plan = plan
        self._add(keys, values, protected)

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Later tokens, ``[heads, tokens, D]`` each; never protected."""
        if self.plan is None:
            raise ValueError("append must come after prefill")
        heads, head_dim = self.plan.centre.shape
        keys, values = (tensor(name, x, _AXES) for name, x in (("keys", keys), ("values", values)))
        if keys.shape != values.shape or (keys.shape[0], keys.shape[2]) != (heads, head_dim):
            raise ValueError(
                f"keys and values must be [{heads}, tokens, {head_dim}], not {list(keys.shape)} and "
                f"{list(values.shape)}"
            )
        self._add(keys, values, None if self._protected is None else torch.zeros(keys.shape[1], dtype=torch.bool))

    def _add(self, keys: torch.Tensor, values: torch.Tensor, protected: torch.Tensor | None) -> None:
        keys, values = write_fp16(keys).codes, write_fp16(values).codes
        for i in range(keys.shape[1]):
            self._exact_keys[self.tokens + i] = keys[:, i]
            self._exact_values[self.tokens + i] = values[:, i]
        self.tokens += keys.shape[1]
        if protected is not None:
            before = [] if self._protected is None else [self._protected]
            self._protected = torch.cat([*before, protected])
        end = max(self.fmt.sinks, self.tokens - self.fmt.recent)
        for group in token_groups(self.fmt.sinks, end, self.fmt.key.group)[len(self.key_blocks) :]:
            x = self._take(self._exact_keys, group)
            with _placed("keys", group):
                self.key_blocks.append((group, quantize_keys(x, self.plan, self.fmt.key)))
        groups = token_groups(self.fmt.sinks, end, self.fmt.value.group, self._protected)
        for group in groups[len(self.value_blocks) :]:
            x = self._take(self._exact_values, group)
            with _placed("values", group):
                blocks = quantize_values(x, self._value_plan, self.fmt.value, protected=group.protected)
            self.value_blocks.append((group, blocks))

    @staticmethod
    def _take(exact: dict[int, torch.Tensor], group: Group) -> torch.Tensor:
        """Remove a group's tokens from the exact ones: ``[heads, 1, tokens, D]``."""
        return torch.stack([exact.pop(token) for token in group.tokens.tolist()], 1)[:, None]

    @property
    def exact_tokens(self) -> tuple[list[int], list[int]]:
        """Tokens held exactly: (keys, values), ascending."""
        return sorted(self._exact_keys), sorted(self._exact_values)

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values ``[heads, tokens, D]``, FP16, in token order, with the centres put back."""
        return (
            self._read(self.key_blocks, self._exact_keys, self.plan.centre),
            self._read(self.value_blocks, self._exact_values, self._value_plan.centre),
        )

    def _read(self, packed, exact: dict[int, torch.Tensor], centre: torch.Tensor) -> torch.Tensor:
        heads, head_dim = centre.shape
        out = torch.empty(heads, self.tokens, head_dim, dtype=torch.float16)
        for group, blocks in packed:
            out[:, group.tokens] = (blocks.reference()[:, 0] + centre[:, None]).to(torch.float16)
        for token, x in exact.items():
            out[:, token] = x
        return out

"""Keys and values -> blocks: centre, channel split, transform and quantizer, and the float64 reference back.

A block is one group of tokens of one (layer, KV head). Everything here is batched: heads and groups are leading axes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from golden.kv.config import KeyFormat, ValueFormat
from golden.kv.metadata import ScaleError
from golden.kv.quantizers import Segment, quantize
from golden.kv.refine import refine
from golden.kv.transforms import forward, inverse, matrix

__all__ = ["Blocks", "KeyPlan", "ValuePlan", "plan_keys", "plan_values", "quantize_keys", "quantize_values"]


@dataclass(frozen=True)
class KeyPlan:
    """What is fixed at the end of prefill for the keys of one layer.

    Attributes
    ----------
    centre : torch.Tensor
        float64 ``[heads, D]``, taken off every key; zeros when the format has no centre.
    channels : tuple of torch.Tensor
        int64 ``[heads, n]`` per segment, ascending: the anomalous channels first, when there are any.
    moment : torch.Tensor or None
        float64 ``[heads, D, D]``: mean of q q^T over queries, for rounding ``"attention"``.
    """

    centre: torch.Tensor
    channels: tuple[torch.Tensor, ...]
    moment: torch.Tensor | None = None


@dataclass(frozen=True)
class ValuePlan:
    """What prefill fixes for the values of one layer: `centre` and `moment` (W_o^T W_o), shaped as for keys."""

    centre: torch.Tensor
    moment: torch.Tensor | None = None


@dataclass(frozen=True)
class Blocks:
    """Blocks of one layer, batched: ``[heads, groups]`` of them.

    Attributes
    ----------
    segments : tuple of Segment
        Batched over ``[heads, groups]``.
    channels : tuple of torch.Tensor
        int64 ``[heads, n]`` per segment: which channels its positions are.
    """

    segments: tuple[Segment, ...]
    channels: tuple[torch.Tensor, ...]

    def reference(self) -> torch.Tensor:
        """float64 ``[heads, groups, tokens, D]``: inverse transform in float64, channels in order, not rounded."""
        parts, order = [], []
        for segment, channels in zip(self.segments, self.channels, strict=True):
            parts.append(inverse(segment.values, segment.transform))
            order.append(channels)
        stored, index = torch.cat(parts, -1), torch.cat(order, -1)
        out = torch.empty_like(stored)
        return out.scatter_(-1, index[:, None, None, :].expand_as(stored), stored)


def _checked_moment(fmt: KeyFormat | ValueFormat, moment: torch.Tensor | None, heads: int, head_dim: int):
    """`moment` if the format needs it, else None."""
    if fmt.rounding == "nearest":
        return None
    wanted = (heads, head_dim, head_dim)
    if moment is None or tuple(moment.shape) != wanted:
        got = None if moment is None else tuple(moment.shape)
        raise ValueError(f"moment must have shape {wanted} for rounding 'attention', not {got}")
    return moment.double()


def plan_keys(keys: torch.Tensor, fmt: KeyFormat, moment: torch.Tensor | None = None) -> KeyPlan:
    """Centre and channel split from the prefill keys of one layer, ``[heads, tokens, D]``, sinks left out.

    A channel's range is its maximum minus its minimum over the tokens (``split_by`` ``"head"``), or over the tokens of
    all heads after centring (``"layer"``); the largest are anomalous, ties to the lower channel.
    """
    if keys.dim() != 3 or 0 in keys.shape:
        raise ValueError(f"keys must be [heads, tokens, D] with no empty axis, not {list(keys.shape)}")
    keys = keys.double()
    heads, _, head_dim = keys.shape
    centre = keys.mean(1) if fmt.centre else torch.zeros(heads, head_dim, dtype=torch.float64)
    moment = _checked_moment(fmt, moment, heads, head_dim)
    count = fmt.anomalous_channels(head_dim)
    everything = torch.arange(head_dim).expand(heads, -1)
    if count == 0 or count == head_dim:
        return KeyPlan(centre, (everything,), moment)
    centred = keys - centre[:, None]
    if fmt.split_by == "layer":
        spread = (centred.amax((0, 1)) - centred.amin((0, 1))).expand(heads, -1)
    else:
        spread = centred.amax(1) - centred.amin(1)
    order = spread.argsort(dim=-1, descending=True, stable=True)
    return KeyPlan(centre, (order[:, :count].sort(-1).values, order[:, count:].sort(-1).values), moment)


def quantize_keys(keys: torch.Tensor, plan: KeyPlan, fmt: KeyFormat) -> Blocks:
    """Quantize ``[heads, groups, tokens, D]`` keys; the centre is taken off here and not put back by `reference`."""
    if fmt.code == "fp16":
        raise ValueError("code must be a quantized code to make blocks, not 'fp16'")
    centred = keys.double() - plan.centre[:, None, None]
    count = fmt.anomalous_channels(keys.shape[-1])
    codes = (fmt.anomalous_code, fmt.code)[0 if count else 1 :][: len(plan.channels)]
    parts, segments = [], []
    for code, channels in zip(codes, plan.channels, strict=True):
        part = centred.gather(-1, channels[:, None, None, :].expand(*centred.shape[:3], -1))
        transform = fmt.transform_of(code, channels.shape[-1])
        parts.append(forward(part, transform))
        options = {"metadata": fmt.metadata, "transform": transform, "gamma": fmt.gamma, "fit": fmt.fit}
        with placed(channels):
            segments.append(quantize(parts[-1], code, **options))
    if plan.moment is not None:
        segments = refine(parts, segments, _in_storage(plan, segments), fmt.metadata)
    return Blocks(tuple(segments), plan.channels)


def _in_storage(plan: KeyPlan, segments: list[Segment]) -> torch.Tensor:
    """The moment in the coordinates in which codes are stored: segment after segment, transformed."""
    order = torch.cat(plan.channels, -1)
    moment = plan.moment.gather(1, order[:, :, None].expand_as(plan.moment))
    moment = moment.gather(2, order[:, None, :].expand_as(moment))
    basis = torch.block_diag(*(matrix(s.transform, s.codes.shape[-1]) for s in segments))
    return basis @ moment @ basis.T


def plan_values(values: torch.Tensor, fmt: ValueFormat, moment: torch.Tensor | None = None) -> ValuePlan:
    """Centre (or zeros) from the prefill values of one layer, ``[heads, tokens, D]``, sinks left out."""
    if values.dim() != 3 or 0 in values.shape:
        raise ValueError(f"values must be [heads, tokens, D] with no empty axis, not {list(values.shape)}")
    values = values.double()
    heads, _, head_dim = values.shape
    centre = values.mean(1) if fmt.centre else torch.zeros(heads, head_dim, dtype=torch.float64)
    return ValuePlan(centre, _checked_moment(fmt, moment, heads, head_dim))


def quantize_values(values: torch.Tensor, plan: ValuePlan, fmt: ValueFormat, *, protected: bool = False) -> Blocks:
    """Quantize ``[heads, groups, tokens, D]`` values; `protected` groups are stored as ``u2``."""
    if fmt.code == "fp16":
        raise ValueError("code must be a quantized code to make blocks, not 'fp16'")
    code = "u2" if protected else fmt.code
    centred = values.double() - plan.centre[:, None, None]
    metadata = "q8" if code == "u2" and fmt.metadata == "f6" else fmt.metadata
    channels = torch.arange(values.shape[-1]).expand(values.shape[0], -1)
    with placed(channels):
        segment = quantize(centred, code, metadata=metadata, gamma=fmt.gamma, scale=fmt.scale, fit=fmt.fit)
    if plan.moment is not None and code != "u2":
        (segment,) = refine([centred], [segment], plan.moment, metadata)
    return Blocks((segment,), (channels,))


@contextmanager
def placed(channels: torch.Tensor) -> Iterator[None]:
    """Put head and channel before an error about the scales of a segment of these channels, int64 ``[heads, n]``."""
    try:
        yield
    except ScaleError as error:
        head, position = error.index[0], error.index[-1]
        raise ValueError(f"head {head}, channel {int(channels[head, position])}: {error}") from error

"""Lists of value packets with their probabilities: what to send to `ValueCore`, and what must come of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from golden.attention.slots import run_packet, write_slots
from golden.attention.values import add_block, add_exact, align_weights, finish
from golden.kv.block import Block
from golden.kv.pack import pack_block
from hw.attention.layouts import PacketBeat, Weight
from hw.attention.value.results import Value
from sim.job import Job, JobResult
from sim.layout import pack, unpack
from spec.attention import BUS_BYTES, GROUP_ROWS, AttentionConfig

__all__ = ["Expected", "Run", "ValueList", "compare_values", "expected_values", "value_job"]


@dataclass(frozen=True)
class Run:
    """Exact tokens: int8 ``codes`` ``[tokens, D]``, float16 ``scale`` ``[tokens]``; ``cuts``: rows of each group."""

    codes: torch.Tensor
    scale: torch.Tensor
    cuts: tuple[int, ...]

    def __post_init__(self):
        assert sum(self.cuts) == len(self.codes)
        assert all(0 < rows <= GROUP_ROWS for rows in self.cuts)

    def packet(self) -> bytes:
        return run_packet(write_slots(self.codes, self.scale))


@dataclass(frozen=True)
class ValueList:
    """Items of one list and a float16 tensor of probabilities per item.

    ``packets`` and ``weights`` replace what is sent for an item: bytes; (probabilities, scales or None, last) arrays.
    ``marked``: the list's result must be marked, and its values do not count.
    """

    items: Sequence[Block | Run]
    probabilities: Sequence[torch.Tensor]
    packets: Mapping[int, bytes] = field(default_factory=dict)
    weights: Mapping[int, tuple] = field(default_factory=dict)
    marked: bool = False


class Expected(NamedTuple):
    """A list's result: FP16 bits, uint16 ``[D]``, or None where they do not count; D; whether it is marked."""

    values: np.ndarray | None
    channels: int
    marked: bool


def expected_values(found: ValueList, config: AttentionConfig) -> tuple[np.ndarray, bool]:
    """FP16 bits of the list's result, uint16 ``[D]``, and whether one of them was beyond FP16."""
    sums = 0
    for item, p in zip(found.items, found.probabilities, strict=True):
        if isinstance(item, Block):
            sums = sums if torch.is_tensor(sums) else torch.zeros(item.header.channels)
            sums = add_block(sums, item, align_weights(p, config))
            continue
        sums = sums if torch.is_tensor(sums) else torch.zeros(item.codes.shape[1])
        start = 0
        for rows in item.cuts:
            own = slice(start, start + rows)
            sums = add_exact(sums, item.codes[own], align_weights(p[own], config, item.scale[own]))
            start += rows
    values, beyond = finish(sums)
    return values.view(np.uint16), beyond


def group_weights(item: Block | Run, p: torch.Tensor):
    """(probabilities, scales or None, last) of an item, one entry per row."""
    last = np.zeros(len(p), np.uint8)
    if isinstance(item, Block):
        last[-1] = 1
        return p, None, last
    last[np.cumsum(item.cuts) - 1] = 1
    return p, item.scale, last


def value_job(lists: Sequence[ValueList], config: AttentionConfig, **options) -> tuple[Job, list[Expected]]:
    """A job for :func:`sim.job.run_jobs`, and what each list must give. All of one head dim."""
    data, flags, weights, expected = [], [], [], []
    for found in lists:
        for number, (item, p) in enumerate(zip(found.items, found.probabilities, strict=True)):
            block = isinstance(item, Block)
            packet = found.packets.get(number) or (pack_block(item) if block else item.packet())
            beats = np.frombuffer(packet, np.uint8).reshape(-1, BUS_BYTES)
            data.append(beats)
            last = np.arange(len(beats)) == len(beats) - 1
            final = np.full(len(beats), number == len(found.items) - 1)
            flags.append(np.stack([last, np.full(len(beats), not block), final], 1))
            values, scale, last = found.weights.get(number) or group_weights(item, p)
            exact = np.full(len(values), scale is not None)
            scale = torch.zeros(len(values)).half() if scale is None else scale
            end = (np.arange(len(values)) == len(values) - 1) & (number == len(found.items) - 1)
            weights.append(
                [values.numpy().view(np.uint16), scale.numpy().view(np.uint16), exact, np.asarray(last), end]
            )
        channels = item.header.channels if block else item.codes.shape[1]
        result = (None, True) if found.marked else expected_values(found, config)
        expected.append(Expected(result[0], channels, result[1]))
    flags = np.concatenate(flags).astype(np.uint8)
    columns = [np.concatenate(column).astype(np.uint64) for column in zip(*weights, strict=True)]
    inputs = {
        "i": pack(PacketBeat, {"data": np.concatenate(data), "last": flags[:, 0], "exact": flags[:, 1],
                               "final": flags[:, 2]}),
        "weights": pack(Weight, dict(zip(("value", "scale", "exact", "last", "final"), columns, strict=True))),
    }  # fmt: skip
    options = {
        "signals": {"error_clear": 0, "channels": channels // 8 - 1},
        "observe": ["error", "error_count"],
        "tail": 300,
    } | options
    return Job(inputs=inputs, outputs={"o": sum(x.channels for x in expected)}, **options), expected


def compare_values(result: JobResult, expected: Sequence[Expected]) -> None:
    """Every element of every list. Raises AssertionError naming the list."""
    beats = {name: np.asarray(x).astype(np.int64) for name, x in unpack(Value, result.outputs["o"]).items()}
    start = 0
    for number, (values, channels, marked) in enumerate(expected):
        own = slice(start, start + channels)
        start += channels
        last = np.arange(channels) == channels - 1
        np.testing.assert_array_equal(beats["last"][own], last, f"list {number}: last")
        np.testing.assert_array_equal(beats["marked"][own], marked, f"list {number}: marks")
        if values is not None:
            np.testing.assert_array_equal(beats["value"][own], values, f"list {number}: values")
    assert start == len(beats["last"])
    assert result.observed["error_count"] == sum(x.marked for x in expected)

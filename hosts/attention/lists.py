"""Lists of packets through the simulated cores, compared with the exact models."""

from dataclasses import dataclass

import numpy as np
import torch

from golden.attention.scores import block_scores, exact_scores, prepare_query
from golden.attention.slots import run_packet, write_slots
from golden.kv.pack import pack_block
from hw.attention.layouts import Layout, PacketBeat, QueryElement, Score
from sim.job import Job, JobResult
from sim.layout import pack, unpack
from spec.attention import BUS_BYTES, AttentionConfig
from spec.kv_block import KvHeader

__all__ = ["Exact", "KeyList", "compare_scores", "packet_beats", "score_job"]


@dataclass(frozen=True)
class Exact:
    """A run of exact tokens: int8 ``[tokens, D]``, float16 ``[tokens]``, and in key slots the values' scales."""

    codes: torch.Tensor
    scale: torch.Tensor
    value_scale: torch.Tensor | None = None

    def packet(self) -> bytes:
        return run_packet(write_slots(self.codes, self.scale, self.value_scale))


@dataclass(frozen=True)
class KeyList:
    """A query (float16 ``[D]``), the layout that it comes with, and what it is scored against.

    ``packets`` overrides the bytes of an item by its index; ``bad`` says what to expect then: an item's marked scores,
    as how many come and from which on they are marked.
    """

    query: torch.Tensor
    header: KvHeader
    channels: np.ndarray
    items: list
    packets: dict[int, bytes]
    bad: dict[int, tuple[int, int]]


def packet_beats(packets: list[tuple[bytes, bool, bool]]) -> np.ndarray:
    """Packets as (bytes, exact, final) to payloads of stream ``i``."""
    data, last, exact, final = [], [], [], []
    for packet, is_exact, is_final in packets:
        if not packet or len(packet) % BUS_BYTES:
            raise ValueError(f"a packet must be a whole number of {BUS_BYTES}-byte beats, not {len(packet)} bytes")
        beats = len(packet) // BUS_BYTES
        data.append(np.frombuffer(packet, np.uint8).reshape(beats, BUS_BYTES))
        last += [0] * (beats - 1) + [1]
        exact += [int(is_exact)] * beats
        final += [int(is_final)] * beats
    fields = {"last": last, "exact": exact, "final": final}
    return pack(
        PacketBeat, {"data": np.concatenate(data), **{name: np.array(x, np.uint8) for name, x in fields.items()}}
    )


def _layout(item: KeyList) -> dict[str, np.ndarray]:
    header = item.header
    mask = np.zeros(128, np.uint8)
    mask[item.channels[: header.segment0]] = 1
    codes = {"channels": header.channels // 8 - 1, "segment0": header.segment0 // 8 - 1}
    codes |= {"transform0": int(header.transform0), "transform1": int(header.transform1)}
    return {
        "mask": np.packbits(mask, bitorder="little")[None],
        **{k: np.array([v], np.uint8) for k, v in codes.items()},
    }


def score_job(lists: list[KeyList], config: AttentionConfig, **options) -> tuple[Job, list[dict]]:
    """A job for :func:`sim.job.run_jobs`, and the scores that it must give: fields of `Score` per score, in order."""
    layouts, elements, beats, expected = [], [], [], []
    for entry in lists:
        layouts.append(_layout(entry))
        bits = entry.query.numpy().view(np.uint16)
        elements.append({"value": bits, "last": (np.arange(len(bits)) == len(bits) - 1).astype(np.uint8)})
        query = prepare_query(entry.query, entry.header, entry.channels, config)
        for number, item in enumerate(entry.items):
            final = number == len(entry.items) - 1
            is_exact = isinstance(item, Exact)
            packet = entry.packets.get(number) or (item.packet() if is_exact else pack_block(item))
            beats.append((packet, is_exact, final))
            scores = exact_scores(query, item.codes, item.scale) if is_exact else block_scores(query, item)
            count, marked_from = entry.bad.get(number, (len(scores), len(scores)))
            for row in range(count):
                value_scale = 0
                if is_exact and item.value_scale is not None and row < len(scores):
                    value_scale = int(item.value_scale.numpy().view(np.uint16)[row])
                expected.append(
                    {
                        "value": int(scores.numpy().view(np.uint32)[min(row, len(scores) - 1)]),
                        "value_scale": value_scale,
                        "marked": int(row >= marked_from or query.poison),
                        "last": int(row == count - 1),
                        "final": int(row == count - 1 and final),
                    }
                )
    joined = {name: np.concatenate([x[name] for x in layouts]) for name in layouts[0]}
    inputs = {
        "layout": pack(Layout, joined),
        "query": pack(QueryElement, {name: np.concatenate([x[name] for x in elements]) for name in elements[0]}),
        "i": packet_beats(beats),
    }
    options = {"signals": {"error_clear": 0}, "observe": ["error", "error_count"], "tail": 300} | options
    return Job(inputs=inputs, outputs={"o": len(expected)}, **options), expected


def compare_scores(result: JobResult, expected: list[dict]) -> None:
    """Every score bit for bit, and everything beside it."""
    got = unpack(Score, result.outputs["o"])
    value = got["value"]
    bits = value["fraction"] | value["exponent"] << np.uint64(23) | value["sign"] << np.uint64(31)
    wanted = {name: np.array([e[name] for e in expected]) for name in expected[0]}
    for name in ("marked", "last", "final"):
        np.testing.assert_array_equal(got[name], wanted[name], name)
    good = wanted["marked"] == 0
    np.testing.assert_array_equal(bits[good], wanted["value"][good], "scores")
    np.testing.assert_array_equal(got["value_scale"][good], wanted["value_scale"][good], "value scales")

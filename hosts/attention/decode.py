"""Reads of a layer through the cores behind AXI: scores, softmax here, outputs; all compared, bytes counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hosts.attention.axi import as_core_result, lists_of_beats, score_axi_job, value_axi_job
from hosts.attention.layer import HeadRead, LayerCache, real_rows
from hw.attention.layouts import Score
from hw.attention.value.results import Value
from sim.build import Built
from sim.job import Job, JobResult, run_jobs
from sim.layout import unpack
from spec.attention import BUS_BYTES, AttentionConfig

__all__ = ["ListOutcome", "decode"]


@dataclass(frozen=True)
class ListOutcome:
    """What one list gave.

    Attributes
    ----------
    compared, mismatches : int
        Scores, or elements of the result.
    cycles : int
        From the end of the list before to this one's.
    max_rel_error : float
        Against float64 over the same cache, relative to the sum of |q k| or |p v|.
    port_bytes : int
        Taken at ``s_axis_packets``.
    """

    compared: int
    mismatches: int
    cycles: int
    max_rel_error: float
    port_bytes: int


def _port_bytes(job: Job, result: JobResult) -> np.ndarray:
    """Bytes per list, from the beats that the port took."""
    beats = job.inputs["s_axis_packets"]
    taken = len(result.input_cycles["s_axis_packets"])
    return BUS_BYTES * np.bincount(lists_of_beats(beats)[:taken])


def _outcomes(counts, wrong, ends, errors, sizes) -> list[ListOutcome]:
    cycles = np.diff(np.concatenate([[0], ends]))
    rows = zip(counts, wrong, cycles, errors, sizes, strict=True)
    return [ListOutcome(int(n), int(w), int(c), float(e), int(b)) for n, w, c, e, b in rows]


def decode(
    cache: LayerCache,
    reads: Sequence[HeadRead],
    queries: Sequence[torch.Tensor],
    cores: tuple[Built, Built],
    config: AttentionConfig,
    *,
    seed: int,
    progress: Callable[[str], None] = lambda what: None,
) -> tuple[list[ListOutcome], list[ListOutcome]]:
    """Scores and outputs of every read, with its query (float16 ``[D]``), through (score core, value core)."""
    progress(f"scores of {len(reads)} lists")
    key_lists = [cache.key_list(read, query) for read, query in zip(reads, queries, strict=True)]
    job, expected = score_axi_job(key_lists, config)
    (result,) = run_jobs(cores[0], [job], seed=seed)
    sizes = _port_bytes(job, result)
    result = as_core_result(result, "m_axis_scores")
    got = unpack(Score, result.outputs["o"])
    bits = got["value"]["fraction"] | got["value"]["exponent"] << np.uint64(23) | got["value"]["sign"] << np.uint64(31)
    bits = bits.astype(np.uint32)
    differs = bits != np.array([e["value"] for e in expected], np.uint32)
    for name in ("marked", "last", "final", "value_scale"):
        differs |= got[name].astype(np.int64) != np.array([e[name] for e in expected])
    stops = np.flatnonzero([e["final"] for e in expected]) + 1
    starts = np.concatenate([[0], stops[:-1]])
    wrong, errors, value_lists, exact = [], [], [], []
    for start, stop, read, keys in zip(starts, stops, reads, key_lists, strict=True):
        scores = torch.from_numpy(bits[start:stop].view(np.float32).copy()).double()
        real = real_rows(keys.items)
        error = (scores - real @ keys.query.double()).abs() / (real.abs() @ keys.query.double().abs())
        wrong.append(differs[start:stop].sum())
        errors.append(error.max())
        p = scores.softmax(0).half()
        value_lists.append(cache.value_list(read, p))
        values = real_rows(value_lists[-1].items)
        exact.append((p.double() @ values, p.double() @ values.abs()))
    scores = _outcomes(stops - starts, wrong, result.output_cycles["o"][stops - 1], errors, sizes)

    progress(f"outputs of {len(reads)} lists")
    job, wanted = value_axi_job(value_lists, config)
    (result,) = run_jobs(cores[1], [job], seed=seed)
    sizes = _port_bytes(job, result)
    result = as_core_result(result, "m_axis_results")
    got = unpack(Value, result.outputs["o"])
    dim = wanted[0].channels
    outputs, marks, last = (np.asarray(got[n]).reshape(len(reads), dim) for n in ("value", "marked", "last"))
    outputs = outputs.astype(np.uint16)
    wrong = [
        ((own != want.values) | (mark != want.marked) | (end != (np.arange(dim) == dim - 1))).sum()
        for own, want, mark, end in zip(outputs, wanted, marks, last, strict=True)
    ]
    errors = [
        ((torch.from_numpy(own.view(np.float16).astype(np.float64)) - real).abs() / total).max()
        for own, (real, total) in zip(outputs, exact, strict=True)
    ]
    ends = result.output_cycles["o"].reshape(len(reads), dim)[:, -1]
    return scores, _outcomes([dim] * len(reads), wrong, ends, errors, sizes)

"""Jobs of :mod:`verif.attention` for the cores behind AXI: the same lists, beats of AXI4-Stream in and out."""

from dataclasses import replace

import numpy as np

from golden.attention.query_packet import write_query
from hosts.attention.lists import KeyList, score_job
from hosts.attention.value_lists import ValueList, value_job
from hw.attention.layouts import PacketBeat, Score, Weight
from hw.attention.value.results import Value
from hw.axi.definitions import load_map
from sim.job import Job, JobResult
from sim.layout import pack, unpack
from spec.attention import QUERY_WORD_BITS, AttentionConfig

__all__ = ["IDLE_BUS", "address_of", "as_core_result", "lists_of_beats", "score_axi_job", "value_axi_job"]

IDLE_BUS = {f"s_axil_{name}": 0 for name in ("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid", "bready",
                                             "araddr", "arprot", "arvalid", "rready")}  # fmt: skip
"""Inputs of AXI4-Lite while nobody uses it."""


def address_of(core: str) -> dict[str, int]:
    """Register -> byte address; ``core``: ``score_core`` or ``value_core``."""
    return {register.name: register.address for register in load_map(core).registers}


def _packets(beats: np.ndarray) -> dict[str, np.ndarray]:
    columns = unpack(PacketBeat, beats)
    return {
        "tdata": columns["data"],
        "tlast": columns["last"].astype(np.uint8),
        "tuser": (columns["exact"] | columns["final"] << np.uint64(1)).astype(np.uint8),
    }


def query_beats(packets: list[bytes]) -> dict[str, np.ndarray]:
    """Query packets as beats."""
    size = QUERY_WORD_BITS // 8
    last = np.concatenate([np.arange(len(p) // size) == len(p) // size - 1 for p in packets])
    return {"tdata": np.frombuffer(b"".join(packets), "<u8").astype(np.uint64), "tlast": last.astype(np.uint8)}


def score_axi_job(
    lists: list[KeyList], config: AttentionConfig, *, queries: dict[int, bytes] | None = None, **options
) -> tuple[Job, list[dict]]:
    """As :func:`hosts.attention.lists.score_job`; ``queries`` replaces the packets of some lists' queries."""
    job, expected = score_job(lists, config, **options)
    packets = [
        (queries or {}).get(number) or write_query(entry.query, entry.header, entry.channels)
        for number, entry in enumerate(lists)
    ]
    inputs = {"s_axis_queries": query_beats(packets), "s_axis_packets": _packets(job.inputs["i"])}
    return _behind_axi(job, inputs, "m_axis_scores"), expected


def value_axi_job(lists: list[ValueList], config: AttentionConfig, **options) -> tuple[Job, list]:
    """As :func:`hosts.attention.value_lists.value_job`, for lists of the build's largest head dim or, after a write of
    HEAD_DIM, of that."""
    job, expected = value_job(lists, config, **options)
    weights = unpack(Weight, job.inputs["weights"])
    beats = {
        "tdata": (weights["value"] | weights["scale"] << np.uint64(16)).astype(np.uint64),
        "tlast": weights["last"].astype(np.uint8),
        "tuser": (weights["exact"] | weights["final"] << np.uint64(1)).astype(np.uint8),
    }
    inputs = {"s_axis_weights": beats, "s_axis_packets": _packets(job.inputs["i"])}
    return _behind_axi(job, inputs, "m_axis_results"), expected


def _behind_axi(job: Job, inputs, output: str) -> Job:
    return replace(job, inputs=inputs, outputs={output: job.outputs["o"]}, signals=IDLE_BUS, observe=["irq"])


def as_core_result(result: JobResult, output: str) -> JobResult:
    """The result with the output's beats in the form of the core's stream ``o``."""
    beats = result.outputs[output]
    data, last, user = (np.asarray(beats[name]).astype(np.uint64) for name in ("tdata", "tlast", "tuser"))
    if output == "m_axis_results":
        packed = pack(Value, {"value": data, "marked": user, "last": last})
    else:
        value = {"fraction": data & 0x7FFFFF, "exponent": data >> 23 & 0xFF, "sign": data >> 31 & 1}
        rest = {"value_scale": data >> 32 & 0xFFFF, "marked": user & 1, "last": last, "final": user >> 1}
        packed = pack(Score, {"value": value, **rest})
    return replace(
        result,
        outputs={"o": packed},
        output_cycles=result.output_cycles | {"o": result.output_cycles[output]},
    )


def lists_of_beats(beats: dict[str, np.ndarray]) -> np.ndarray:
    """For each beat of ``s_axis_packets`` the number of its list."""
    ends = (beats["tlast"] == 1) & (beats["tuser"] >> 1 == 1)
    return np.concatenate([[0], np.cumsum(ends)[:-1]])

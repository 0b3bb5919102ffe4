"""Packets through a simulated engine, compared with what must come out."""

from functools import cache

import numpy as np

from hw.kv.engine import KvDequantizer
from hw.kv.layouts import Beat, Elements
from sim.build import Built
from sim.design import build_design
from sim.job import Job, JobResult
from sim.layout import pack, unpack
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvTransform
from verif.kv.expected import NO_CENTRE, Expected, expect_all

__all__ = ["CONFIGS", "build_engine", "compare", "engine_job", "to_beats"]

_BOTH = frozenset({KvTransform.WHT, KvTransform.RFFT})
CONFIGS = {
    4: KvEngineConfig(lanes=4, transforms=_BOTH, scale_bits=11),
    8: KvEngineConfig(lanes=8, transforms={KvTransform.WHT}, max_channels=64, interleave=True),
    16: KvEngineConfig(lanes=16, transforms=_BOTH, scale_bits=11),
    32: KvEngineConfig(lanes=32, transforms=_BOTH, interleave=True, centre=True),
}
"""The engines that tests build, by lanes: each parameter has each of its values in one of them."""


@cache
def build_engine(config: KvEngineConfig) -> Built:
    """The engine's Verilog, compiled; once per process, as emission takes a while."""
    return build_design(KvDequantizer(config), "kv_dequantizer")


def to_beats(packets: list[bytes], config: KvEngineConfig) -> np.ndarray:
    """Packets as payloads of stream ``i``."""
    size = config.input_bits // 8
    for packet in packets:
        if not packet or len(packet) % size:
            raise ValueError(f"a packet must be a whole number of {size}-byte beats, not {len(packet)} bytes")
    data = np.frombuffer(b"".join(packets), np.uint8).reshape(-1, size)
    last = np.zeros(len(data), np.uint8)
    last[np.cumsum([len(packet) // size for packet in packets]) - 1] = 1
    if size <= 8:
        data = np.pad(data, ((0, 0), (0, 8 - size))).view("<u8")[:, 0]
    return pack(Beat(config.input_bits), {"data": data, "last": last})


def engine_job(
    packets: list[bytes],
    config: KvEngineConfig,
    *,
    add_centre: bool = False,
    centre: np.ndarray = NO_CENTRE,
    signals: dict[str, int] | None = None,
    **options,
) -> tuple[Job, list[Expected]]:
    """A job for :func:`sim.job.run_jobs`, and what it must give. ``centre``: the one loaded before the job."""
    expected = expect_all(packets, config, add=add_centre, centre=centre)
    inputs = {"error_clear": 0} | ({"add_centre": add_centre} if config.centre else {}) | (signals or {})
    options = {"signals": inputs, "observe": ["error", "error_count"], "tail": 200} | options
    count = sum(len(e.marked) for e in expected)
    return Job(inputs={"i": to_beats(packets, config)}, outputs={"o": count}, **options), expected


def compare(result: JobResult, expected: list[Expected], config: KvEngineConfig) -> None:
    """Every beat of every packet: values, tag and mark. Raises AssertionError naming the packet."""
    beats = unpack(Elements(config.lanes), result.outputs["o"])
    tag = {name: np.asarray(values).astype(np.int64) for name, values in beats["tag"].items()}
    data = np.asarray(beats["data"]).astype(np.uint16)
    start = 0
    for number, packet in enumerate(expected):
        own = slice(start, start + len(packet.marked))
        start = own.stop
        where = f"packet {number} ({packet.error.name}, {packet.header})"
        np.testing.assert_array_equal(tag["marked"][own], packet.marked, f"{where}: marks")
        last = np.arange(len(packet.marked)) == len(packet.marked) - 1
        np.testing.assert_array_equal(tag["last"][own], last, f"{where}: last")
        np.testing.assert_array_equal(tag["token_last"][own], packet.token_last, f"{where}: token_last")
        good = ~packet.marked
        for name in ("token", "channel"):
            np.testing.assert_array_equal(tag[name][own][good], getattr(packet, name)[good], f"{where}: {name}")
        groups = (1 << np.maximum(1, packet.lanes // 8)) - 1
        np.testing.assert_array_equal(tag["groups"][own][good], groups[good], f"{where}: groups")
        exists = (np.arange(config.lanes) < packet.lanes[:, None]) & good[:, None]
        np.testing.assert_array_equal(data[own][exists], packet.values[exists], f"{where}: values")
    assert start == len(data)
    assert result.observed["error_count"] == sum(bool(packet.marked[-1:].any()) for packet in expected)
    first = next((packet.error for packet in expected if packet.error), 0)
    assert bool(result.observed["error"]) == bool(first)

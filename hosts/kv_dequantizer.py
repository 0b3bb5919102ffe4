"""Packed blocks through the simulated AXI block: its own ports in, arrays of FP16 bits out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen.tops import kv_parameters
from gen.verilog import Emitted, emit
from golden.kv.block import Block
from golden.kv.engine_model import decode, marked_beats
from hw.tops.kv_dequantizer import KvDequantizerAxi
from shell.processes import parallel
from sim.build import Built
from sim.job import run_job
from spec.kv_block import HEADER_BYTES, KvHeader
from spec.kv_config import OUTPUT_USER, KvEngineConfig
from spec.kv_formats import KvMetadata, KvTransform

__all__ = ["TOP", "EngineOutput", "by_channel", "emit_engine", "mismatches", "needed_config", "run_packets"]

TOP = "kv_dequantizer_axi"
CHUNK_BEATS = 40_000
"""Beats of output per simulator process: a second or so, so that progress can be seen."""


@dataclass(frozen=True)
class EngineOutput:
    """What came out of the engine.

    Attributes
    ----------
    values : list of np.ndarray
        Per packet: FP16 bits, uint16 ``[rows, D]``, in channel order if the engine has it, else in storage order.
    tokens : list of np.ndarray
        Per packet: int64 ``[rows]``.
    wrong : list of int
        Per packet: elements whose beat has other tags than its place calls for.
    marked : list of np.ndarray
        Per packet: bool ``[beats]``, the beats that are marked.
    cycles : int
        Clock cycles, all simulator processes together.
    seconds : float
        The same for their wall time.
    """

    values: list[np.ndarray]
    tokens: list[np.ndarray]
    wrong: list[int]
    marked: list[np.ndarray]
    cycles: int
    seconds: float

    @property
    def elements(self) -> int:
        return sum(values.size for values in self.values)


def emit_engine(config: KvEngineConfig, out_dir: Path, top: str = TOP) -> Emitted:
    """The Verilog of the AXI block, as ``bitmosaic verilog`` emits it."""
    return emit(KvDequantizerAxi(config), top, out_dir, parameters=kv_parameters(config), latency=None)


def needed_config(headers: Sequence[KvHeader], lanes: int | None = None) -> KvEngineConfig:
    """The smallest engine that can serve blocks with these headers; ``lanes``: 16, with rfft 4, unless given."""
    transforms = frozenset(t for h in headers for t in (h.transform0, h.transform1) if t is not KvTransform.NONE)
    wide = any(h.metadata is KvMetadata.FP16 and (h.transform0 or h.transform1) for h in headers)
    return KvEngineConfig(
        lanes=lanes or (4 if KvTransform.RFFT in transforms else 16),
        max_channels=64 if all(h.channels <= 64 for h in headers) else 128,
        transforms=transforms,
        scale_bits=11 if wide else 8,
    )


def by_channel(values: np.ndarray, block: Block, config: KvEngineConfig) -> np.ndarray:
    """FP16 ``[rows, D]`` in channel order, of a block's ``EngineOutput.values``."""
    if config.interleave:
        return values.view(np.float16)
    out = np.empty(values.shape, np.float16)
    out[:, block.channels] = values.view(np.float16)
    return out


def mismatches(output: EngineOutput, blocks: Sequence[Block], config: KvEngineConfig) -> int:
    """Elements that differ from the exact model in value, token or place, or in being marked."""
    count = sum(output.wrong)
    parts = zip(blocks, output.values, output.tokens, output.marked, strict=True)
    for block, values, tokens, marked in parts:
        expected = decode(block)
        different = expected.values.view(np.uint16) != by_channel(values, block, config).view(np.uint16)
        beats = marked != marked_beats(block, expected, config.lanes, interleave=config.interleave)
        count += int(different.sum()) + block.header.channels * int((tokens != expected.tokens).sum())
        count += config.lanes * int(beats.sum())
    return count


def _header(packet: bytes) -> KvHeader:
    return KvHeader.from_word(int.from_bytes(packet[:HEADER_BYTES], "little"))


def _input(packets: Sequence[bytes], config: KvEngineConfig) -> dict[str, np.ndarray]:
    size = config.input_bits // 8
    data = np.frombuffer(b"".join(packets), np.uint8).reshape(-1, size)
    last = np.zeros(len(data), np.uint8)
    last[np.cumsum([len(packet) // size for packet in packets]) - 1] = 1
    if size <= 8:
        data = np.pad(data, ((0, 0), (0, 8 - size))).view("<u8")[:, 0]
    return {"tdata": data, "tlast": last}


def _chunks(packets: Sequence[bytes], config: KvEngineConfig) -> list[list[bytes]]:
    chunks, beats = [[]], 0
    for packet in packets:
        header = _header(packet)
        size = header.rows * -(-header.channels // config.lanes)
        if chunks[-1] and beats + size > CHUNK_BEATS:
            chunks.append([])
            beats = 0
        chunks[-1].append(packet)
        beats += size
    return chunks


def _split(beats: dict[str, np.ndarray], packets: Sequence[bytes], config: KvEngineConfig) -> list[tuple]:
    """(values, tokens, wrong elements, marks) per packet; every signal of every beat is looked at."""
    lanes = config.lanes
    data = np.asarray(beats["tdata"])
    values = data.astype("<u8").view("<u2").reshape(-1, 4) if data.ndim == 1 else data.view("<u2")
    user = {f.name: beats["tuser"].astype(np.int64) >> f.offset & (1 << f.width) - 1 for f in OUTPUT_USER}
    out, start = [], 0
    for packet in packets:
        header = _header(packet)
        rows, channels = header.rows, header.channels
        per_token = -(-channels // lanes)
        own = slice(start, start + rows * per_token)
        start = own.stop
        place = np.tile(np.arange(per_token), rows)
        exist = np.minimum(lanes, channels - place * lanes)
        keep = np.array([(1 << 2 * int(n)) - 1 for n in exist], object)
        bad = (beats["tkeep"][own].astype(object) != keep).astype(bool)
        bad |= beats["tlast"][own] != (np.arange(rows * per_token) == rows * per_token - 1)
        bad |= user["token_last"][own] != (place == per_token - 1)
        bad |= user["channel"][own] != place * lanes
        token = user["token"][own].reshape(rows, per_token)
        bad |= (token != token[:, :1]).any(1).repeat(per_token)
        rest = values[own].reshape(rows, per_token * lanes)[:, :channels]
        out.append((rest.astype(np.uint16), token[:, 0], int(exist[bad].sum()), user["error"][own] != 0))
    return out


def run_packets(
    built: Built,
    config: KvEngineConfig,
    packets: Sequence[bytes],
    *,
    seed: int = 1,
    processes: int = 2,
    progress: Callable[[int], None] = lambda packets: None,
) -> EngineOutput:
    """Good packets through the engine, nothing held back on either side.

    Parameters
    ----------
    built : Built
        The simulator of :func:`emit_engine`'s Verilog.
    packets : sequence of bytes
        Blocks; none may be a CENTRE block.
    processes : int
        Simulators at a time.
    progress : callable
        Told how many packets have just been done.

    Raises
    ------
    SimulationError
        The design comes to a halt, breaks the rules of streams, or gives more beats than the blocks hold.
    """

    def one(chunk: list[bytes]):
        count = sum(h.rows * -(-h.channels // config.lanes) for h in map(_header, chunk))
        result = run_job(
            built,
            {"s_axis": _input(chunk, config)},
            {"m_axis": count},
            signals={"error_clear": 0} | ({"add_centre": 0} if config.centre else {}),
            observe=["error_code", "error_count"],
            seed=seed,
        )
        progress(len(chunk))
        return result, _split(result.outputs["m_axis"], chunk, config)

    chunks = _chunks(packets, config)
    done = parallel(one, chunks, processes) if packets else []
    parts = [part for _, split in done for part in split]
    return EngineOutput(
        values=[part[0] for part in parts],
        tokens=[part[1] for part in parts],
        wrong=[part[2] for part in parts],
        marked=[part[3] for part in parts],
        cycles=sum(result.cycles for result, _ in done),
        seconds=sum(result.run.seconds for result, _ in done),
    )

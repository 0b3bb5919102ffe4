"""Sets of packets for a PEColumn: one row packet per PE, one activation packet, some of them spoiled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from amaranth.lib import data

from golden.bitserial.column import ColumnResult, column_model
from hw.bitserial.column import PEColumn
from hw.bitserial.column_pe import ActivationBeat
from sim.design import build_design
from sim.job import Job, JobResult
from sim.layout import pack
from spec.config import ColumnConfig
from verif.bitserial.packets import GROUP_SIZES, corrupted, random_packets, word_beats

__all__ = ["PacketSet", "column", "inputs", "job", "random_activations", "random_set", "rows"]

ACTIVATIONS = ("exact", "too short", "too long", "not finite", "not finite in unused lanes")


@dataclass
class PacketSet:
    """A row packet per PE, and FP16 activations, whole beats."""

    packets: list[np.ndarray]
    activations: torch.Tensor

    def expected(self, config: ColumnConfig, special_values=None) -> ColumnResult:
        return column_model(
            self.packets,
            self.activations,
            lanes=config.lanes,
            rounding=config.rounding,
            accumulator_bits=config.accumulator_bits,
            special_values=special_values,
        )


def column(config: ColumnConfig):
    """The column's simulator."""
    return build_design(PEColumn(config), "pe_column")


def random_activations(rng, count: int) -> np.ndarray:
    """Finite FP16 bits: normal numbers of several sizes, corners, subnormals, zeros."""
    normal = (rng.standard_normal(count) * 10.0 ** rng.integers(-4, 4)).astype(np.float16).view(np.uint16)
    corner = rng.choice([0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF], count)
    anything = rng.integers(0, 31, count) << 10 | rng.integers(0, 1 << 10, count) | rng.integers(0, 2, count) << 15
    return np.choose(rng.integers(0, 6, count), [normal, normal, normal, normal, corner, anything]).astype(np.uint16)


def random_set(rng, config: ColumnConfig, spoiled: dict[int, str] | None = None, how: str = "exact", **options):
    """One set: group sizes and datatypes differ between PEs; ``spoiled`` names PEs and what is wrong with their packet.

    Raises LookupError where the packet drawn cannot be spoiled that way.
    """
    lanes = config.lanes
    length = int(rng.choice([rng.integers(1, 2 * lanes + 2), rng.integers(1, 200), 32, 64, 128, 160]))
    sizes = rng.choice(GROUP_SIZES, 2)
    packets = [random_packets(rng, 1, length, int(sizes[pe % 2]), lanes, **options)[0] for pe in range(config.pes)]
    for pe, kind in (spoiled or {}).items():
        packets[pe] = corrupted(rng, packets[pe], kind, lanes)
    beats = -(-length // lanes)
    if how == "too short":
        if beats == 1:
            raise LookupError("a packet of one beat cannot lose one")
        beats = int(rng.integers(1, beats))
    elif how == "too long":
        beats += int(rng.integers(1, 12))
    bits = random_activations(rng, beats * lanes)
    bad = rng.choice([0x7C00, 0xFC00, 0x7E00, 0x7C01])
    if how == "not finite":
        bits[rng.integers(length)] = bad
    elif how == "not finite in unused lanes":
        if length == beats * lanes:
            raise LookupError("every lane is in use")
        bits[length:] = bad
    return PacketSet(packets, torch.from_numpy(bits.view(np.int16)).view(torch.float16))


def inputs(config: ColumnConfig, sets: Sequence[PacketSet]) -> dict[str, np.ndarray]:
    """The column's input streams."""
    streams = {f"weights__{pe}": word_beats([one.packets[pe] for one in sets]) for pe in range(config.pes)}
    parts = [one.activations.view(torch.int16).numpy().view(np.uint16).reshape(-1, config.lanes) for one in sets]
    last = np.zeros(sum(map(len, parts)), int)
    last[np.cumsum([len(part) for part in parts]) - 1] = 1
    words = np.concatenate(parts).astype(np.uint64)
    streams["activations"] = pack(_flat(config.lanes), {"lanes": words, "last": last})
    streams["special"] = np.zeros(0, np.uint64)
    return streams


def _flat(lanes: int):
    layout = data.StructLayout({"lanes": data.ArrayLayout(16, lanes), "last": 1})
    assert layout.size == ActivationBeat(lanes).size
    return layout


def job(config: ColumnConfig, sets: Sequence[PacketSet], **options) -> Job:
    """All sets through the column; the status is observed."""
    return Job(
        inputs=inputs(config, sets),
        outputs={"o": config.pes * len(sets)},
        signals={"clear": options.pop("clear", 0)},
        observe=("status",),
        **options,
    )


def rows(config: ColumnConfig, result: JobResult) -> tuple[np.ndarray, np.ndarray]:
    """FP32 bits and marks received, [sets, pes], each PE's in its order."""
    beats = result.outputs["o"]
    pe_bits = max(1, (config.pes - 1).bit_length())
    bits, pe = beats & np.uint64(0xFFFFFFFF), (beats >> np.uint64(32)) & np.uint64((1 << pe_bits) - 1)
    error = beats >> np.uint64(32 + pe_bits)
    assert (np.bincount(pe.astype(int), minlength=config.pes) == len(beats) // config.pes).all()
    order = [np.flatnonzero(pe == k) for k in range(config.pes)]
    return np.stack([bits[k] for k in order], 1), np.stack([error[k] for k in order], 1).astype(bool)

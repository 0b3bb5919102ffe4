"""Matrix times vectors on a simulated PE column: what goes into its streams, and what comes back."""

from dataclasses import dataclass

import numpy as np
import torch

from golden.weights import QuantizedWeight, pack
from sim.build import Built
from sim.job import JobResult, run_job
from spec.config import ColumnConfig

__all__ = ["ColumnOutput", "multiply"]


@dataclass(frozen=True)
class ColumnOutput:
    """What the column gave: FP32 bits uint32 [tokens, out], which of them came and which are marked; cycles, seconds;
    bits per weight that the row packets took."""

    bits: np.ndarray
    received: np.ndarray
    marked: np.ndarray
    cycles: int
    seconds: float
    bits_per_weight: float


def multiply(built: Built, config: ColumnConfig, weight: QuantizedWeight, activations: torch.Tensor, *, seed: int):
    """``activations`` (float16 [tokens, in]) times ``weight`` on the simulated column, ``pes`` channels at a time.

    Raises
    ------
    ValueError
        If the number of output channels is not a multiple of the column's PEs.
    SimulationError
        If the design comes to a halt, breaks a stream's rules or gives more results than rows.
    """
    tokens, channels = activations.shape[0], weight.shape[0]
    if channels % config.pes:
        raise ValueError(f"output channels must be a multiple of pes={config.pes}, not {channels}")
    blocks = channels // config.pes
    packed = pack(weight, lanes=config.lanes)
    rows = [_beats(words) for words in packed.rows()]
    # Block after block, and within a block token after token: PE p takes row `block * pes + p` once per token.
    inputs = {
        f"weights__{p}": np.concatenate(
            [rows[block * config.pes + p] for block in range(blocks) for _ in range(tokens)]
        )
        for p in range(config.pes)
    }
    packets = np.concatenate([_activation_beats(vector, config.lanes) for vector in activations])
    inputs["activations"] = np.concatenate([packets] * blocks)
    result = run_job(
        built,
        inputs,
        {"o": tokens * channels},
        signals={"clear": 0, "special__valid": 0, "special__payload": 0},
        seed=seed,
    )
    return _collect(result, config, blocks, tokens, packed.effective_bits())


def _beats(words: np.ndarray) -> np.ndarray:
    """A row packet's words, uint64 [n], as payloads of WeightWord: uint8 [n, 9], ``last`` in the ninth byte."""
    last = np.zeros((len(words), 1), np.uint8)
    last[-1] = 1
    return np.concatenate([words.astype("<u8").view(np.uint8).reshape(-1, 8), last], axis=1)


def _activation_beats(vector: torch.Tensor, lanes: int) -> np.ndarray:
    """FP16 [in] as payloads of ActivationBeat: uint8 [beats, 2 * lanes + 1]."""
    beats = -(-len(vector) // lanes)
    padded = np.zeros(beats * lanes, np.uint16)
    padded[: len(vector)] = vector.numpy().view(np.uint16)
    last = np.zeros((beats, 1), np.uint8)
    last[-1] = 1
    return np.concatenate([padded.astype("<u2").view(np.uint8).reshape(beats, -1), last], axis=1)


def _collect(result: JobResult, config: ColumnConfig, blocks: int, tokens: int, stored: float) -> ColumnOutput:
    """Results to their places: each PE's come in the order of its packets."""
    payload = result.outputs["o"]
    index_bits = max(1, (config.pes - 1).bit_length())
    pe = (payload >> np.uint64(32)) & np.uint64((1 << index_bits) - 1)
    bits = np.zeros((tokens, blocks * config.pes), np.uint32)
    received, marked = np.zeros_like(bits, bool), np.zeros_like(bits, bool)
    for p in range(config.pes):
        mine = payload[pe == p][: blocks * tokens]
        block, token = np.divmod(np.arange(len(mine)), tokens)
        place = token, block * config.pes + p
        bits[place] = mine & np.uint64(0xFFFFFFFF)
        marked[place] = (mine >> np.uint64(32 + index_bits)) & np.uint64(1)
        received[place] = True
    return ColumnOutput(bits, received, marked, result.cycles, result.run.seconds, stored)

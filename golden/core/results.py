"""The core's result stream: section 3 of docs/core.md."""

from collections.abc import Iterator, Mapping

import numpy as np

from golden.core.layer import CoreResult
from spec.core import CoreConfig

__all__ = ["result_beats", "result_matrix"]


def _packets(config: CoreConfig, tokens: int, inputs: int, outputs: int) -> Iterator[tuple[slice, slice]]:
    """Tokens and channels of each result packet, in order."""
    tiling = config.tiling(tokens, inputs, outputs)
    first_token = 0
    for block_tokens in tiling.tokens:
        first = 0
        for size in tiling.outputs:
            for start in range(first, first + size, config.rows):
                channels = slice(start, min(start + config.rows, first + size))
                yield slice(first_token, first_token + block_tokens), channels
            first += size
        first_token += block_tokens


def result_beats(config: CoreConfig, result: CoreResult, inputs: int) -> dict[str, np.ndarray]:
    """The beats of ``m_axis_results`` that carry a result.

    Returns tdata uint8 [beats, 4 P], tkeep uint8 [beats, 4 P] (a byte for a bit), tuser uint8 [beats, 2 P] (the same),
    tlast uint8 [beats].
    """
    per_beat = config.result_lanes * (1 + result.fp16)
    width = 2 if result.fp16 else 4
    parts = {"tdata": [], "tkeep": [], "tuser": [], "tlast": []}
    for tokens, channels in _packets(config, result.bits.shape[0], inputs, result.bits.shape[1]):
        bits, marked = result.bits[tokens, channels], result.marked[tokens, channels]
        count, size = bits.shape
        pad = ((0, 0), (0, -size % per_beat))
        shape = (-1, per_beat)
        values = np.pad(bits, pad).astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width]
        present = np.pad(np.ones((count, size), np.uint8), pad).reshape(shape)
        user = np.zeros((len(present), 2 * config.result_lanes), np.uint8)
        user[:, :per_beat] = np.pad(marked, pad).reshape(shape)
        parts["tdata"].append(values.reshape(-1, 4 * config.result_lanes))
        parts["tkeep"].append(present.repeat(width, axis=1))
        parts["tuser"].append(user)
        parts["tlast"].append(np.arange(len(present)) == len(present) - 1)
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return joined | {"tlast": joined["tlast"].astype(np.uint8)}


def result_matrix(
    config: CoreConfig, beats: Mapping[str, np.ndarray], tokens: int, inputs: int, outputs: int, *, fp16: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inverse of :func:`result_beats`, for as many beats as came: bits, marked and received, [tokens, out].

    TKEEP and TLAST are not looked at: compare them with those of :func:`result_beats`.
    """
    per_beat = config.result_lanes * (1 + fp16)
    bits = np.zeros((tokens, outputs), np.uint32)
    marked, received = np.zeros_like(bits, bool), np.zeros_like(bits, bool)
    data = np.ascontiguousarray(beats["tdata"]).view("<u2" if fp16 else "<u4")
    position = 0
    for rows, channels in _packets(config, tokens, inputs, outputs):
        count, size = rows.stop - rows.start, channels.stop - channels.start
        beats_each = -(-size // per_beat)
        whole = data[position : position + count * beats_each]
        user = beats["tuser"][position : position + len(whole), :per_beat]
        here = np.zeros((count * beats_each, per_beat), np.uint32)
        flags, came = np.zeros_like(here, bool), np.zeros_like(here, bool)
        here[: len(whole)], flags[: len(whole)], came[: len(whole)] = whole, user, True
        for target, source in ((bits, here), (marked, flags), (received, came)):
            target[rows, channels] = source.reshape(count, -1)[:, :size]
        position += count * beats_each
    return bits, marked, received

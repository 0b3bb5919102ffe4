"""What goes into the core's streams: sections 2 and 3 of docs/core.md."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from golden.core.layer import input_channels
from golden.weights.packing import row_packets
from golden.weights.quantized import QuantizedWeight
from spec import checks
from spec.core import CHANNEL_HEADER, CoreConfig

__all__ = [
    "Packets",
    "activation_image",
    "activation_stream",
    "channel_header",
    "check_weight",
    "chunk_slices",
    "weight_image",
    "weight_stream",
]

_PLACE = {field.name: field.offset for field in CHANNEL_HEADER}


@dataclass(frozen=True, eq=False)
class Packets:
    """Packets of a stream, back to back: a memory image from which they can be sent.

    Attributes
    ----------
    beats : array [beats, parts]
        Unsigned integers, the lowest part of TDATA first: uint64 [., R] for weights, uint16 [., L] for activations.
    lengths : int64 array [packets]
        Beats of each packet: TLAST is on its last one.
    """

    beats: np.ndarray
    lengths: np.ndarray

    @classmethod
    def join(cls, packets: Sequence[np.ndarray]) -> "Packets":
        """From single packets, each an array [beats, parts]."""
        return cls(np.concatenate(packets), np.array([len(packet) for packet in packets], np.int64))

    @classmethod
    def chain(cls, images: Sequence["Packets"]) -> "Packets":
        """One after the other."""
        beats, lengths = ([getattr(image, name) for image in images] for name in ("beats", "lengths"))
        return cls(np.concatenate(beats), np.concatenate(lengths))

    def split(self) -> list[np.ndarray]:
        """The single packets."""
        return np.split(self.beats, np.cumsum(self.lengths)[:-1])

    @property
    def last(self) -> np.ndarray:
        """TLAST of every beat, uint8 [beats]."""
        flags = np.zeros(len(self.beats), np.uint8)
        flags[np.cumsum(self.lengths) - 1] = 1
        return flags

    def octets(self) -> np.ndarray:
        """TDATA of every beat, uint8 [beats, bytes], little endian."""
        little = self.beats.astype(self.beats.dtype.newbyteorder("<"), copy=False)
        return np.ascontiguousarray(little).view(np.uint8).reshape(len(self.beats), -1)


def check_weight(config: CoreConfig, weight: QuantizedWeight) -> None:
    """Raise ValueError, naming what, if a build of the core cannot take a weight."""
    out, length = weight.shape
    if length > config.max_inputs or out > config.max_outputs:
        raise ValueError(
            f"the weight must be at most [{config.max_outputs}, {config.max_inputs}] for this core, not {[out, length]}"
        )
    checks.choice("group_size for this core", weight.group_size, config.group_sizes)
    unknown = sorted(set(weight.datatype.unique().tolist()) - {int(d) for d in config.datapath.datatypes})
    if unknown:
        raise ValueError(f"datatype must be one that this core decodes, not {unknown[0]}")


def chunk_slices(config: CoreConfig, inputs: int) -> list[tuple[int, int]]:
    """First input channel, and the one behind the last, of each chunk."""
    ends = np.cumsum(config.tiling(1, inputs, 1).chunks).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def channel_header(channel_scale: np.ndarray, words: np.ndarray) -> np.ndarray:
    """First words of slices: FP32 channel scales and words of the row packets behind them; uint64 [channels]."""
    header = channel_scale.astype(np.float32).view(np.uint32).astype(np.uint64) << np.uint64(_PLACE["channel_scale"])
    header |= np.asarray(words, np.uint64) << np.uint64(_PLACE["words"])
    return header | (np.bitwise_count(header).astype(np.uint64) & np.uint64(1)) << np.uint64(_PLACE["parity"])


def weight_image(config: CoreConfig, weight: QuantizedWeight) -> Packets:
    """A layer's weight packets in the order in which one token block wants them: super-blocks, chunks, blocks.

    Raises ValueError if this build cannot take the weight.
    """
    check_weight(config, weight)
    scales = weight.channel_scale.numpy()
    rows_of = [
        row_packets(input_channels(weight, start, stop), lanes=config.datapath.lanes)
        for start, stop in chunk_slices(config, weight.shape[1])
    ]
    packets, first = [], 0
    for size in config.tiling(1, weight.shape[1], weight.shape[0]).outputs:
        for rows in rows_of:
            for start in range(first, first + size, config.rows):
                channels = slice(start, min(start + config.rows, first + size))
                packets.append(_pass_packet(config.rows, scales[channels], rows[channels]))
        first += size
    return Packets.join(packets)


def _pass_packet(slices: int, scales: np.ndarray, rows: Sequence[np.ndarray]) -> np.ndarray:
    """One weight packet, uint64 [beats, R]; zeros where anything may be."""
    words = np.array([len(row) for row in rows])
    beats = np.zeros((1 + words.max(), slices), np.uint64)
    beats[0, : len(rows)] = channel_header(scales, words)
    for index, row in enumerate(rows):
        beats[1 : 1 + len(row), index] = row
    return beats


def weight_stream(config: CoreConfig, weight: QuantizedWeight, tokens: int) -> Packets:
    """Everything that ``s_axis_weights`` takes in a job: the image once for every token block."""
    return Packets.chain([weight_image(config, weight)] * len(config.tiling(tokens, *weight.shape[::-1]).tokens))


def activation_image(config: CoreConfig, activations: torch.Tensor) -> Packets:
    """Activation packets of one token block (float16 [tokens, in]) in the order of a super-block: chunks, tokens.

    Unused lanes are zero. Raises ValueError for more tokens than a block has.
    """
    if activations.dtype != torch.float16:
        raise TypeError(f"activations must be a torch.float16 tensor, not {activations.dtype}")
    if not 1 <= len(activations) <= config.block_tokens:
        raise ValueError(f"activations must have 1..{config.block_tokens} tokens, not {len(activations)}")
    halves = activations.contiguous().numpy().view(np.uint16)
    lanes, packets = config.datapath.lanes, []
    for start, stop in chunk_slices(config, halves.shape[1]):
        padded = np.pad(halves[:, start:stop], ((0, 0), (0, -(stop - start) % lanes)))
        packets += list(padded.reshape(len(halves), -1, lanes))
    return Packets.join(packets)


def activation_stream(config: CoreConfig, activations: torch.Tensor, outputs: int) -> Packets:
    """Everything that ``s_axis_activations`` takes in a job: every token block's image once for each super-block."""
    tiling = config.tiling(*activations.shape, outputs)
    images = [activation_image(config, block) for block in activations.split(tiling.tokens)]
    return Packets.chain([image for image in images for _ in tiling.outputs])

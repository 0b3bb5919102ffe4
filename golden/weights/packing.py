"""Row packets: the exact bits that the decoder reads. Layout: spec/packet.py, docs/weights.md section 3."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from golden.weights.quantized import QuantizedWeight
from spec import checks
from spec.datatypes import Datatype, default_special_values
from spec.packet import (
    GROUP_HEADER,
    GROUP_HEADER_BITS,
    ROW_HEADER,
    ROW_HEADER_BITS,
    WORD_BITS,
    group_size_code,
)

__all__ = ["LANES", "PackedPlan", "PackedWeight", "check_lanes", "pack", "row_packets"]

LANES = (2, 4, 8, 16, 32)
"""Lanes that a group's codes may be padded to a multiple of."""
_CHUNK = 1 << 18  # weights per pass; every bit takes a byte or more in the temporaries, which should fit the cache

_ROW = {field.name: field for field in ROW_HEADER}
_GROUP = {field.name: field for field in GROUP_HEADER}
_BITS = np.array([Datatype(field).bits if field in list(Datatype) else 0 for field in range(16)], dtype=np.int64)


def check_lanes(lanes: int) -> int:
    """Return ``lanes`` if it is supported, else raise TypeError or ValueError."""
    checks.choice("lanes", lanes, LANES)
    return lanes


@dataclass(frozen=True)
class PackedPlan:
    """What is known of a packed tensor before it is packed: everything but its contents.

    Parameters
    ----------
    shape : (out, in)
    words : int
        64-bit words of all row packets.
    group_size, lanes : int
    special_values : mapping
        As in :class:`PackedWeight`.
    """

    shape: tuple[int, int]
    words: int
    group_size: int
    lanes: int
    special_values: Mapping[Datatype, tuple[int, ...]]

    @classmethod
    def uniform(cls, shape: tuple[int, int], datatype: Datatype, *, group_size: int = 128, lanes: int = 4):
        """The plan of a tensor all of one datatype, with the special values after reset."""
        group_size_code(group_size)
        padded = padded_lengths(shape[1], group_size, check_lanes(lanes))
        bits = ROW_HEADER_BITS + GROUP_HEADER_BITS * len(padded) + datatype.bits * int(padded.sum())
        words = shape[0] * -(-bits // WORD_BITS)
        return cls(tuple(shape), words, group_size, lanes, default_special_values())

    @property
    def size(self) -> int:
        """Bytes of row packets and FP32 channel scales."""
        return WORD_BITS // 8 * self.words + 4 * self.shape[0]

    def effective_bits(self) -> float:
        """Stored bits per weight: headers, parity, padding, fill and FP32 channel scales included."""
        return 8 * self.size / (self.shape[0] * self.shape[1])


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """Row packets of one weight tensor, back to back.

    Parameters
    ----------
    words : uint64 array [total words]
    offsets : int64 array [out + 1]
        Row r is ``words[offsets[r]:offsets[r + 1]]``.
    channel_scale : float32 array [out]
    shape : (out, in)
    group_size, lanes : int
        A group's codes are padded to a multiple of ``lanes``.
    special_values : mapping
        The special-value registers that the codes were chosen for.
    """

    words: np.ndarray
    offsets: np.ndarray
    channel_scale: np.ndarray
    shape: tuple[int, int]
    group_size: int
    lanes: int
    special_values: Mapping[Datatype, tuple[int, ...]]

    def row(self, index: int) -> np.ndarray:
        """The packet of one output channel, uint64."""
        return self.words[self.offsets[index] : self.offsets[index + 1]]

    def rows(self) -> list[np.ndarray]:
        """All packets, in the order of the output channels."""
        return [self.row(index) for index in range(self.shape[0])]

    def plan(self) -> PackedPlan:
        """Everything but the contents."""
        return PackedPlan(tuple(self.shape), len(self.words), self.group_size, self.lanes, dict(self.special_values))

    def effective_bits(self) -> float:
        """Stored bits per weight: headers, parity, padding, fill and FP32 channel scales included."""
        return self.plan().effective_bits()


def padded_lengths(length: int, group_size: int, lanes: int) -> np.ndarray:
    """Codes in each group of a row, padding included, int64 [groups]."""
    groups = -(-length // group_size)
    lengths = np.full(groups, group_size, dtype=np.int64)
    lengths[-1] = length - (groups - 1) * group_size
    return -(-lengths // lanes) * lanes


def header_bits(fields: Sequence, values: Mapping[str, np.ndarray | int]) -> np.ndarray:
    """Place field values (integers, or arrays of one shape) at their offsets; int64."""
    return sum(np.asarray(values[field.name], dtype=np.int64) << field.offset for field in fields)


def pack(weight: QuantizedWeight, *, lanes: int = 4) -> PackedWeight:
    """Pack a quantized weight into row packets. Raises ValueError for unsupported ``lanes``."""
    packets = row_packets(weight, lanes=lanes)
    offsets = np.zeros(len(packets) + 1, dtype=np.int64)
    np.cumsum([len(packet) for packet in packets], out=offsets[1:])
    return PackedWeight(
        words=np.concatenate(packets),
        offsets=offsets,
        channel_scale=weight.channel_scale.numpy(),
        shape=weight.shape,
        group_size=weight.group_size,
        lanes=lanes,
        special_values=weight.special_values,
    )


def row_packets(weight: QuantizedWeight, *, lanes: int = 4) -> list[np.ndarray]:
    """One uint64 array per output channel, parity bits included. Raises ValueError for unsupported ``lanes``."""
    check_lanes(lanes)
    out, length = weight.shape
    datatype, select, scale8, codes = (
        tensor.to(torch.uint8).numpy() for tensor in (weight.datatype, weight.select, weight.scale8, weight.codes)
    )
    packets = []
    rows = max(1, _CHUNK // length)
    for first in range(0, out, rows):
        part = slice(first, first + rows)
        packets += _pack_rows(
            datatype[part].astype(np.int64), select[part], scale8[part], codes[part], weight.group_size, lanes
        )
    return packets


def _pack_rows(datatype, select, scale8, codes, group_size, lanes) -> list[np.ndarray]:
    rows, length = codes.shape
    groups = datatype.shape[1]
    padded = padded_lengths(length, group_size, lanes)
    ends = ROW_HEADER_BITS + np.cumsum(GROUP_HEADER_BITS + _BITS[datatype] * padded, axis=1)
    starts = ends - GROUP_HEADER_BITS - _BITS[datatype] * padded
    row_words = -(-ends[:, -1] // WORD_BITS)
    bits = np.zeros((rows, int(row_words.max()) * WORD_BITS), dtype=np.uint8)

    row_header = header_bits(ROW_HEADER, {"length": length - 1, "group_size": group_size_code(group_size)})
    bits[:, :ROW_HEADER_BITS] = row_header >> np.arange(ROW_HEADER_BITS) & 1
    short = np.zeros(groups, dtype=np.int64)
    short[-1] = length % group_size != 0
    header = header_bits(
        GROUP_HEADER,
        {
            "datatype": datatype,
            "select": select,
            "scale": scale8,
            "short": np.broadcast_to(short, datatype.shape),
            "parity": 0,
        },
    )
    positions = np.arange(GROUP_HEADER_BITS)
    _put(bits, starts[..., None] + positions, header[..., None] >> positions)

    grouped = np.zeros((rows, groups * group_size), dtype=np.uint8)
    grouped[:, :length] = codes
    grouped = grouped.reshape(rows, groups, group_size)
    for kind in np.unique(datatype):
        width = int(_BITS[kind])
        # The padding codes of a short group fall outside it and are zero: they need not be written.
        for last, count in ((False, group_size), (True, length - (groups - 1) * group_size)):
            chosen = datatype == kind
            chosen[:, -1 if not last else slice(None, -1)] = False
            row, group = chosen.nonzero()
            code_bit = np.arange(count * width)
            values = grouped[row, group][:, code_bit // width] >> (code_bit % width).astype(np.uint8)
            index = starts[row, group][:, None] + GROUP_HEADER_BITS + code_bit
            bits[row[:, None], index] = values & 1

    ones = np.zeros((rows, bits.shape[1] + 1), dtype=np.int32)
    np.cumsum(bits, axis=1, out=ones[:, 1:])
    begins = starts.copy()
    begins[:, 0] = 0  # the first group's parity covers the row header
    odd = np.take_along_axis(ones, ends, 1) - np.take_along_axis(ones, begins, 1)
    _put(bits, starts + _GROUP["parity"].offset, odd)
    words = np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    return [words[row, :count].copy() for row, count in enumerate(row_words)]


def _put(bits: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Store the lowest bit of ``values`` at ``index`` of each row."""
    rows = bits.shape[0]
    np.put_along_axis(bits, index.reshape(rows, -1), (values & 1).astype(np.uint8).reshape(rows, -1), 1)

"""Parsing many row packets of one structure at once; what is not well formed is left to the row by row parser."""

from dataclasses import dataclass

import numpy as np

from golden.weights.packing import padded_lengths
from spec.datatypes import MAX_CODE_BITS, Datatype
from spec.packet import GROUP_HEADER, GROUP_HEADER_BITS, GROUP_SIZES, ROW_HEADER, ROW_HEADER_BITS, WORD_BITS

__all__ = ["RESERVED_CODES", "UniformRows", "header_fields", "parse_uniform"]

_CHUNK = 1 << 20  # weights at once: small enough for the temporaries to stay in cache


def _reserved_codes() -> np.ndarray:
    reserved = np.zeros((16, 1 << MAX_CODE_BITS), dtype=bool)
    for datatype in Datatype:
        for code in range(1 << datatype.bits):
            reserved[datatype, code] = datatype.value_of(code) is None
    return reserved


RESERVED_CODES = _reserved_codes()
"""bool [16 datatype fields, 256 codes]: the codes without a value."""


@dataclass(frozen=True, eq=False)
class UniformRows:
    """Well-formed rows: datatype, select and scale8 uint8 [rows, groups], codes uint8 [rows, length]."""

    length: int
    group_size: int
    datatype: np.ndarray
    select: np.ndarray
    scale8: np.ndarray
    codes: np.ndarray


def header_fields(layout, header) -> dict:
    """Field values of a header, an integer or an array of them."""
    return {field.name: header >> field.offset & ((1 << field.width) - 1) for field in layout}


def parse_uniform(words: np.ndarray, *, lanes: int) -> UniformRows | None:
    """Parse uint64 [rows, words per row] that share length, group size and each group's datatype.

    None if they do not, or if any row is not well formed: the row by row parser finds out what is wrong, if anything.
    """
    length, size_code = header_fields(ROW_HEADER, int(words[0, 0]) & ((1 << ROW_HEADER_BITS) - 1)).values()
    length += 1
    if size_code >= len(GROUP_SIZES):
        return None
    group_size = GROUP_SIZES[size_code]
    padded = padded_lengths(length, group_size, lanes)
    octets = words.astype("<u8", copy=False).view(np.uint8)
    rows = max(1, _CHUNK // length)
    parts = []
    for first in range(0, len(octets), rows):
        part = _parse_chunk(octets[first : first + rows], octets[0, : ROW_HEADER_BITS // 8], length, group_size, padded)
        if part is None:
            return None
        parts.append(part)
    return UniformRows(length, group_size, *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _parse_chunk(octets, row_header, length, group_size, padded):
    """Datatype, select, scale8 and codes of octets [rows, octets per row]; None as for ``parse_uniform``.

    Every group starts at a whole octet, since a full group's codes take a multiple of 32 bits.
    """
    if (octets[:, : ROW_HEADER_BITS // 8] != row_header).any():
        return None
    position, starts, headers = ROW_HEADER_BITS, [], []
    codes = np.empty((len(octets), length), dtype=np.uint8)
    for group, slots in enumerate(padded):
        starts.append(position // 8)
        position += GROUP_HEADER_BITS
        if position > 8 * octets.shape[1]:
            return None
        low, high = octets[:, starts[-1]], octets[:, starts[-1] + 1]
        header = header_fields(GROUP_HEADER, low.astype(np.int64) | high.astype(np.int64) << 8)
        field = int(header["datatype"][0])
        count = min(group_size, length - group * group_size)
        if field not in list(Datatype) or (header["datatype"] != field).any():
            return None
        if (header["short"] != (count < group_size)).any():
            return None
        width = Datatype(field).bits
        end = position + int(slots) * width
        if end > 8 * octets.shape[1]:
            return None
        part = codes[:, group * group_size : group * group_size + count]
        part[:] = _codes(octets, position + width * np.arange(count), width)
        if RESERVED_CODES[field].any() and RESERVED_CODES[field][part].any():
            return None
        headers.append([header[name].astype(np.uint8) for name in ("datatype", "select", "scale")])
        position = end
    if -(-position // WORD_BITS) * 8 != octets.shape[1] or not _even(octets, starts, position):
        return None
    return *(np.stack(columns, axis=1) for columns in zip(*headers, strict=True)), codes


def _codes(octets: np.ndarray, positions: np.ndarray, width: int) -> np.ndarray:
    """Codes of ``width`` bits that start at bits ``positions`` of every row, uint8 [rows, positions]."""
    first = positions // 8
    pairs = octets[:, first].astype(np.uint16)
    # A code that ends with its octet needs no second one, which might lie past the end of the row.
    second = np.minimum(first + 1, octets.shape[1] - 1)
    pairs |= octets[:, second].astype(np.uint16) << np.uint16(8)
    return (pairs >> (positions % 8).astype(np.uint16) & np.uint16((1 << width) - 1)).astype(np.uint8)


def _even(octets: np.ndarray, starts: list[int], end: int) -> bool:
    """Whether every group has even parity, the row header counted with the first; what lies past ``end`` is fill."""
    covered = octets[:, : -(-end // 8)].copy()
    if end % 8:
        covered[:, -1] &= (1 << end % 8) - 1
    sums = np.bitwise_xor.reduceat(covered, [0, *starts[1:]], axis=1)
    return not (np.bitwise_count(sums) & 1).any()

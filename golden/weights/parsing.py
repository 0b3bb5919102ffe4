"""Parsing one row packet, whatever its bits: its groups' fields, and the error flags of what is not well formed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from golden.weights.packing import check_lanes, padded_lengths
from golden.weights.uniform import RESERVED_CODES, header_fields
from spec.datatypes import Datatype
from spec.errors import WeightError
from spec.packet import GROUP_HEADER, GROUP_HEADER_BITS, GROUP_SIZES, ROW_HEADER, ROW_HEADER_BITS, WORD_BITS

__all__ = ["PacketError", "ParsedRow", "parse_row"]


class PacketError(ValueError):
    """A packet that is not well formed; ``flags`` are the hardware's error flags for it."""

    def __init__(self, message: str, flags: WeightError):
        super().__init__(message)
        self.flags = flags


@dataclass(frozen=True, eq=False)
class ParsedRow:
    """One row packet: per-group arrays [groups], codes [length] (a reserved code is kept), and what was wrong.

    ``problems`` lists (flag, message) in packet order. After a problem of framing (reserved header, packet too short)
    the rest of the packet is not looked at, and the arrays end with the last whole group.
    """

    length: int
    group_size: int
    datatype: np.ndarray
    select: np.ndarray
    scale8: np.ndarray
    codes: np.ndarray
    problems: tuple[tuple[WeightError, str], ...]

    @property
    def flags(self) -> WeightError:
        """Union of the problems' error flags; 0 for a well-formed packet."""
        flags = WeightError(0)
        for flag, _ in self.problems:
            flags |= flag
        return flags

    def check(self, name: str = "packet") -> "ParsedRow":
        """Return the row, or raise PacketError with the first problem."""
        if self.problems:
            raise PacketError(f"{name}: {self.problems[0][1]}", self.flags)
        return self


def parse_row(words: np.ndarray, *, lanes: int = 4) -> ParsedRow:
    """Parse one packet (uint64 words) of a column with ``lanes`` lanes. Never raises for what the words hold.

    Zero codes that pad a group, and the bits that fill the last word, are not looked at except by the parity.
    """
    check_lanes(lanes)
    words = np.asarray(words)
    if words.dtype != np.uint64 or words.ndim != 1 or len(words) == 0:
        raise TypeError(f"words must be a non-empty uint64 vector, not {words.dtype} {list(words.shape)}")
    return _Parser(words).row(lanes)


class _Parser:
    """The bits of one packet, how far they are read, and what was found in them."""

    def __init__(self, words: np.ndarray):
        self._size = len(words)
        self._bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
        self._position = 0
        self._problems: list[tuple[WeightError, str]] = []
        self._headers: list[Mapping[str, int]] = []
        self._codes = [np.zeros(0, dtype=np.uint8)]

    def row(self, lanes: int) -> ParsedRow:
        row = header_fields(ROW_HEADER, self._number(ROW_HEADER_BITS))
        length, size_code = row["length"] + 1, row["group_size"]
        group_size = 0
        if size_code >= len(GROUP_SIZES):
            self._problem(WeightError.RESERVED_HEADER, f"group size code {size_code} is reserved")
        else:
            group_size = GROUP_SIZES[size_code]
            padded = padded_lengths(length, group_size, lanes)
            if all(self._group(group, group_size, length, int(slots)) for group, slots in enumerate(padded)):
                needed = -(-self._position // WORD_BITS)
                if self._size > needed:
                    self._problem(
                        WeightError.WEIGHT_LENGTH, f"packet has {self._size} words, its {length} weights take {needed}"
                    )

        def column(name: str) -> np.ndarray:
            return np.array([header[name] for header in self._headers], dtype=np.uint8)

        return ParsedRow(
            length=length,
            group_size=group_size,
            datatype=column("datatype"),
            select=column("select"),
            scale8=column("scale"),
            codes=np.concatenate(self._codes),
            problems=tuple(self._problems),
        )

    def _group(self, group: int, group_size: int, length: int, slots: int) -> bool:
        """Read a group; False where it is not known how far it goes, so that nothing after it can be read."""
        first = self._position if group else 0  # the row header's parity is the first group's
        if self._position + GROUP_HEADER_BITS > len(self._bits):
            self._problem(WeightError.WEIGHT_LENGTH, f"packet of {self._size} words ends before group {group}")
            return False
        header = header_fields(GROUP_HEADER, self._number(GROUP_HEADER_BITS))
        if header["datatype"] not in list(Datatype):
            self._problem(WeightError.RESERVED_HEADER, f"datatype {header['datatype']} of group {group} is reserved")
            return False
        datatype = Datatype(header["datatype"])
        width, begin = datatype.bits, self._position
        self._position += slots * width
        if self._position > len(self._bits):
            self._problem(WeightError.WEIGHT_LENGTH, f"packet of {self._size} words ends within group {group}")
            return False

        count = min(group_size, length - group * group_size)
        if header["short"] != (count < group_size):
            self._problem(
                WeightError.WEIGHT_LENGTH, f"short flag of group {group} is {header['short']}, with {count} weights"
            )
        if int(self._bits[first : self._position].sum()) & 1:
            self._problem(WeightError.PARITY, f"parity of group {group} ({datatype.name}) is odd")
        codes = np.packbits(self._bits[begin : begin + count * width].reshape(count, width), axis=1, bitorder="little")[
            :, 0
        ]
        reserved = RESERVED_CODES[datatype, codes]
        if reserved.any():
            channel = group * group_size + int(reserved.argmax())
            self._problem(
                WeightError.RESERVED_CODE,
                f"code {int(codes[reserved][0])} of input channel {channel} has no value in {datatype.name}",
            )
        self._headers.append(header)
        self._codes.append(codes)
        return True

    def _number(self, count: int) -> int:
        """The next ``count`` bits."""
        bits = self._bits[self._position : self._position + count]
        self._position += count
        return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")

    def _problem(self, flag: WeightError, message: str) -> None:
        self._problems.append((flag, message))

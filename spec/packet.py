"""Bit layout of the row packet: one output channel's quantized weight groups, as the decoder reads them.

A packet is a row header followed by the row's groups, each a group header and its codes, with no padding in between;
zero bits then fill it to a multiple of 64. Bits are numbered from the least significant bit of the first byte
(little endian, LSB first). Padding once a row and not once a group matters: at G = 128 a lone 16-bit header would
otherwise cost a 64-bit word, 4.5 bits per FP4 weight where this layout takes 4.13.

Codes follow in the order of the input channels. A group is padded with zero codes to a multiple of the lanes; lanes
past the row's length take no part in the sum, whatever their code.
"""

from dataclasses import dataclass

from spec import checks

__all__ = [
    "GROUP_HEADER",
    "GROUP_HEADER_BITS",
    "GROUP_SIZES",
    "MAX_INPUTS",
    "MAX_ROW_LENGTH",
    "ROW_HEADER",
    "ROW_HEADER_BITS",
    "WORD_BITS",
    "Field",
    "group_size_code",
]

WORD_BITS = 64
MAX_ROW_LENGTH = 1 << 14
MAX_INPUTS = 1 << 15
"""Input channels of a weight; a row longer than a packet is packed in parts, whose results are added."""
GROUP_SIZES = (32, 64, 128)
"""Supported group sizes; the index is the code in the row header."""


@dataclass(frozen=True)
class Field:
    """A bit field: ``width`` bits, the lowest at ``offset`` from the first bit; ``text`` says what it holds."""

    name: str
    offset: int
    width: int
    text: str


ROW_HEADER = (
    Field("length", 0, 14, "number of weights of the row, minus 1"),
    Field("group_size", 14, 2, "code of the group size: 0 = 32, 1 = 64, 2 = 128, 3 reserved"),
)
ROW_HEADER_BITS = 16

GROUP_HEADER = (
    Field("datatype", 0, 4, "Datatype; 0 and 12..15 reserved"),
    Field("select", 4, 2, "which of the datatype's four special values the negative-zero code stands for"),
    Field("scale", 6, 8, "scale8, the group's unsigned scaling factor"),
    Field("short", 14, 1, "1 in a group with fewer weights than the group size (only ever a row's last)"),
    Field("parity", 15, 1, "makes the ones in header and codes even; a row's first group includes the row header"),
)
GROUP_HEADER_BITS = 16


def group_size_code(group_size: int) -> int:
    """Row header code of a group size. Raises ValueError for a size that is not supported."""
    checks.choice("group_size", group_size, GROUP_SIZES)
    return GROUP_SIZES.index(group_size)

"""Operations, commands and status codes of the KV address generator: docs/rlkv.md."""

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["CommandKind", "KvPart", "RlkvCommand", "RlkvError", "RlkvOp", "RlkvOperation"]


class KvPart(IntEnum):
    KEY = 0
    VALUE = 1


class RlkvOp(IntEnum):
    """Code of an operation; 0 is reserved."""

    POLICY = 1
    """One layer's row of the policy table; rows come in order, ``last`` with the final one."""
    OPEN = 2
    """Opens request ``request``: areas of both pools are its own until CLOSE."""
    CLOSE = 3
    """Gives its areas and blocks back."""
    EXTEND = 4
    """The sequence grows by ``count`` tokens."""
    WRITE = 5
    """Where the tokens of the last EXTEND go that stay exact."""
    PACK = 6
    """A new block of ``count`` tokens, ``beats`` long, at the end of one head's list."""
    READ = 7
    """What attention reads of heads ``head``..``last_head``, keys or values."""


class CommandKind(IntEnum):
    DONE = 0
    """No transfer: ends the operation and carries its status."""
    SINK = 1
    """First tokens, exact, in slots."""
    WINDOW = 2
    """Newest tokens of a window head, exact, in slots."""
    BLOCK = 3
    """A packed block."""
    RESIDUAL = 4
    """Newest tokens of a full head, exact, in slots."""


class RlkvError(IntEnum):
    """Status of an operation, in the order in which its checks are made; bit ``code`` of the sticky register."""

    NONE = 0
    """Done."""
    OPERATION = 1
    """Reserved operation code."""
    REQUEST = 2
    """No such request, OPEN of an open one, or anything else with one that is not open."""
    POLICY = 3
    """Row of a table of the wrong shape, row while a request is open, or OPEN without a whole table."""
    LAYER = 4
    """Layer beyond the model."""
    HEAD = 5
    """Head beyond the model, ``last_head`` before ``head``, or PACK of several heads."""
    ADDRESS = 6
    """Pools that do not fit in the address space, or more blocks than this build has."""
    AREAS = 7
    """OPEN: the pool of full or of window areas is too small for another request under this policy."""
    LENGTH = 8
    """EXTEND by 0 tokens, or an empty sequence."""
    CONTEXT = 9
    """EXTEND beyond the longest sequence."""
    WINDOW_HEAD = 10
    """PACK for a window head."""
    ROWS = 11
    """PACK: 0 or too many beats or tokens, or tokens that still belong to the residual."""
    BLOCKS = 12
    """PACK: no block is free."""
    UNPACKED = 13
    """READ: a head's blocks do not reach its residual."""


@dataclass(frozen=True, kw_only=True)
class RlkvOperation:
    """One operation; fields that its code does not use are ignored."""

    op: int
    """RlkvOp"""
    request: int = 0
    """the sequence"""
    layer: int = 0
    head: int = 0
    """first KV head"""
    last_head: int = 0
    """last KV head"""
    part: int = KvPart.KEY
    """KvPart"""
    per_query: int = 0
    """READ: each head's list once for every query head of its group"""
    count: int = 0
    """EXTEND, PACK: tokens"""
    beats: int = 0
    """PACK: length of the block in beats"""
    mask: int = 0
    """POLICY: bit h is set if head h of the layer is a full head"""
    last: int = 0
    """POLICY: the table's last row"""


@dataclass(frozen=True, kw_only=True)
class RlkvCommand:
    """One contiguous transfer, or the DONE that ends an operation, in which only ``write``, ``part``, ``request``,
    ``layer`` and ``status`` count."""

    kind: int
    """CommandKind"""
    write: int = 0
    """1: a write, 0: a read"""
    part: int = 0
    """KvPart"""
    request: int = 0
    """the sequence"""
    layer: int = 0
    head: int = 0
    """KV head"""
    query: int = 0
    """query head that it serves; the first of the group unless per_query"""
    address: int = 0
    """in bytes"""
    beats: int = 0
    """length in beats"""
    token: int = 0
    """position of the first token; of a block: sinks and blocks before it counted"""
    tokens: int = 0
    """number of tokens"""
    head_last: int = 0
    """the last of its head's list"""
    last: int = 0
    """the last of the operation: DONE"""
    status: int = 0
    """RlkvError"""

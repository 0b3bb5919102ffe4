"""Attention over the compressed cache: parameters, error codes, and how exact tokens lie in their slots.

Equations, streams and bounds: docs/attention.md.
"""

from dataclasses import dataclass
from enum import IntEnum

from spec import checks
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvTransform
from spec.packet import Field
from spec.rlkv import exact_token_bytes

__all__ = [
    "BUS_BYTES",
    "GROUP_ROWS",
    "LANES",
    "PACKET_USER",
    "PLANES",
    "PLANE_OFFSET",
    "QUERY_HEADER",
    "QUERY_WORD_BITS",
    "SCALE_BYTES",
    "SCORE_DATA",
    "SCORE_USER",
    "TRANSFORMS",
    "WEIGHT_DATA",
    "AttentionConfig",
    "AttentionError",
]

BUS_BYTES = 16
"""Bytes of a beat of packets: a row of 64 two-bit codes, or a digit plane of 64 INT8 codes."""
SCALE_BYTES = 4
"""At the end of an exact token's slot: its FP16 scale, in key slots its value's, else padding."""
LANES = 64
"""Channels per step: one row of 64 channels per cycle, two steps per row at D = 128."""
PLANES = 4
"""Two-bit digits of an exact token's INT8 code, highest first in the slot."""
PLANE_OFFSET = 128
"""The digits are those of ``code + 128``."""
GROUP_ROWS = 128
"""Most rows in a group of weights, and in a block."""
TRANSFORMS = frozenset({KvTransform.WHT, KvTransform.RFFT})
"""Transforms that a query can have."""
QUERY_WORD_BITS = 64
"""A beat of a query packet: the header, two words of mask, then four FP16 elements a beat."""
QUERY_HEADER = (
    Field("channels", 0, 4, "head dim / 8 - 1"),
    Field("segment0", 4, 4, "channels of segment 0 / 8 - 1"),
    Field("transform0", 8, 2, "KvTransform of segment 0"),
    Field("transform1", 10, 2, "KvTransform of segment 1; 0 when there is none"),
)
"""Header of a query packet: the codes of the key blocks' headers. The other bits are 0."""
PACKET_USER = (
    Field("exact", 0, 1, "a run of exact tokens, or the probability of one"),
    Field("final", 1, 1, "the list's last packet, or of its last group of probabilities"),
)
"""TUSER of packets and probabilities at the AXI blocks; a packet's is that of its first beat."""
SCORE_USER = (Field("marked", 0, 1, "not a result: an error"), Field("final", 1, 1, "of the list's last packet"))
"""TUSER of scores at the AXI block."""
SCORE_DATA = (Field("value", 0, 32, "FP32 score"), Field("value_scale", 32, 16, "FP16 scale of an exact token's value"))
"""TDATA of scores at the AXI block, 64 bits; the others are 0."""
WEIGHT_DATA = (
    Field("value", 0, 16, "FP16 probability"),
    Field("scale", 16, 16, "FP16 scale of an exact token's value"),
)
"""TDATA of probabilities at the AXI block."""


class AttentionError(IntEnum):
    """Codes beyond those of :class:`spec.kv_config.KvError`."""

    LAYOUT = 11
    """A key block's mask, sizes or transforms are not those that came with the query."""
    WEIGHT = 12
    """A probability that is negative or not finite, or groups of weights and rows that disagree."""
    QUERY = 13
    """A query that is not finite or not as long as its layout says, or a layout that this build cannot do."""


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Parameters of ``ScoreCore`` and ``ValueCore``.

    Parameters
    ----------
    channels : int
        Largest head dim, 64 or 128.
    query_bits : int
        Wq, 12..16: integers of the aligned query.
    fold_bits : int
        W, 8..16, at most Wq: integers of the query with a block's scales in it.
    weight_bits : int
        Wp, 6..11: integers of the aligned probabilities, unsigned.
    minima : bool
        ``ScoreCore`` takes K2 blocks, whose minima need an FP32 adder.
    transforms : frozenset of KvTransform
        Transforms of the keys that ``ScoreCore`` takes, besides NONE: WHT, and RFFT, which needs a multiplier.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    channels: int = 64
    query_bits: int = 12
    fold_bits: int = 12
    weight_bits: int = 11
    minima: bool = False
    transforms: frozenset = frozenset({KvTransform.WHT})

    def __post_init__(self):
        checks.choices(self, channels=(64, 128), minima=(False, True))
        checks.whole("query_bits", self.query_bits, 12, 16)
        checks.whole("fold_bits", self.fold_bits, 8, self.query_bits)
        checks.whole("weight_bits", self.weight_bits, 6, 11)
        checks.members("transforms", self.transforms, KvTransform)
        object.__setattr__(self, "transforms", frozenset(self.transforms) & TRANSFORMS)

    @property
    def steps(self) -> int:
        """Steps of a row, of ``LANES`` channels each."""
        return self.channels // LANES

    @property
    def parser(self) -> KvEngineConfig:
        """What headers and metadata may be: 128-bit beats, all scales."""
        return KvEngineConfig(lanes=32, max_channels=self.channels, transforms=self.transforms, scale_bits=11)

    @property
    def transformed_bits(self) -> int:
        """Bits of a signed transformed query element."""
        return self.query_bits + self.channels.bit_length() - 1

    @property
    def rotation_bits(self) -> int:
        """Fraction bits of sines and cosines of ``rfft``."""
        return self.query_bits + 2

    @property
    def score_bits(self) -> int:
        """Bits of a signed score: sum of |2k + 1| |z| over the channels, and K2's constant."""
        return 1 + (255 * self.channels * ((1 << self.fold_bits - 1) - 1)).bit_length()

    @property
    def constant_bits(self) -> int:
        """Bits of a signed sum of folded integers over the channels, times 3 in K2."""
        return 1 + (3 * self.channels * ((1 << self.fold_bits - 1) - 1)).bit_length()

    @property
    def sum_bits(self) -> int:
        """Bits of an unsigned channel sum over a group."""
        return (255 * GROUP_ROWS * ((1 << self.weight_bits) - 1)).bit_length()

    @property
    def total_bits(self) -> int:
        """Bits of the sum of a group's aligned probabilities."""
        return (GROUP_ROWS * ((1 << self.weight_bits) - 1)).bit_length()

    def token_bytes(self, head_dim: int) -> int:
        """Bytes of an exact token's slot."""
        return exact_token_bytes(head_dim, "int8", BUS_BYTES)

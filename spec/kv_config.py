"""What a KV dequant engine is built for, what it reports, and the fields beside its output data."""

from dataclasses import dataclass
from enum import IntEnum

from spec import checks
from spec.kv_block import MAX_HEAD_DIM
from spec.kv_formats import KvFormat, KvTransform
from spec.packet import Field

__all__ = ["ENGINE_LANES", "OUTPUT_USER", "OUTPUT_USER_BITS", "KvEngineConfig", "KvError"]

ENGINE_LANES = (4, 8, 16, 32)
_ROWS = frozenset(KvFormat) - {KvFormat.CENTRE}
"""Formats with rows."""

OUTPUT_USER = (
    Field("error", 0, 1, "marked: not a result"),
    Field("token_last", 1, 1, "last beat of a token"),
    Field("channel", 4, 8, "channel of lane 0"),
    Field("token", 12, 20, "token index"),
)
"""TUSER of the output. Bits 2 and 3 are 0."""
OUTPUT_USER_BITS = 32


class KvError(IntEnum):
    """Code of the first error since the last clear; 0: none."""

    NONE = 0
    """No error since the last clear."""
    HEADER = 1
    """Header check or version."""
    FORMAT = 2
    """Reserved format, transform or metadata code, a forbidden combination, or one that this build lacks."""
    CHANNELS = 3
    """Counts that do not fit: beyond this build, segment 0 too large, a transform's size or start, the mask's count."""
    SHORT = 4
    """TLAST before the packet's last beat."""
    LONG = 5
    """No TLAST on the packet's last beat."""
    SCALE = 6
    """Scale negative or not finite, minimum not finite, integer scale above 2047."""
    OVERFLOW = 7
    """A value beyond FP16: it became +-65504."""
    TRIT = 8
    """Byte 243..255 among the trits."""
    PADDING = 9
    """Nonzero trit in the last byte's padding."""
    TOKEN = 10
    """Token index of 2^20 or more, reserved bitmap length, or a bitmap that does not hold as many tokens as rows."""


@dataclass(frozen=True, kw_only=True)
class KvEngineConfig:
    """A KV dequant engine's generation parameters.

    Parameters
    ----------
    lanes : int
        FP16 elements per output beat: 4, 8, 16 or 32. The input has 4 bits per lane.
    max_channels : int
        Largest head dim: 64 or 128 (sizes the memories).
    transforms : frozenset of KvTransform
        Inverse transforms built in, besides NONE. RFFT delivers 4 elements per cycle whatever ``lanes`` is.
    formats : frozenset of KvFormat
        What is taken besides CENTRE; a block of another format is an error. An engine for few formats is smaller: K1
        and K2S need neither ternary digits nor minima.
    scale_bits : int
        Width of a transformed segment's integer scales: 8 (metadata Q8 and F6), or 11 (FP16-sized ones too).
    interleave : bool
        Put the channels of two-segment blocks back in channel order; without it segment 0's come first.
    centre : bool
        Take CENTRE blocks, and add the key centre back to the keys where the input ``add_centre`` asks for it. Needs
        ``interleave``: the adders stand behind the channel order.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    lanes: int = 16
    max_channels: int = MAX_HEAD_DIM
    transforms: frozenset = frozenset({KvTransform.WHT})
    formats: frozenset = _ROWS
    scale_bits: int = 8
    interleave: bool = False
    centre: bool = False

    def __post_init__(self):
        checks.choices(self, lanes=ENGINE_LANES, max_channels=(64, 128), scale_bits=(8, 11))
        checks.choices(self, interleave=(False, True), centre=(False, True))
        if self.centre and not self.interleave:
            raise ValueError("interleave must be True with centre, not False: the centre is added in channel order")
        checks.members("transforms", self.transforms, KvTransform)
        object.__setattr__(self, "transforms", frozenset(self.transforms) - {KvTransform.NONE})
        checks.members("formats", self.formats, _ROWS, least=1)
        object.__setattr__(self, "formats", frozenset(self.formats))

    @property
    def ternary(self) -> bool:
        """Whether ternary digits come."""
        return KvFormat.V158 in self.formats

    @property
    def minima(self) -> bool:
        """Whether channels have minima."""
        return any(kind.has_minimum for kind in self.formats)

    @property
    def value_units(self) -> int:
        """Units that form the channels' values: one, with 32 lanes two."""
        return max(1, self.lanes // 16)

    @property
    def records(self) -> int:
        """Channels' records that wait for a value unit: half of a block's; the rest waits at the input."""
        return self.max_channels // 2 // self.value_units

    @property
    def row_beats(self) -> int:
        """Input beats of rows that are buffered: what leaves while the values of the next block are formed."""
        return max(2 * self.max_channels // self.value_units, 256 if self.lanes <= 8 else 128)

    @property
    def input_bits(self) -> int:
        """Width of the input's TDATA."""
        return 4 * self.lanes

    @property
    def output_bits(self) -> int:
        """Width of the output's TDATA."""
        return 16 * self.lanes

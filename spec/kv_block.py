"""Bit layout of a KV block: up to 128 tokens of one (layer, KV head), keys or values.

A block is one AXI4-Stream packet: a 64-bit header, then (each present only when needed, in this order) the channel
mask, the token bitmap and the metadata, then the token-major rows; zero bytes fill it to a multiple of 16. Little
endian, LSB first.

Sinks, the newest tokens and RLKV's window heads are not in blocks: they are FP16 or INT8 tensors of their own.
"""

from dataclasses import dataclass, replace

from spec import checks
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from spec.packet import Field

__all__ = [
    "ALIGN_BYTES",
    "EXPONENT_BIAS",
    "HEADER",
    "HEADER_BYTES",
    "HEADER_CHECK",
    "MAX_HEAD_DIM",
    "MAX_ROWS",
    "MAX_SPAN",
    "MAX_TOKENS",
    "TRANSFORM_SIZES",
    "TRITS_PER_BYTE",
    "VERSION",
    "WORD_BYTES",
    "KvHeader",
    "header_check",
]

VERSION = 1
HEADER_BYTES = 8
HEADER_CHECK = 9
WORD_BYTES = 8
"""Mask, bitmap and metadata each fill whole words."""
ALIGN_BYTES = 16
"""Packets fill whole beats at every number of lanes (4 bits of input per lane, at most 32 lanes)."""
MAX_HEAD_DIM = 128
MAX_ROWS = 128
MAX_SPAN = 512
MAX_TOKENS = 1 << 20
EXPONENT_BIAS = 24
"""Exponent codes 0..31 stand for -24..7: 2^-24 is FP16's smallest number, so every integer scale is exact in FP16."""
TRITS_PER_BYTE = 5
TRANSFORM_SIZES = (16, 32, 64, 128)

HEADER = (
    Field("version", 0, 2, "1"),
    Field("format", 2, 3, "KvFormat of segment 0"),
    Field("transform0", 5, 2, "KvTransform of segment 0"),
    Field("transform1", 7, 2, "KvTransform of segment 1 (K1); 0 when there is none"),
    Field("metadata", 9, 2, "KvMetadata of both segments"),
    Field("channels", 11, 4, "head dim D / 8 - 1"),
    Field("segment0", 15, 4, "channels of segment 0 / 8 - 1; the other channels, if any, are segment 1"),
    Field("rows", 19, 7, "tokens stored - 1"),
    Field("span", 26, 4, "length of the token bitmap / 64; 0: no bitmap, the tokens are consecutive"),
    Field("token", 30, 20, "index of the first token (of the bitmap's first bit)"),
    Field("exponent0", 50, 5, "exponent of segment 0's integer scales + 24"),
    Field("exponent1", 55, 5, "the same for segment 1"),
    Field("check", 60, 4, "makes the XOR of the header's 16 nibbles 9"),
)


def header_check(word: int) -> int:
    """XOR of the 16 nibbles of a 64-bit header; :data:`HEADER_CHECK` in a good one."""
    check = 0
    for shift in range(0, 64, 4):
        check ^= word >> shift & 15
    return check


@dataclass(frozen=True, kw_only=True)
class KvHeader:
    """A block's header in natural units, with the sizes that follow from it; refuses what the format does not allow.

    Parameters
    ----------
    format : KvFormat
    channels : int
        Head dim D: a multiple of 8, 8..128.
    rows : int
        Tokens stored, 1..128.
    segment0 : int or None
        Channels of segment 0, a multiple of 8; None: all. Fewer than ``channels`` only in K2 and K2S: the rest
        is K1.
    transform0, transform1 : KvTransform
        Of segment 0 and of the K1 segment 1. A transformed segment has 16, 32, 64 or 128 channels and starts at
        a multiple of min(its size, 32).
    metadata : KvMetadata
        F6 goes with K1, K2S and V158 only.
    token : int
        Index of the first token.
    span : int
        0, or the bitmap's length in tokens: a multiple of 64 up to 512. Bit i set: token ``token + i`` is stored here.
    exponent0, exponent1 : int
        -24..7.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    format: KvFormat
    channels: int
    rows: int
    segment0: int | None = None
    transform0: KvTransform = KvTransform.NONE
    transform1: KvTransform = KvTransform.NONE
    metadata: KvMetadata = KvMetadata.FP16
    token: int = 0
    span: int = 0
    exponent0: int = -EXPONENT_BIAS
    exponent1: int = -EXPONENT_BIAS

    def __post_init__(self):
        checks.choices(self, format=KvFormat, metadata=KvMetadata, transform0=KvTransform, transform1=KvTransform)
        checks.whole("channels", self.channels, 8, MAX_HEAD_DIM, 8)
        if self.segment0 is None:
            object.__setattr__(self, "segment0", self.channels)
        checks.whole("segment0", self.segment0, 8, self.channels, 8)
        checks.whole("rows", self.rows, 1, MAX_ROWS)
        checks.whole("span", self.span, 0, MAX_SPAN, 64)
        checks.whole("token", self.token, 0, MAX_TOKENS - (self.span or self.rows))
        checks.whole("exponent0", self.exponent0, -EXPONENT_BIAS, 31 - EXPONENT_BIAS)
        checks.whole("exponent1", self.exponent1, -EXPONENT_BIAS, 31 - EXPONENT_BIAS)
        if self.span and self.rows > self.span:
            raise ValueError(f"rows must be at most span ({self.span}), not {self.rows}")
        if self.segment1 and self.format not in (KvFormat.K2, KvFormat.K2S):
            raise ValueError(
                f"segment0 must be all {self.channels} channels in {self.format.name}, not {self.segment0}"
            )
        if self.metadata is KvMetadata.F6 and not self.format.transformable:
            raise ValueError(f"metadata must be FP16 or Q8 for {self.format.name}, not F6")
        if not self.segment1 and self.transform1 is not KvTransform.NONE:
            raise ValueError(f"transform1 must be NONE without a segment 1, not {self.transform1.name}")
        if self.transform0 is not KvTransform.NONE and not self.format.transformable:
            raise ValueError(f"transform0 must be NONE for {self.format.name}, not {self.transform0.name}")
        for index, (start, size) in enumerate(((0, self.segment0), (self.segment0, self.segment1))):
            transform = (self.transform0, self.transform1)[index]
            if transform is not KvTransform.NONE and (size not in TRANSFORM_SIZES or start % min(size, 32)):
                raise ValueError(
                    f"transform{index} must be NONE for {size} channels from channel {start}, not {transform.name}: "
                    f"sizes {TRANSFORM_SIZES}, starting at a multiple of min(size, 32)"
                )
        if self.format is KvFormat.CENTRE and (self.rows != 1 or self.span or self.metadata is not KvMetadata.FP16):
            raise ValueError("rows, span and metadata must be 1, 0 and FP16 for CENTRE")

    @property
    def segment1(self) -> int:
        """Channels of segment 1."""
        return self.channels - self.segment0

    @property
    def mask_words(self) -> int:
        """64-bit words of the channel mask (bit d set: channel d is in segment 0); 0 with a single segment."""
        return -(-self.channels // 64) if self.segment1 else 0

    @property
    def bitmap_words(self) -> int:
        return self.span // 64

    @property
    def metadata_bits(self) -> int:
        """Bits of the metadata before padding: a record per channel, segment 0 first."""
        record0 = self.metadata.bits + 16 * self.format.has_minimum
        return record0 * self.segment0 + self.metadata.bits * self.segment1

    @property
    def metadata_words(self) -> int:
        return -(-self.metadata_bits // 64)

    @property
    def rows_offset(self) -> int:
        """Byte at which the rows start."""
        return HEADER_BYTES + WORD_BYTES * (self.mask_words + self.bitmap_words + self.metadata_words)

    @property
    def row_bits(self) -> int:
        """Bits of one token's row, a multiple of 8; 0 for V158, whose rows do not start at a byte, and CENTRE."""
        return self.format.bits * self.segment0 + (self.segment1 if self.segment1 else 0)

    @property
    def rows_bytes(self) -> int:
        """Bytes of all rows, without the padding to :data:`ALIGN_BYTES`."""
        if self.format is KvFormat.V158:
            return -(-self.rows * self.channels // TRITS_PER_BYTE)
        return self.rows * self.row_bits // 8

    @property
    def packet_bytes(self) -> int:
        return -(-(self.rows_offset + self.rows_bytes) // ALIGN_BYTES) * ALIGN_BYTES

    @property
    def effective_bits(self) -> float:
        """Bits per element, everything in the block included."""
        return self.packet_bytes * 8 / (self.rows * self.channels)

    def word(self) -> int:
        """The 64-bit header."""
        values = {
            "version": VERSION,
            "format": int(self.format),
            "transform0": int(self.transform0),
            "transform1": int(self.transform1),
            "metadata": int(self.metadata),
            "channels": self.channels // 8 - 1,
            "segment0": self.segment0 // 8 - 1,
            "rows": self.rows - 1,
            "span": self.span // 64,
            "token": self.token,
            "exponent0": self.exponent0 + EXPONENT_BIAS,
            "exponent1": self.exponent1 + EXPONENT_BIAS,
            "check": 0,
        }
        word = sum(values[field.name] << field.offset for field in HEADER)
        return word | (header_check(word) ^ HEADER_CHECK) << HEADER[-1].offset

    @classmethod
    def from_word(cls, word: int) -> "KvHeader":
        """Parse a 64-bit header. Raises ValueError naming the field at fault."""
        if header_check(word) != HEADER_CHECK:
            raise ValueError(f"header check must be {HEADER_CHECK}, not {header_check(word)} (header {word:#018x})")
        raw = {field.name: word >> field.offset & (1 << field.width) - 1 for field in HEADER}
        if raw["version"] != VERSION:
            raise ValueError(f"header version must be {VERSION}, not {raw['version']}")
        codes = {"format": KvFormat, "transform0": KvTransform, "transform1": KvTransform, "metadata": KvMetadata}
        for name, kind in codes.items():
            if raw[name] not in list(kind):
                raise ValueError(f"header {name} must be one of {[int(code) for code in kind]}, not {raw[name]}")
        return cls(
            **{name: kind(raw[name]) for name, kind in codes.items()},
            channels=8 * raw["channels"] + 8,
            segment0=8 * raw["segment0"] + 8,
            rows=raw["rows"] + 1,
            span=64 * raw["span"],
            token=raw["token"],
            exponent0=raw["exponent0"] - EXPONENT_BIAS,
            exponent1=raw["exponent1"] - EXPONENT_BIAS,
        )

    def at(self, token: int) -> "KvHeader":
        """The same layout for another first token."""
        return replace(self, token=token)

"""Number formats, transforms and metadata of KV blocks: names and codes. Values and arithmetic: docs/kv-engine.md."""

from enum import IntEnum

from spec.datatypes import Datatype

__all__ = ["KvFormat", "KvMetadata", "KvTransform"]


class KvFormat(IntEnum):
    """Format of segment 0; segment 1 is always K1. 0 and 7 are reserved.

    Attributes
    ----------
    datatype : Datatype or None
        Of its codes; None: it has no rows.
    has_minimum : bool
        Whether a channel's metadata holds an FP16 minimum after its scale.
    transformable : bool
        Whether its channels may be transformed.
    """

    # code, datatype, has_minimum, transformable
    K1 = 1, Datatype.BINARY, False, True
    """Sign bit: -s, +s."""
    K2S = 2, Datatype.S2, False, True
    """Symmetric 2-bit: (2c - 3) h, that is -3h, -h, h, 3h."""
    K2 = 3, Datatype.U2, True, False
    """2-bit with minimum: min + c s."""
    V158 = 4, Datatype.TERNARY, False, True
    """Ternary, five to a byte: -s, 0, s. (Of values; legal for keys too, with a transform.)"""
    V2 = 5, Datatype.U2, True, False
    """K2's arithmetic on values: the protected tokens."""
    CENTRE = 6, None, False, False
    """No rows: D FP16 numbers, the key centre that the engine adds back to the keys that follow."""

    def __new__(cls, code: int, datatype: Datatype | None, has_minimum: bool, transformable: bool):
        member = int.__new__(cls, code)
        member._value_, member.datatype = code, datatype
        member.has_minimum, member.transformable = has_minimum, transformable
        return member

    @property
    def bits(self) -> int:
        """Bits per code in a row; 0 for V158 (packed across rows) and CENTRE (no rows)."""
        return 0 if self.datatype in (None, Datatype.TERNARY) else self.datatype.bits


class KvTransform(IntEnum):
    """Inverse transform over a segment's channels; 3 is reserved."""

    NONE = 0
    """The channels as they are."""
    WHT = 1
    """Walsh-Hadamard."""
    RFFT = 2
    """Real Fourier."""


class KvMetadata(IntEnum):
    """How a channel's scale is stored; 3 is reserved. A minimum is always FP16."""

    FP16 = 0
    """16 bits: FP16; in a transformed segment an integer 0..2047, in units of 2^exponent."""
    Q8 = 1
    """8 bits: an integer 0..255 in units of 2^exponent."""
    F6 = 2
    """6 bits ``e * 16 + m``: the integer m for e = 0, else (16 + m) << (e - 1), 0..124, in units of 2^exponent."""

    @property
    def bits(self) -> int:
        return {KvMetadata.FP16: 16, KvMetadata.Q8: 8, KvMetadata.F6: 6}[self]

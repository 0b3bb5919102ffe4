"""Headers of the blocks of a format: the bridge from `golden.kv.config` to the packed layout of `spec`."""

import torch

from golden.kv.config import KeyFormat, ValueFormat
from spec.kv_block import KvHeader
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["key_header", "value_header"]

_KEY_FORMATS = {"binary": KvFormat.K1, "s2": KvFormat.K2S, "u2": KvFormat.K2, "ternary": KvFormat.V158}
_TRANSFORMS = {"none": KvTransform.NONE, "wht": KvTransform.WHT, "rfft": KvTransform.RFFT}
_METADATA = {"fp16": KvMetadata.FP16, "q8": KvMetadata.Q8, "f6": KvMetadata.F6}


def _span(tokens: torch.Tensor) -> int:
    """Bitmap length for these tokens: 0 if they are consecutive."""
    length = int(tokens[-1] - tokens[0]) + 1
    return 0 if length == len(tokens) else -(-length // 64) * 64


def key_header(fmt: KeyFormat, head_dim: int, tokens: torch.Tensor) -> KvHeader:
    """Header of a key block of these tokens, exponents left at their default."""
    count = fmt.anomalous_channels(head_dim)
    sizes = [(fmt.anomalous_code, count), (fmt.code, head_dim - count)]
    (code0, size0), *rest = [(code, size) for code, size in sizes if size]
    return KvHeader(
        format=_KEY_FORMATS[code0],
        channels=head_dim,
        segment0=size0,
        rows=len(tokens),
        transform0=_TRANSFORMS[fmt.transform_of(code0, size0)],
        transform1=_TRANSFORMS[fmt.transform_of(*rest[0])] if rest else KvTransform.NONE,
        metadata=_METADATA[fmt.metadata],
        token=int(tokens[0]),
        span=_span(tokens),
    )


def value_header(fmt: ValueFormat, head_dim: int, tokens: torch.Tensor, *, protected: bool = False) -> KvHeader:
    """Header of a value block of these tokens."""
    affine = protected or fmt.code == "u2"
    metadata = "q8" if affine and fmt.metadata == "f6" else fmt.metadata
    return KvHeader(
        format=KvFormat.V2 if affine else KvFormat.V158,
        channels=head_dim,
        rows=len(tokens),
        metadata=_METADATA[metadata],
        token=int(tokens[0]),
        span=_span(tokens),
    )

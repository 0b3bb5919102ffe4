"""Random KV blocks over everything that the format allows."""

import numpy as np

from golden.kv.block import Block
from spec.kv_block import MAX_TOKENS, TRANSFORM_SIZES, KvHeader
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["centre_of", "random_block", "random_header"]

FP16_INFINITY = 0x7C00


def _transform(rng, config, start, size):
    fits = size in TRANSFORM_SIZES and start % min(size, 32) == 0
    return rng.choice([KvTransform.NONE, *(sorted(config.transforms) * 2 if fits else [])])


def random_header(rng: np.random.Generator, config: KvEngineConfig, rows: int = 128, **fixed) -> KvHeader:
    """A legal header that the build can serve; at most ``rows`` tokens. ``fixed``: fields of `KvHeader` to keep."""
    formats = [f for f in KvFormat if f in config.formats]
    kind = fixed.pop("format", None) or KvFormat(rng.choice(formats))
    channels = fixed.pop("channels", None) or 8 * int(rng.integers(1, config.max_channels // 8 + 1))
    segment0 = channels
    if kind in (KvFormat.K2, KvFormat.K2S) and rng.random() < 0.5:
        segment0 = 8 * int(rng.integers(1, channels // 8 + 1))
    segment0 = fixed.pop("segment0", segment0)
    transform0 = _transform(rng, config, 0, segment0) if kind.transformable else KvTransform.NONE
    transform1 = _transform(rng, config, segment0, channels - segment0) if segment0 < channels else KvTransform.NONE
    transform0, transform1 = fixed.pop("transform0", transform0), fixed.pop("transform1", transform1)
    transformed = transform0 is not KvTransform.NONE or transform1 is not KvTransform.NONE
    metadata = [KvMetadata.Q8]
    if kind.transformable:
        metadata.append(KvMetadata.F6)
    if not transformed or config.scale_bits == 11:
        metadata.append(KvMetadata.FP16)
    count = int(rng.integers(1, rows + 1))
    span = 0
    if rng.random() < 0.3:
        span = 64 * int(rng.integers(-(-count // 64), 9))
    fields = {
        "rows": count,
        "metadata": KvMetadata(rng.choice(metadata)),
        "token": int(rng.integers(0, MAX_TOKENS - 512)),
        "span": span,
        "exponent0": int(rng.integers(-24, -8)),
        "exponent1": int(rng.integers(-24, -8)),
    }
    return KvHeader(
        format=kind,
        channels=channels,
        segment0=segment0,
        transform0=KvTransform(transform0),
        transform1=KvTransform(transform1),
        **(fields | fixed),
    )


def _fp16(rng, size, negative):
    """Bits of finite numbers, small enough that no value overflows: any exponent, zeros and subnormals among them."""
    bits = rng.integers(0, 26 << 10, size) | (rng.integers(0, 2, size) << 15 if negative else 0)
    return np.where(rng.random(size) < 0.05, 0, bits).astype(np.uint16)


def centre_of(rng: np.random.Generator, channels: int, *, zero: bool = False) -> Block:
    """A CENTRE block of finite numbers of any size that does not overflow a key, or of zeros."""
    return Block(
        header=KvHeader(format=KvFormat.CENTRE, channels=channels, rows=1),
        channels=np.arange(channels),
        tokens=np.zeros(1, np.int64),
        scales=np.zeros(channels, np.uint16) if zero else _fp16(rng, channels, True),
        minima=None,
        codes=np.zeros((0, channels), np.uint8),
    )


def random_block(rng: np.random.Generator, header: KvHeader) -> Block:
    """Contents at random, without any error."""
    channels, rows, n0 = header.channels, header.rows, header.segment0
    order = rng.permutation(channels)
    order = np.concatenate([np.sort(order[:n0]), np.sort(order[n0:])])
    transforms = np.repeat([header.transform0, header.transform1], [n0, channels - n0])
    if header.metadata is KvMetadata.FP16:
        scales = np.where(transforms != 0, rng.integers(0, 2048, channels), _fp16(rng, channels, False))
    else:
        scales = rng.integers(0, 1 << header.metadata.bits, channels)
    minima = _fp16(rng, n0, True) if header.format.has_minimum else None
    if minima is not None and header.metadata is KvMetadata.FP16:
        near = rng.random(n0) < 0.7  # where rounding and cancellation are
        exponent = np.clip((scales[:n0] >> 10) + rng.integers(-4, 5, n0), 0, 25)
        minima = np.where(near, (minima & 0x83FF) | exponent << 10, minima).astype(np.uint16)
    levels = {KvFormat.K1: 2, KvFormat.V158: 3}.get(header.format, 4)
    codes = rng.integers(0, levels, (rows, channels))
    codes[:, n0:] &= 1
    offsets = np.arange(rows)
    if header.span:
        offsets = np.sort(rng.choice(header.span, rows, replace=False))
    return Block(
        header=header,
        channels=order,
        tokens=header.token + offsets,
        scales=scales.astype(np.uint16),
        minima=minima,
        codes=codes.astype(np.uint8),
    )

"""Bit-exact arithmetic of the KV dequant engine: codes and metadata to FP16 (docs/kv-engine.md, sections 3 to 6).

Equation labels (V1), (T5), ... are that document's. Intermediate numbers are integers, or float64 where every operation
is exact: codes times scales have at most 42 significant bits.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from golden.kv.block import Block
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["CENTRED", "FP16_MAX", "Decoded", "add_centre", "decode", "decode_keys", "marked_beats", "round_fp16"]

FP16_MAX = 65504.0
CENTRED = (KvFormat.K1, KvFormat.K2S, KvFormat.K2)
"""Formats of keys, whose centre an engine can add back."""
_ROTATION_BITS = 12


@dataclass(frozen=True)
class Decoded:
    """Elements of a block, by channel.

    Attributes
    ----------
    values : np.ndarray
        float16 ``[rows, D]``; never -0.
    overflow : np.ndarray
        bool ``[rows, D]``: the element was beyond FP16 and became +-65504.
    tokens : np.ndarray
        int64 ``[rows]``.
    unused_overflow : bool
        Some value that a channel's codes can take overflows, whether or not it occurs (segments without a transform).
    """

    values: np.ndarray
    overflow: np.ndarray
    tokens: np.ndarray
    unused_overflow: bool


def round_fp16(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R16: float64 (taken as exact) -> FP16, one rounding to nearest even; ``(float16, overflow)``.

    From 65520 in magnitude the result is +-65504 and overflow is set; zeros are +0.
    """
    x = np.asarray(x, np.float64)
    _, power = np.frexp(x)
    quantum = np.maximum(power - 11, -24)
    rounded = np.ldexp(np.rint(np.ldexp(x, -quantum)), quantum)
    overflow = np.abs(rounded) > FP16_MAX
    clipped = np.clip(rounded, -FP16_MAX, FP16_MAX) + 0.0  # -0 + 0 is +0
    return clipped.astype(np.float16), overflow


def integer_scales(stored: np.ndarray, metadata: KvMetadata) -> np.ndarray:
    """int64 a of each stored scale (section 1), for Q8, F6 and the 11-bit integers of FP16-sized metadata."""
    stored = stored.astype(np.int64)
    if metadata is not KvMetadata.F6:
        return stored
    e, m = stored >> 4, stored & 15
    return np.where(e == 0, m, (16 + m) << np.maximum(e - 1, 0))


def _signed(codes: np.ndarray, kind: KvFormat) -> np.ndarray:
    """int64 multiplier of the scale: -1, +1; -3, -1, +1, +3; -1, 0, +1."""
    codes = codes.astype(np.int64)
    return {KvFormat.K1: 2 * codes - 1, KvFormat.K2S: 2 * codes - 3, KvFormat.V158: codes - 1}[kind]


def inverse_wht(x: np.ndarray) -> np.ndarray:
    """(T2) int64 ``[..., n]``: y_j = sum over k of (-1)^popcount(j AND k) x_k, exact."""
    y, n = x.astype(np.int64), x.shape[-1]
    half = 1
    while half < n:
        pairs = y.reshape(*y.shape[:-1], n // (2 * half), 2, half)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        y = np.stack([low + high, low - high], -2).reshape(y.shape)
        half *= 2
    return y


def inverse_rfft(x: np.ndarray) -> np.ndarray:
    """(T4) to (T9) int64 ``[..., n]`` in the order [X0, Re X1, Im X1, ..., X_{n/2}] -> int64 ``[..., n]``."""
    x = x.astype(np.int64)
    real = np.concatenate([x[..., :1], x[..., 1:-1:2], x[..., -1:]], -1)
    imaginary = np.concatenate([np.zeros_like(x[..., :1]), x[..., 2:-1:2]], -1)
    return _irfft(real, imaginary)


def _irfft(r: np.ndarray, i: np.ndarray) -> np.ndarray:
    """`r` is ``[..., n/2 + 1]``; `i` is ``[..., n/2]``, its entry 0 unused."""
    h = r.shape[-1] - 1
    if h == 1:  # (T4)
        return np.stack([r[..., 0] + r[..., 1], r[..., 0] - r[..., 1]], -1)
    q = h // 2
    k = np.arange(1, q)
    edge = np.zeros_like(r[..., :1])
    t, u = r[..., k] - r[..., h - k], i[..., k] + i[..., h - k]
    even_r = np.concatenate([r[..., :1] + r[..., h:], r[..., k] + r[..., h - k], r[..., q : q + 1]], -1)  # (T5)
    even_i = np.concatenate([edge, i[..., k] - i[..., h - k]], -1)
    c, s = _rotation(2 * h, k)
    half = 1 << _ROTATION_BITS - 1
    odd = (t * c - u * s + half) >> _ROTATION_BITS  # (T7); >> is floor
    odd_i = np.concatenate([edge, (t * s + u * c + half) >> _ROTATION_BITS], -1)  # (T8)
    odd_r = np.concatenate([r[..., :1] - r[..., h:], odd, -i[..., q : q + 1]], -1)  # (T6)
    even, uneven = _irfft(even_r, even_i), _irfft(odd_r, odd_i)
    return np.stack([even, uneven], -1).reshape(*even.shape[:-1], 2 * h)


def _rotation(n: int, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T9) 12-bit cosines and sines of 2 pi k / n."""
    scale = 1 << _ROTATION_BITS
    cosine = [math.floor(scale * math.cos(2 * math.pi * j / n) + 0.5) for j in k.tolist()]
    sine = [math.floor(scale * math.sin(2 * math.pi * j / n) + 0.5) for j in k.tolist()]
    return np.array(cosine, np.int64), np.array(sine, np.int64)


def _fp16(bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.uint16).view(np.float16).astype(np.float64)


def _segment(block: Block, index: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Values and overflow ``[rows, n]`` of segment 0 or 1 in storage order, and whether unused codes overflow."""
    header = block.header
    where = slice(0, header.segment0) if index == 0 else slice(header.segment0, None)
    kind = header.format if index == 0 else KvFormat.K1
    transform = (header.transform0, header.transform1)[index]
    exponent = (header.exponent0, header.exponent1)[index]
    stored, codes = block.scales[where], block.codes[:, where]
    if transform is not KvTransform.NONE:
        x = _signed(codes, kind) * integer_scales(stored, header.metadata)  # (T1)
        guard = 0
        if transform is KvTransform.RFFT:  # (T3)
            guard = 2 if header.metadata is KvMetadata.FP16 else 5
            y = inverse_rfft(x << guard)
        else:
            y = inverse_wht(x)
        values, overflow = round_fp16(np.ldexp(y.astype(np.float64), exponent - guard))  # (T10)
        return values, overflow, False
    if header.metadata is KvMetadata.FP16:
        scale = _fp16(stored)
    else:
        scale = np.ldexp(integer_scales(stored, header.metadata).astype(np.float64), exponent)
    if kind in (KvFormat.K2, KvFormat.V2):  # (V3)
        minimum = _fp16(block.minima)
        exact, extreme = minimum + codes * scale, minimum + 3 * scale
    else:  # (V1), (V2), (V4)
        exact, extreme = _signed(codes, kind) * scale, (3 if kind is KvFormat.K2S else 1) * scale
    values, overflow = round_fp16(exact)
    return values, overflow, bool(round_fp16(extreme)[1].any())


def decode(block: Block) -> Decoded:
    """All elements of a block, by channel (C1); a CENTRE block has none."""
    if block.header.format is KvFormat.CENTRE:
        empty = np.zeros((0, block.header.channels))
        return Decoded(empty.astype(np.float16), empty.astype(bool), np.zeros(0, np.int64), False)
    parts = [_segment(block, index) for index in range(2 if block.header.segment1 else 1)]
    values = np.empty((block.header.rows, block.header.channels), np.float16)
    overflow = np.empty(values.shape, bool)
    values[:, block.channels] = np.concatenate([part[0] for part in parts], 1)
    overflow[:, block.channels] = np.concatenate([part[1] for part in parts], 1)
    return Decoded(values, overflow, block.tokens, any(part[2] for part in parts))


def marked_beats(block: Block, decoded: Decoded, lanes: int, *, interleave: bool = False) -> np.ndarray:
    """bool ``[rows * beats]``: which output beats of a well-formed block are marked for elements beyond FP16.

    From the first on, every beat to the packet's end is. An rfft segment is marked as a whole, and with ``interleave``
    a token.
    """
    header = block.header
    stored = decoded.overflow if interleave else decoded.overflow[:, block.channels]
    beats = -(-header.channels // lanes)
    padded = np.pad(stored, ((0, 0), (0, beats * lanes - header.channels)))
    marked = padded.reshape(header.rows, beats, lanes).any(2)
    for transform, where in (
        (header.transform0, slice(0, header.segment0)),
        (header.transform1, slice(header.segment0, None)),
    ):
        if transform is KvTransform.RFFT:
            marked[:, where.start // lanes] |= decoded.overflow[:, block.channels[where]].any(1)
    if interleave:
        marked |= marked.any(1, keepdims=True)
    return np.logical_or.accumulate(marked.reshape(-1))


def add_centre(decoded: Decoded, centre: np.ndarray) -> Decoded:
    """(C3): `centre` uint16 FP16 bits ``[D]`` back on every element, rounded once more (R4)."""
    values, overflow = round_fp16(decoded.values.astype(np.float64) + _fp16(centre))
    return Decoded(values, decoded.overflow | overflow, decoded.tokens, decoded.unused_overflow)


def decode_keys(blocks: Iterable[Block]) -> list[Decoded]:
    """Blocks as an engine with ``centre`` gives them while ``add_centre`` is 1, one result for each but CENTRE blocks.

    A CENTRE block holds until the next one; formats of values (V158, V2) come without it.

    Raises
    ------
    ValueError
        A block of keys without a centre of its D before it: the engine's error CHANNELS.
    """
    centre, found = np.zeros(0, np.uint16), []
    for block in blocks:
        if block.header.format is KvFormat.CENTRE:
            centre = block.scales
            continue
        decoded = decode(block)
        if block.header.format in CENTRED:
            if len(centre) != block.header.channels:
                raise ValueError(f"a block of {block.header.channels} channels needs a centre of as many before it")
            decoded = add_centre(decoded, centre)
        found.append(decoded)
    return found

"""Random KV blocks, hand-worked packets and FP16 rounding from the definition, for the tests of the KV models."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np

from golden.kv.block import Block
from spec.kv_block import HEADER, HEADER_CHECK, KvHeader, header_check
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["SIZES", "VECTORS", "exact_scale", "r16", "random_block", "reheader", "same_fp16", "vector"]

VECTORS = json.loads((Path(__file__).parents[1] / "kv" / "vectors.json").read_text())
SIZES = (16, 32, 64, 128)


def r16(x: Fraction) -> tuple[float, bool]:
    """Round to FP16 from the definition: the two neighbours, the nearer one, the even one at a tie."""
    if x == 0:
        return 0.0, False
    power = max(math.floor(math.log2(abs(x))) - 10, -24)
    while abs(x) >= Fraction(2) ** (power + 11):
        power += 1
    while power > -24 and abs(x) < Fraction(2) ** (power + 10):
        power -= 1
    units = abs(x) / Fraction(2) ** power
    low = units.numerator // units.denominator
    rest = units - low
    low += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1)
    value = low * Fraction(2) ** power
    overflow = value > 65504
    return math.copysign(float(min(value, Fraction(65504))), x) if low else 0.0, overflow


def same_fp16(got, expected) -> bool:
    """Bit for bit, both as FP16."""
    return np.array_equal(np.asarray(got, np.float16).view(np.uint16), np.array(expected, np.float16).view(np.uint16))


def exact_scale(bits: int, metadata: KvMetadata, exponent: int, transformed: bool) -> Fraction:
    """A stored scale as a rational number (docs/kv-engine.md, section 1)."""
    if metadata is KvMetadata.FP16 and not transformed:
        return Fraction(float(np.array(bits, np.uint16).view(np.float16)))
    integer = bits
    if metadata is KvMetadata.F6:
        integer = bits & 15 if bits < 16 else (16 + (bits & 15)) << ((bits >> 4) - 1)
    return integer * Fraction(2) ** exponent


def random_block(rng, kind, metadata, channels, rows, segment0=None, transforms=(KvTransform.NONE, KvTransform.NONE)):
    """A block of random codes, scales, minima and mask; shapes as its header says."""
    n0 = channels if segment0 is None else segment0

    def stored(count, transformed):
        if metadata is KvMetadata.FP16 and not transformed:
            return (np.abs(rng.normal(size=count)) * 10.0 ** rng.integers(-6, 4)).astype(np.float16).view(np.uint16)
        return rng.integers(
            0, {KvMetadata.FP16: 2048, KvMetadata.Q8: 256, KvMetadata.F6: 64}[metadata], count, np.uint16
        )

    scales = np.concatenate([stored(n0, transforms[0] != 0), stored(channels - n0, transforms[1] != 0)])
    header = KvHeader(
        format=kind,
        channels=channels,
        rows=rows,
        segment0=segment0,
        metadata=metadata,
        transform0=transforms[0],
        transform1=transforms[1],
        token=int(rng.integers(0, 1000)),
        exponent0=int(rng.integers(-14, -2)),
        exponent1=int(rng.integers(-14, -2)),
    )
    top = {KvFormat.K1: 2, KvFormat.V158: 3}.get(kind, 4)
    codes = rng.integers(0, top, (rows, channels), np.uint8)
    codes[:, n0:] = rng.integers(0, 2, (rows, channels - n0), np.uint8)
    chosen = np.sort(rng.permutation(channels)[:n0])
    order = np.concatenate([chosen, np.setdiff1d(np.arange(channels), chosen)])
    minima = (rng.normal(size=n0) * 10.0 ** rng.integers(-3, 2)).astype(np.float16).view(np.uint16)
    return Block(header, order, header.token + np.arange(rows), scales, minima if kind.has_minimum else None, codes)


def reheader(data: bytes, **fields) -> bytes:
    """The packet with header fields replaced and the check made good again."""
    word = int.from_bytes(data[:8], "little")
    for name, value in {**fields, "check": 0}.items():
        field = next(field for field in HEADER if field.name == name)
        word = word & ~((1 << field.width) - 1 << field.offset) | value << field.offset
    return (word | (header_check(word) ^ HEADER_CHECK) << 60).to_bytes(8, "little") + data[8:]


def vector(name):
    """The bytes of a hand-worked packet."""
    return bytes.fromhex(" ".join(next(v for v in VECTORS if v["name"] == name)["bytes"]))

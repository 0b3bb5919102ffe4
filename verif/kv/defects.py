"""Bad packets: every way to break a block that docs/kv-engine.md, section 8, names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from golden.kv.pack import pack_block
from spec.kv_block import HEADER, HEADER_CHECK, MAX_TOKENS, KvHeader, header_check
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from verif.kv.blocks import centre_of, random_block

__all__ = ["Defect", "centre_defects", "defects"]

_MINIMUM_AT = {KvMetadata.FP16: 16, KvMetadata.Q8: 8}


@dataclass(frozen=True)
class Defect:
    """A bad packet, the good one it was made from, and the code that it must give."""

    name: str
    error: KvError
    packet: bytes
    good: bytes


def _with_fields(packet: bytes, *, valid_check: bool = True, **fields: int) -> bytes:
    """Other codes in the header; its check made right again, or wrong."""
    word = int.from_bytes(packet[:8], "little")
    for field in HEADER:
        if field.name in fields:
            mask = (1 << field.width) - 1 << field.offset
            word = word & ~mask | fields[field.name] << field.offset
    word &= (1 << HEADER[-1].offset) - 1
    check = header_check(word) ^ HEADER_CHECK ^ (not valid_check)
    return (word | check << HEADER[-1].offset).to_bytes(8, "little") + packet[8:]


def _with_bits(packet: bytes, at: int, width: int, value: int) -> bytes:
    """Other bits from bit ``at`` of the packet on."""
    bits = np.unpackbits(np.frombuffer(packet, np.uint8), bitorder="little")
    bits[at : at + width] = [value >> k & 1 for k in range(width)]
    return np.packbits(bits, bitorder="little").tobytes()


def _place_of(rng: np.random.Generator, packet: bytes, bit: int, places: range) -> int:
    """One of the places where the packet has this bit."""
    found = [at for at in places if packet[at // 8] >> at % 8 & 1 == bit]
    return int(rng.choice(found))


def _flip(packet: bytes, at: int) -> bytes:
    data = bytearray(packet)
    data[at // 8] ^= 1 << at % 8
    return bytes(data)


def defects(rng: np.random.Generator, config: KvEngineConfig) -> Iterator[Defect]:
    """Every defect that an engine can see, each in a block of its own."""
    beat = config.input_bits // 8

    def good(kind: KvFormat, **fields) -> tuple[KvHeader, bytes]:
        fields = {"channels": 64, "rows": 7, "metadata": KvMetadata.Q8, "exponent0": -12, "exponent1": -12} | fields
        header = KvHeader(format=kind, token=int(rng.integers(0, MAX_TOKENS - 512)), **fields)
        return header, pack_block(random_block(rng, header))

    def made(name: str, error: KvError, block: tuple[KvHeader, bytes], change: Callable[[bytes], bytes]) -> Defect:
        return Defect(name, error, change(block[1]), block[1])

    k1, k2s, k2, v158, v2 = (good(kind) for kind in list(KvFormat)[:5])
    split = good(KvFormat.K2S, segment0=32)
    sparse = good(KvFormat.V158, span=128)

    def fields(name, error, block, valid_check=True, **codes):
        return made(name, error, block, lambda p: _with_fields(p, valid_check=valid_check, **codes))

    yield fields("check", KvError.HEADER, k1, valid_check=False)
    for version in (0, 2, 3):
        yield fields(f"version {version}", KvError.HEADER, v158, version=version)

    for code in (0, 6, 7):
        yield fields(f"format {code}", KvError.FORMAT, k1, format=code)
    yield fields("metadata 3", KvError.FORMAT, v158, metadata=3)
    yield fields("transform0 3", KvError.FORMAT, k1, transform0=3)
    yield fields("transform1 3", KvError.FORMAT, split, transform1=3)
    for kind, block in (("K2", k2), ("V2", v2)):
        yield fields(f"F6 with {kind}", KvError.FORMAT, block, metadata=int(KvMetadata.F6))
        yield fields(f"{kind} transformed", KvError.FORMAT, block, transform0=int(KvTransform.WHT))
    yield fields("transform1 without a segment", KvError.FORMAT, k2s, transform1=int(KvTransform.WHT))
    for kind, block in (("K1", k1), ("V158", v158), ("V2", v2)):
        yield fields(f"{kind} in two segments", KvError.FORMAT, block, segment0=3)
    if KvTransform.RFFT not in config.transforms:
        yield fields("a transform that is not built", KvError.FORMAT, k1, transform0=int(KvTransform.RFFT))
    if config.scale_bits < 11:
        yield fields("11-bit scales that are not built", KvError.FORMAT, k1, metadata=0, transform0=1)

    if config.max_channels < 128:
        yield fields("head dim beyond the build", KvError.CHANNELS, k1, channels=15, segment0=15)
    yield fields("segment 0 beyond the head", KvError.CHANNELS, k2s, segment0=9)
    for size in (24, 56):
        block = good(KvFormat.K1, channels=size)
        yield fields(f"transform of {size}", KvError.CHANNELS, block, transform0=1)
    yield fields("transform of 48", KvError.CHANNELS, split, segment0=1, transform1=1)
    yield fields(
        "transform that starts at 24", KvError.CHANNELS, good(KvFormat.K2S, channels=40, segment0=24), transform1=1
    )
    for name, bit in (("one too many in the mask", 0), ("one missing in the mask", 1)):
        at = _place_of(rng, split[1], bit, range(64, 128))
        yield made(name, KvError.CHANNELS, split, lambda p, at=at: _flip(p, at))
    beyond = good(KvFormat.K2, channels=40, segment0=16)
    yield made("mask beyond the head", KvError.CHANNELS, beyond, lambda p: _flip(p, 64 + 50))

    for name, block in (("K2S", split), ("V158", sparse), ("V2", v2)):
        header, packet = block
        metadata = header.rows_offset - 8
        cuts = {"the header": 8, "its prefix": metadata, "half its rows": (header.rows_offset + len(packet)) // 2}
        for place, at in cuts.items():
            size = max(beat, at // beat * beat)
            yield made(f"{name} cut after {place}", KvError.SHORT, block, lambda p, size=size: p[:size])
        yield made(f"{name} without its last beat", KvError.SHORT, block, lambda p: p[:-beat])
        for extra in (1, 9):
            yield made(
                f"{name} with {extra} beats more", KvError.LONG, block, lambda p, n=extra: p + rng.bytes(n * beat)
            )

    for kind, metadata in ((KvFormat.K1, 0), (KvFormat.V158, 0), (KvFormat.K2, 0), (KvFormat.V2, 1)):
        block = good(kind, metadata=KvMetadata(metadata))
        minimum = 16 * kind.has_minimum
        record = KvMetadata(metadata).bits + minimum
        for channel in (0, 63):
            at = 64 + channel * record
            if metadata == 0:
                for value in (0x8000, 0x8001, 0xBC00, 0x7C00, 0x7E01):
                    name = f"{kind.name} scale {value:#x} in channel {channel}"
                    yield made(name, KvError.SCALE, block, lambda p, at=at, v=value: _with_bits(p, at, 16, v))
            if minimum:
                at += KvMetadata(metadata).bits
                for value in (0x7C00, 0xFC00, 0x7FFF):
                    name = f"{kind.name} minimum {value:#x} in channel {channel}"
                    yield made(name, KvError.SCALE, block, lambda p, at=at, v=value: _with_bits(p, at, 16, v))
    if config.scale_bits == 11:
        block = good(KvFormat.K1, metadata=KvMetadata.FP16, transform0=KvTransform.WHT)
        yield made("integer scale 2048", KvError.SCALE, block, lambda p: _with_bits(p, 64 + 5 * 16, 16, 2048))

    yield from _overflows(rng, config, good)
    if config.centre:
        yield from centre_defects(rng, config)

    header, packet = v158
    for value in range(243, 256):
        at = 8 * (header.rows_offset + int(rng.integers(header.rows_bytes - 1)))
        yield made(f"byte {value}", KvError.TRIT, v158, lambda p, at=at, v=value: _with_bits(p, at, 8, v))
    for transform in sorted(config.transforms):
        # Of a transformed segment all beats of the token are marked, wherever in it the byte is.
        block = good(KvFormat.V158, transform0=transform)
        start, per_token = block[0].rows_offset, 64 / 5
        for place in range(12):
            at = 8 * (start + int(3 * per_token) + 1 + place)
            name = f"{transform.name} byte {place} of a token"
            yield made(name, KvError.TRIT, block, lambda p, at=at: _with_bits(p, at, 8, 250))
    for rows in (1, 2, 3, 4):  # 64 rows digits: 1, 2, 3 and 4 of the last byte's five are padding
        block = good(KvFormat.V158, rows=rows)
        count = -rows * 64 % 5
        last = block[0].rows_offset + block[0].rows_bytes - 1
        for digit in range(5 - count, 5):
            for other in (0, 2):
                change = (other - 1) * 3**digit
                name = f"padding digit {digit} is {other}"
                yield made(
                    name, KvError.PADDING, block, lambda p, c=change, at=last: _with_bits(p, 8 * at, 8, p[at] + c)
                )

    yield fields("tokens beyond 2^20", KvError.TOKEN, k1, token=MAX_TOKENS - 6)
    yield fields("bitmap beyond 2^20", KvError.TOKEN, sparse, token=MAX_TOKENS - 127)
    for span in (9, 15):
        yield fields(f"bitmap of {64 * span}", KvError.TOKEN, sparse, span=span)
    tight = good(KvFormat.V158, span=64)
    yield fields("more rows than the bitmap", KvError.TOKEN, tight, rows=64)
    # The header alone says so: the bitmap never comes.
    cut = max(beat, 8)
    yield made("the same, cut", KvError.TOKEN, tight, lambda p: _with_fields(p, rows=64)[:cut])
    # So many that a counter of 8 bits would have the right number again.
    wide = good(KvFormat.V158, span=512)
    zeros = [at for at in range(64, 64 + 512) if not wide[1][at // 8] >> at % 8 & 1]
    yield made("256 too many in the bitmap", KvError.TOKEN, wide, lambda p: reduce(_flip, zeros[:256], p))
    for name, bit in (("one too many in the bitmap", 0), ("one missing in the bitmap", 1)):
        at = _place_of(rng, sparse[1], bit, range(64, 64 + 128))
        yield made(name, KvError.TOKEN, sparse, lambda p, at=at: _flip(p, at))


def centre_defects(rng: np.random.Generator, config: KvEngineConfig) -> Iterator[Defect]:
    """The same of CENTRE blocks, for builds that take them."""
    beat = config.input_bits // 8
    good = pack_block(centre_of(rng, 64))
    for channel in (0, 17, 63):
        for value in (0x7C00, 0xFC00, 0x7E01):
            bad = _with_bits(good, 64 + 16 * channel, 16, value)
            yield Defect(f"centre {value:#x} in channel {channel}", KvError.SCALE, bad, good)
    for cut in sorted({max(beat, size // beat * beat) for size in (8, 16, 70, len(good) - 8, len(good) - 1)}):
        yield Defect(f"CENTRE cut after {cut} bytes", KvError.SHORT, good[:cut], good)
    for extra in (1, 9):
        bad = good + rng.bytes(extra * beat)
        yield Defect(f"CENTRE with {extra} beats more", KvError.LONG, bad, good)
    for name, code in (("metadata", KvMetadata.Q8), ("rows", 1), ("span", 1), ("segment0", 3), ("transform0", 1)):
        yield Defect(f"CENTRE of {name} {int(code)}", KvError.FORMAT, _with_fields(good, **{name: int(code)}), good)


def _overflows(rng, config: KvEngineConfig, good) -> Iterator[Defect]:
    """Values beyond FP16: of codes that occur or do not, and out of each transform."""
    for kind, scale, minimum in (
        (KvFormat.K2S, 0x7800, None),  # 3 * 32768
        (KvFormat.K2, 0x7800, 0x7BFF),
        (KvFormat.V2, 0x7555, 0x7800),  # 21840 * 3 + 32768
    ):
        header, packet = good(kind, metadata=KvMetadata.FP16)
        for unused in (False, True):
            block = random_block(rng, header)
            scales, codes = block.scales.copy(), block.codes.copy()
            scales[17] = scale
            minima = None if minimum is None else block.minima.copy()
            if minima is not None:
                minima[17] = minimum
            codes[:, 17] = 1 if unused else 3
            bad = pack_block(replace(block, scales=scales, minima=minima, codes=codes))
            yield Defect(f"{kind.name} {'unused' if unused else 'used'} value", KvError.OVERFLOW, bad, packet)
    for transform in sorted(config.transforms):
        for kind in (KvFormat.K1, KvFormat.K2S, KvFormat.V158):
            header, packet = good(kind, transform0=transform)
            block = random_block(rng, replace(header, exponent0=7))
            codes = block.codes.copy()
            codes[3:] = {KvFormat.K1: 1, KvFormat.K2S: 3, KvFormat.V158: 2}[kind]
            bad = pack_block(replace(block, codes=codes, scales=np.full(64, 255, np.uint16)))
            yield Defect(f"{kind.name} through {transform.name}", KvError.OVERFLOW, bad, packet)

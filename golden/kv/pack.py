"""Blocks to packets and back (docs/kv-engine.md, section 2)."""

import numpy as np

from golden.kv.block import Block
from spec.kv_block import (
    HEADER,
    HEADER_BYTES,
    HEADER_CHECK,
    TRANSFORM_SIZES,
    TRITS_PER_BYTE,
    VERSION,
    WORD_BYTES,
    KvHeader,
    header_check,
)
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["BlockError", "pack_block", "unpack_block"]

_TRIT_BYTES = 3**TRITS_PER_BYTE
_FP16_INFINITY = 0x7C00
_LARGEST_INTEGER = 2047


class BlockError(ValueError):
    """A packet that is not a valid block; `code` is what the engine would report."""

    def __init__(self, code: KvError, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code


def _to_bits(values: np.ndarray, width: int) -> np.ndarray:
    """``[n]`` integers -> ``[n, width]`` bits, LSB first."""
    return (np.asarray(values, np.uint32)[:, None] >> np.arange(width, dtype=np.uint32) & 1).astype(np.uint8)


def _from_bits(bits: np.ndarray) -> np.ndarray:
    """``[n, width]`` bits, LSB first -> uint16 ``[n]``."""
    return (bits.astype(np.uint32) << np.arange(bits.shape[1], dtype=np.uint32)).sum(1).astype(np.uint16)


def _words(bits: np.ndarray) -> bytes:
    """Bits, LSB first, in whole 64-bit words."""
    data = np.packbits(bits, bitorder="little").tobytes()
    return data.ljust(-(-len(data) // WORD_BYTES) * WORD_BYTES, b"\0")


def pack_block(block: Block) -> bytes:
    """The packet, ``block.header.packet_bytes`` long.

    Raises
    ------
    ValueError
        Contents that contradict the header or do not fit their fields.
    """
    header = block.header
    _check(block)
    parts = [header.word().to_bytes(HEADER_BYTES, "little")]
    if header.segment1:
        mask = np.zeros(header.channels, np.uint8)
        mask[block.channels[: header.segment0]] = 1
        parts.append(_words(mask))
    if header.span:
        bitmap = np.zeros(header.span, np.uint8)
        bitmap[block.tokens - header.token] = 1
        parts.append(_words(bitmap))
    records = []
    scale_bits = _to_bits(block.scales, header.metadata.bits)
    for position in range(header.channels):
        records.append(scale_bits[position])
        if block.minima is not None and position < header.segment0:
            records.append(_to_bits(block.minima[position : position + 1], 16)[0])
    parts.append(_words(np.concatenate(records)))
    if header.format is KvFormat.V158:
        digits = np.ones(header.rows_bytes * TRITS_PER_BYTE, np.uint16)
        digits[: block.codes.size] = block.codes.reshape(-1)
        weights = 3 ** np.arange(TRITS_PER_BYTE, dtype=np.uint16)
        parts.append((digits.reshape(-1, TRITS_PER_BYTE) * weights).sum(1).astype(np.uint8).tobytes())
    elif header.format is not KvFormat.CENTRE:
        for row in block.codes:
            low = _to_bits(row[: header.segment0], header.format.bits).reshape(-1)
            parts.append(np.packbits(np.concatenate([low, row[header.segment0 :]]), bitorder="little").tobytes())
    return b"".join(parts).ljust(header.packet_bytes, b"\0")


def _check(block: Block) -> None:
    header, centre = block.header, block.header.format is KvFormat.CENTRE
    n0, channels = header.segment0, block.channels
    shapes = {
        "channels": (channels.shape, (header.channels,)),
        "tokens": (block.tokens.shape, (header.rows,)),
        "scales": (block.scales.shape, (header.channels,)),
        "codes": (block.codes.shape, (0 if centre else header.rows, header.channels)),
        "minima": (None if block.minima is None else block.minima.shape, (n0,) if header.format.has_minimum else None),
    }
    for name, (got, wanted) in shapes.items():
        if got != wanted:
            raise ValueError(f"{name} must have shape {wanted}, not {got}")
    ascending = (np.diff(channels[:n0]) > 0).all() and (np.diff(channels[n0:]) > 0).all()
    if not ascending or sorted(channels.tolist()) != list(range(header.channels)):
        raise ValueError("channels must be all channels, ascending within each segment")
    offsets = block.tokens - header.token
    if (np.diff(offsets) < 1).any() or offsets[0] < 0 or offsets[-1] >= (header.span or header.rows):
        raise ValueError(f"tokens must ascend from {header.token} within {header.span or header.rows} tokens")
    largest = {KvFormat.K1: 1, KvFormat.V158: 2}.get(header.format, 3)
    if (block.codes[:, :n0] > largest).any() or (block.codes[:, n0:] > 1).any():
        raise ValueError(f"codes must be at most {largest} in segment 0 and 1 in segment 1")
    check_metadata(block)


def check_metadata(block: Block) -> None:
    """Raise `BlockError` (SCALE) unless every scale and minimum is one that the format allows."""
    header = block.header
    scales, minima = block.scales.astype(int), block.minima
    if header.format is KvFormat.CENTRE:
        if (scales & _FP16_INFINITY == _FP16_INFINITY).any():
            raise BlockError(KvError.SCALE, "the centre must be finite")
        return
    for segment, transform in (
        (slice(0, header.segment0), header.transform0),
        (slice(header.segment0, None), header.transform1),
    ):
        limit = (1 << header.metadata.bits) - 1
        if header.metadata is KvMetadata.FP16:
            limit = _FP16_INFINITY - 1 if transform is KvTransform.NONE else _LARGEST_INTEGER
        for position in np.flatnonzero(scales[segment] > limit):
            raise BlockError(
                KvError.SCALE,
                f"scale {position + segment.start} must be at most {limit:#x} as stored, "
                f"not {scales[segment][position]:#x}",
            )
    if minima is not None and (minima.astype(int) & _FP16_INFINITY == _FP16_INFINITY).any():
        raise BlockError(KvError.SCALE, "minima must be finite")


def unpack_block(data: bytes) -> Block:
    """Parse and check a packet.

    Raises
    ------
    BlockError
        With the code that the engine would report first.
    """
    if len(data) < HEADER_BYTES:
        raise BlockError(KvError.SHORT, f"a packet has at least {HEADER_BYTES} bytes, not {len(data)}")
    header = parse_header(int.from_bytes(data[:HEADER_BYTES], "little"))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    position = HEADER_BYTES * 8

    def take(words: int) -> np.ndarray:
        nonlocal position
        section = bits[position : position + 64 * words]
        position += 64 * words
        if len(section) < 64 * words:
            raise BlockError(KvError.SHORT, f"the packet must have {header.packet_bytes} bytes, not {len(data)}")
        return section

    channels = np.arange(header.channels)
    if header.segment1:
        mask = take(header.mask_words).astype(bool)
        if mask.sum() != header.segment0 or mask[header.channels :].any():
            raise BlockError(KvError.CHANNELS, f"the mask must have {header.segment0} ones, not {mask.sum()}")
        mask = mask[: header.channels]
        channels = np.concatenate([channels[mask], channels[~mask]])
    tokens = header.token + np.arange(header.rows)
    if header.span:
        bitmap = take(header.bitmap_words)
        if bitmap.sum() != header.rows:
            raise BlockError(KvError.TOKEN, f"the bitmap must have {header.rows} ones, not {bitmap.sum()}")
        tokens = header.token + np.flatnonzero(bitmap)
    scales, minima = _split_records(take(header.metadata_words), header)
    block = Block(header, channels, tokens, scales, minima, np.zeros((0, header.channels), np.uint8))
    check_metadata(block)
    if len(data) != header.packet_bytes:
        code = KvError.SHORT if len(data) < header.packet_bytes else KvError.LONG
        raise BlockError(code, f"the packet must have {header.packet_bytes} bytes, not {len(data)}")
    rows = np.frombuffer(data, np.uint8, header.rows_bytes, header.rows_offset)
    return Block(header, channels, tokens, scales, minima, unpack_rows(rows, header))


def parse_header(word: int) -> KvHeader:
    """`KvHeader.from_word`, with the engine's error code."""
    try:
        return KvHeader.from_word(word)
    except ValueError as error:
        raise BlockError(_header_code(word), str(error)) from error


def _header_code(word: int) -> KvError:
    """Code of a header that `KvHeader` refuses: of all that is wrong with it, the lowest."""
    raw = {field.name: word >> field.offset & (1 << field.width) - 1 for field in HEADER}
    if header_check(word) != HEADER_CHECK or raw["version"] != VERSION:
        return KvError.HEADER
    codes = {"format": KvFormat, "transform0": KvTransform, "transform1": KvTransform, "metadata": KvMetadata}
    if any(raw[name] not in list(kind) for name, kind in codes.items()):
        return KvError.FORMAT
    kind, two = KvFormat(raw["format"]), raw["segment0"] < raw["channels"]
    centre = kind is KvFormat.CENTRE
    forbidden = (
        two and kind not in (KvFormat.K2, KvFormat.K2S),
        raw["metadata"] == KvMetadata.F6 and not kind.transformable,
        raw["transform0"] and not kind.transformable,
        raw["transform1"] and not two,
        centre and (raw["rows"] or raw["span"] or raw["metadata"] != KvMetadata.FP16),
    )
    if any(forbidden):
        return KvError.FORMAT
    n0, channels = 8 * raw["segment0"] + 8, 8 * raw["channels"] + 8
    sizes = ((raw["transform0"], 0, n0), (raw["transform1"], n0, channels - n0))
    bad_transform = any(t and (n not in TRANSFORM_SIZES or start % min(n, 32)) for t, start, n in sizes)
    return KvError.CHANNELS if n0 > channels or bad_transform else KvError.TOKEN


def _split_records(bits: np.ndarray, header: KvHeader) -> tuple[np.ndarray, np.ndarray | None]:
    """Scales ``[D]`` and minima ``[n0]`` from the metadata section."""
    width, minimum = header.metadata.bits, 16 * header.format.has_minimum
    first = header.segment0 * (width + minimum)
    records = bits[:first].reshape(header.segment0, width + minimum)
    rest = bits[first : header.metadata_bits].reshape(header.segment1, width)
    scales = np.concatenate([_from_bits(records[:, :width]), _from_bits(rest)])
    return scales, _from_bits(records[:, width:]) if minimum else None


def unpack_rows(data: np.ndarray, header: KvHeader) -> np.ndarray:
    """uint8 ``[rows, D]`` codes in storage order from the bytes of the rows section."""
    if header.format is KvFormat.CENTRE:
        return np.zeros((0, header.channels), np.uint8)
    if header.format is KvFormat.V158:
        if (data >= _TRIT_BYTES).any():
            raise BlockError(KvError.TRIT, f"byte {data.max()} is no five digits (243..255 are invalid)")
        digits = (data[:, None] // 3 ** np.arange(TRITS_PER_BYTE) % 3).astype(np.uint8).reshape(-1)
        count = header.rows * header.channels
        if (digits[count:] != 1).any():
            raise BlockError(KvError.PADDING, "digits after the last must be 1")
        return digits[:count].reshape(header.rows, header.channels)
    bits = np.unpackbits(data, bitorder="little").reshape(header.rows, header.row_bits)
    first = header.segment0 * header.format.bits
    low = bits[:, :first].reshape(header.rows, header.segment0, header.format.bits)
    codes = (low << np.arange(header.format.bits, dtype=np.uint8)).sum(2, dtype=np.uint8)
    return np.concatenate([codes, bits[:, first:]], 1)

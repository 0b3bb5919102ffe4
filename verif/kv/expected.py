"""What an engine must do with a packet, good or bad: docs/kv-engine.md sections 6 and 8, one packet at a time.

Codes and metadata are cut from the bytes here, on their own; values come from the exact model in `golden`.
"""

from dataclasses import dataclass

import numpy as np

from golden.kv.block import Block
from golden.kv.engine_model import CENTRED, Decoded, add_centre, decode
from spec.kv_block import HEADER, HEADER_CHECK, MAX_TOKENS, VERSION, KvHeader, header_check
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["NO_CENTRE", "Expected", "expect", "expect_all"]


@dataclass(frozen=True)
class Expected:
    """The output packet.

    Attributes
    ----------
    values : uint16 ``[beats, lanes]``
        FP16 bits; unspecified in marked beats and in lanes that do not exist.
    marked, token_last : bool ``[beats]``
    channel, token : int64 ``[beats]``
        Unspecified in marked beats.
    lanes : int64 ``[beats]``
        How many lanes exist.
    error : KvError
        The packet's first error.
    header : KvHeader or None
    centre : uint16 ``[D]``
        The key centre from this packet on; empty: none.
    """

    values: np.ndarray
    marked: np.ndarray
    token_last: np.ndarray
    channel: np.ndarray
    token: np.ndarray
    lanes: np.ndarray
    error: KvError
    header: KvHeader | None
    centre: np.ndarray


def _bits(data: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")


def _number(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")


def _beats(config: KvEngineConfig, count: int, error: KvError, header, centre: np.ndarray) -> Expected:
    """So many marked beats: one, or none for a CENTRE block."""
    one, zero = np.ones(count, bool), np.zeros(count, np.int64)
    values = np.zeros((count, config.lanes), np.uint16)
    return Expected(values, one, one, zero, zero, zero + config.lanes, error, header, centre)


def _adds(kind: int, config: KvEngineConfig, add: bool) -> bool:
    """The centre is added to a block of this format."""
    return config.centre and add and kind in map(int, CENTRED)


def _header_error(word: int, config: KvEngineConfig, centre: np.ndarray, add: bool) -> KvError:
    field = {f.name: word >> f.offset & (1 << f.width) - 1 for f in HEADER}
    if header_check(word) != HEADER_CHECK or field["version"] != VERSION:
        return KvError.HEADER
    kind, on = field["format"], (field["transform0"], field["transform1"])
    two = field["segment0"] != field["channels"]
    transformable = kind in (KvFormat.K1, KvFormat.K2S, KvFormat.V158)
    served = {0, *map(int, config.transforms)}
    if (
        kind not in {*config.formats, *([KvFormat.CENTRE] if config.centre else [])}
        or (kind == KvFormat.CENTRE and (field["metadata"] or field["rows"] or field["span"]))
        or field["metadata"] == 3
        or (field["metadata"] == KvMetadata.F6 and not transformable)
        or not set(on) <= served
        or (on[0] and not transformable)
        or (on[1] and not two)
        or (two and kind not in (KvFormat.K2, KvFormat.K2S))
        or (config.scale_bits == 8 and any(on) and field["metadata"] == KvMetadata.FP16)
    ):
        return KvError.FORMAT
    channels, n0 = 8 * field["channels"] + 8, 8 * field["segment0"] + 8
    sizes, starts = (n0, channels - n0), (0, n0)
    fits = [
        not o or (n in (16, 32, 64, 128) and s % min(n, 32) == 0) for o, n, s in zip(on, sizes, starts, strict=True)
    ]
    fits.append(not _adds(kind, config, add) or len(centre) == channels)
    if channels > config.max_channels or n0 > channels or not all(fits):
        return KvError.CHANNELS
    rows, span = field["rows"] + 1, 64 * field["span"]
    if span > 512 or field["token"] + (span or rows) > MAX_TOKENS or (span and rows > span):
        return KvError.TOKEN
    return KvError.NONE


def _prefix(packet: bytes, header: KvHeader):
    """Mask, bitmap, scales and minima; the error among mask, bitmap and metadata."""
    bits = _bits(packet[8 : header.rows_offset])
    mask = bits[: 64 * header.mask_words]
    bitmap = bits[64 * header.mask_words :][: header.span]
    at = 64 * (header.mask_words + header.bitmap_words)
    scales, minima, error = [], [], KvError.NONE
    size = header.metadata.bits
    for position in range(header.channels):
        segment = int(position >= header.segment0)
        scale = _number(bits[at : at + size])
        at += size
        if header.metadata is KvMetadata.FP16:
            plain = (header.transform0, header.transform1)[segment] is KvTransform.NONE
            bad = scale >= 0x7C00 if plain else scale > 2047
            if header.format is KvFormat.CENTRE:
                bad = scale & 0x7C00 == 0x7C00
        else:
            bad = False
        scales.append(scale)
        if header.format.has_minimum and not segment:
            minima.append(_number(bits[at : at + 16]))
            at += 16
            bad |= minima[-1] & 0x7C00 == 0x7C00
        if bad and not error:
            error = KvError.SCALE
    if header.span and bitmap.sum() != header.rows:
        error = KvError.TOKEN
    if header.segment1 and mask.sum() != header.segment0:
        error = KvError.CHANNELS
    return mask, bitmap, np.array(scales, np.uint16), np.array(minima, np.uint16), error


def _codes(packet: bytes, header: KvHeader, lanes: int):
    """Codes ``[rows, D]``, and by beat: which lie past the packet's end, touch a bad byte, or (last) bad padding."""
    data = packet[header.rows_offset :]
    rows, channels = header.rows, header.channels
    starts = np.arange(0, channels, lanes)
    ends = np.minimum(starts + lanes, channels)
    row = np.arange(rows)[:, None]
    bad_padding = False
    if header.format is KvFormat.V158:
        raw = np.frombuffer(data, np.uint8)[: header.rows_bytes].astype(np.int64)
        digits = raw[:, None] // 3 ** np.arange(5) % 3
        flat = np.zeros(header.rows_bytes * 5, np.int64)
        flat[: digits.size] = digits.reshape(-1)
        codes, pads = flat[: rows * channels].reshape(rows, channels), digits.reshape(-1)[rows * channels :]
        bad_padding = bool((pads != 1).any())
        first, last = (row * channels + starts) // 5, (row * channels + ends - 1) // 5
        invalid = np.concatenate([[0], np.cumsum(np.pad(raw > 242, (0, header.rows_bytes - len(raw))))])
        touched = invalid[last + 1] - invalid[first] > 0
        missing = last >= len(data)
    else:
        size = header.row_bits
        widths = np.where(np.arange(channels) < header.segment0, header.format.bits, 1)
        offsets = np.concatenate([[0], np.cumsum(widths)])
        bits = np.zeros(rows * size + 1, np.int64)
        have = _bits(data)[: rows * size]
        bits[: len(have)] = have
        at = row * size + offsets[:-1]
        codes = bits[at] + np.where(widths == 2, 2 * bits[at + 1], 0)
        touched = np.zeros((rows, len(starts)), bool)
        missing = row * size + offsets[ends] > 8 * len(data)
    return codes.astype(np.uint8), missing.reshape(-1), touched.reshape(-1), bad_padding


NO_CENTRE = np.zeros(0, np.uint16)


def expect_all(
    packets: list[bytes], config: KvEngineConfig, *, add: bool = False, centre: np.ndarray = NO_CENTRE
) -> list[Expected]:
    """What must follow from packets one after another; ``add``: input ``add_centre``; ``centre``: the one before."""
    found = []
    for packet in packets:
        found.append(expect(packet, config, add=add, centre=centre))
        centre = found[-1].centre
    return found


def expect(packet: bytes, config: KvEngineConfig, *, add: bool = False, centre: np.ndarray = NO_CENTRE) -> Expected:
    """The output packet that must follow from an input packet (a whole number of beats)."""

    def alone(error: KvError, header=None) -> Expected:
        return _beats(config, 1, error, header, centre)

    if len(packet) < 8:
        return alone(KvError.SHORT)
    word = int.from_bytes(packet[:8], "little")
    error = _header_error(word, config, centre, add)
    if error:
        return alone(error)
    header = KvHeader.from_word(word)
    if len(packet) <= header.rows_offset:
        return alone(KvError.SHORT, header)
    mask, bitmap, scales, minima, error = _prefix(packet, header)
    if error:
        return alone(error, header)
    if header.format is KvFormat.CENTRE:
        if len(packet) != header.packet_bytes:
            return alone(KvError.LONG if len(packet) > header.packet_bytes else KvError.SHORT, header)
        return _beats(config, 0, KvError.NONE, header, scales)
    lanes = config.lanes
    codes, missing, touched, bad_padding = _codes(packet, header, lanes)
    inside = mask[: header.channels] == 1
    order = np.arange(header.channels)
    if header.segment1:
        order = np.concatenate([order[inside], order[~inside]])
    offsets = np.flatnonzero(bitmap) if header.span else np.arange(header.rows)
    decoded: Decoded = decode(
        Block(
            header=header,
            channels=order,
            tokens=header.token + offsets,
            scales=scales,
            minima=minima if header.format.has_minimum else None,
            codes=codes,
        )
    )
    if decoded.unused_overflow:
        return alone(KvError.OVERFLOW, header)
    added = add_centre(decoded, centre) if _adds(header.format, config, add) else None
    return _rows(packet, header, config, decoded, added, order, missing, touched, bad_padding, centre)


def _by_beat(where: np.ndarray, lanes: int) -> np.ndarray:
    """bool ``[rows, D]`` to ``[rows, beats]``: any in the beat."""
    rows, channels = where.shape
    padded = np.pad(where, ((0, 0), (0, -channels % lanes)))
    return padded.reshape(rows, -1, lanes).any(-1)


def _rows(packet, header, config, decoded, added, order, missing, touched, bad_padding, centre) -> Expected:
    lanes, rows = config.lanes, header.rows
    per_token = -(-header.channels // lanes)
    width = per_token * lanes
    arrange = np.arange(header.channels) if config.interleave else order
    values = np.zeros((rows, width), np.uint16)
    values[:, : header.channels] = (added or decoded).values.view(np.uint16)[:, arrange]
    overflow = _by_beat(decoded.overflow[:, arrange], lanes)
    if KvTransform.RFFT in (header.transform0, header.transform1):
        overflow = _whole_segments(header, overflow, decoded, order, lanes)
    overflow = overflow.reshape(-1)

    beats, cause = rows * per_token, KvError.NONE
    wrong = touched.copy()
    if touched.any():
        cause = KvError.TRIT
    if missing.any():
        first = int(np.argmax(missing))
        beats = (first // per_token + 1) * per_token
        wrong[first:] = True
        cause = KvError.TRIT if touched[:first].any() else KvError.SHORT
    else:
        if bad_padding:
            wrong[-1] = True
            cause = cause or KvError.PADDING
        if len(packet) != header.packet_bytes:
            wrong[-1] = True
            cause = cause or (KvError.LONG if len(packet) > header.packet_bytes else KvError.SHORT)
    wrong = _whole_transforms(header, wrong.reshape(rows, per_token), lanes).reshape(-1) | overflow
    if config.interleave:
        wrong = wrong.reshape(rows, per_token).any(1).repeat(per_token)
    if added is not None:
        sums = _by_beat(added.overflow & ~decoded.overflow, lanes).reshape(-1)
        wrong, overflow = wrong | sums, overflow | sums
    cause = cause or (KvError.OVERFLOW if overflow.any() else KvError.NONE)
    marked = np.logical_or.accumulate(wrong)[:beats]
    place = np.arange(beats) % per_token
    return Expected(
        values=values.reshape(-1, lanes)[:beats],
        marked=marked,
        token_last=place == per_token - 1,
        channel=place * lanes,
        token=decoded.tokens[np.arange(beats) // per_token],
        lanes=np.minimum(lanes, header.channels - place * lanes),
        error=cause,
        header=header,
        centre=centre,
    )


def _whole_transforms(header, wrong, lanes):
    """A bad code spoils its whole transform: marks from the first beat that holds any of the segment on (section 8)."""
    wrong = wrong.copy()
    ends = (header.segment0, header.channels)
    for index, transform in enumerate((header.transform0, header.transform1)):
        if transform is not KvTransform.NONE:
            first = (0, header.segment0)[index] // lanes
            wrong[:, first] |= wrong[:, first : (ends[index] - 1) // lanes + 1].any(1)
    return wrong


def _whole_segments(header, overflow, decoded, order, lanes):
    """Where rfft segments overflow: from the first beat that holds any of the segment on (section 5)."""
    overflow = overflow.copy()
    for index, transform in enumerate((header.transform0, header.transform1)):
        if transform is KvTransform.RFFT:
            where = slice(0, header.segment0) if index == 0 else slice(header.segment0, None)
            spoiled = decoded.overflow[:, order[where]].any(1)
            overflow[:, (0 if index == 0 else header.segment0) // lanes] |= spoiled
    return overflow

"""Ways to spoil the core's input packets. A model says what must come of it (:func:`golden.core.job_model`)."""

from collections.abc import Callable

import numpy as np

from spec.datatypes import Datatype

__all__ = ["ACTIVATION_DEFECTS", "WEIGHT_DEFECTS", "reserved_code", "spoil"]

Packet = np.ndarray
ROW_HEADER, GROUP_HEADER = 0, 16
"""First bits of the first row header and the first group header in a channel's words."""


def _flip(packet: Packet, beat: int, channel: int, *bits: int) -> Packet:
    for bit in bits:
        packet[beat, channel] ^= np.uint64(1) << np.uint64(bit)
    return packet


def _channel(rng, packet: Packet) -> int:
    return int(rng.integers(packet.shape[1]))


def one_bit(rng, packet: Packet) -> Packet:
    """One bit anywhere."""
    return _flip(packet, int(rng.integers(len(packet))), _channel(rng, packet), int(rng.integers(64)))


def two_bits(rng, packet: Packet) -> Packet:
    """Two bits of a word, so that the parity still holds."""
    bits = rng.choice(64, 2, replace=False).tolist()
    return _flip(packet, int(rng.integers(len(packet))), _channel(rng, packet), *bits)


def channel_words(rng, packet: Packet) -> Packet:
    """A channel header with another number of words, its parity right."""
    channel, words = _channel(rng, packet), int(rng.choice([0, 1, rng.integers(1 << 16), rng.integers(40)]))
    value = int(packet[0, channel]) & 0xFFFFFFFF | words << 32
    packet[0, channel] = value | (value.bit_count() & 1) << 63
    return packet


def channel_reserved(rng, packet: Packet) -> Packet:
    """Two reserved bits of a channel header."""
    return _flip(packet, 0, _channel(rng, packet), *rng.choice(np.arange(48, 63), 2, replace=False).tolist())


def channel_scale(rng, packet: Packet) -> Packet:
    """Nothing wrong with the packet, but another channel scale: 0, tiny, huge, Inf or NaN."""
    channel = _channel(rng, packet)
    scale = rng.choice(np.array([0, -1, 1e-45, 1e-40, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32))
    value = int(packet[0, channel]) >> 32 << 32 & (1 << 63) - 1 | int(scale.view(np.uint32))
    packet[0, channel] = value | (value.bit_count() & 1) << 63
    return packet


def row_header(rng, packet: Packet) -> Packet:
    """Two bits of a row header: length or group size, its parity right."""
    if len(packet) < 2:
        return packet
    return _flip(packet, 1, _channel(rng, packet), *rng.choice(16, 2, replace=False).tolist())


def group_header(rng, packet: Packet) -> Packet:
    """Two bits of the first group's header: datatype, select, scale, short or parity."""
    if len(packet) < 2:
        return packet
    return _flip(packet, 1, _channel(rng, packet), *(16 + rng.choice(16, 2, replace=False)).tolist())


def reserved_code(rng, packet: Packet) -> Packet:
    """A code without a value, its parity right, where a channel's first group is ternary."""
    ternary = [
        c for c in range(packet.shape[1]) if len(packet) > 1 and int(packet[1, c]) >> 16 & 15 == Datatype.TERNARY
    ]
    if not ternary:
        return packet
    channel = int(rng.choice(ternary))
    word, place = int(packet[1, channel]), 32 + 2 * int(rng.integers(4))
    changed = word & ~(3 << place) | 2 << place
    packet[1, channel] = changed ^ ((changed ^ word).bit_count() & 1) << 31
    return packet


def cut(rng, packet: Packet) -> Packet:
    """An early TLAST."""
    return packet[: int(rng.integers(1, len(packet) + 1))]


def extend(rng, packet: Packet) -> Packet:
    """A late TLAST."""
    more = rng.integers(0, np.iinfo(packet.dtype).max, (int(rng.integers(1, 6)), packet.shape[1]), packet.dtype)
    return np.concatenate([packet, more])


def garbage(rng, packet: Packet) -> Packet:
    """Random bits, of a random length."""
    shape = int(rng.integers(1, 2 * len(packet) + 2)), packet.shape[1]
    return rng.integers(0, np.iinfo(packet.dtype).max, shape, packet.dtype, endpoint=True)


def swap_channels(_rng, packet: Packet) -> Packet:
    """Nothing wrong with it, but another order of channels."""
    return packet[:, ::-1].copy()


def non_finite(rng, packet: Packet) -> Packet:
    """An Inf or NaN in some lane, in use or not."""
    beat, lane = int(rng.integers(len(packet))), int(rng.integers(packet.shape[1]))
    packet[beat, lane] = rng.choice(np.array([0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF], np.uint16))
    return packet


WEIGHT_DEFECTS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        one_bit,
        two_bits,
        channel_words,
        channel_reserved,
        channel_scale,
        row_header,
        group_header,
        reserved_code,
        cut,
        extend,
        garbage,
        swap_channels,
    )
}
ACTIVATION_DEFECTS: dict[str, Callable] = {f.__name__: f for f in (cut, extend, non_finite, garbage)}


def spoil(rng, weights: list[Packet], activations: list[Packet]) -> list[str]:
    """Spoil 1 to 3 packets in place of the originals; returns ``stream.defect`` of each."""
    done = []
    for _ in range(int(rng.integers(1, 4))):
        stream, packets, defects = (
            ("weights", weights, WEIGHT_DEFECTS)
            if rng.random() < 0.6
            else ("activations", activations, ACTIVATION_DEFECTS)
        )
        name = str(rng.choice(list(defects)))
        index = int(rng.integers(len(packets)))
        packets[index] = defects[name](rng, packets[index].copy())
        done.append(f"{stream}.{name}")
    return done

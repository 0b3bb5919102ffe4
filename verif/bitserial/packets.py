"""Row packets for tests: random well-formed ones, every way to spoil one, and packets as stream beats."""

from collections.abc import Callable, Sequence

import numpy as np

from golden.weights import parse_row, row_packets
from spec.datatypes import Datatype
from verif.bitserial.typed import CODES
from verif.golden.weights_helpers import random_weight

__all__ = ["CORRUPTIONS", "corrupted", "random_packet", "random_packets", "word_beats"]

HEADER = {"datatype": (0, 4), "select": (4, 2), "scale": (6, 8), "short": (14, 1), "parity": (15, 1)}
"""Fields of a group header, typed from docs/weights.md: lowest bit and width."""
GROUP_SIZES = (32, 64, 128)


def random_packets(rng, rows: int, length: int, group_size: int, lanes: int, datatypes=tuple(Datatype), **options):
    """Well-formed packets of one length, datatypes mixed from group to group."""
    return row_packets(random_weight(rng, rows, length, group_size, datatypes, **options), lanes=lanes)


def random_packet(rng, lanes: int, longest: int = 300, **options) -> np.ndarray:
    """One well-formed packet of random length and group size: short rows, whole groups, and ends just beside them."""
    group_size = int(rng.choice(GROUP_SIZES))
    whole = group_size * int(rng.integers(1, max(2, longest // group_size + 1)))
    length = int(rng.choice([rng.integers(1, 12), whole, whole + rng.integers(-3, 4), rng.integers(1, longest)]))
    return random_packets(rng, 1, max(1, length), group_size, lanes, **options)[0]


def word_beats(packets: Sequence[np.ndarray]) -> np.ndarray:
    """Beats of a stream of WeightWord: 64 bits and ``last``, uint8 [words, 9]."""
    beats = np.zeros((sum(map(len, packets)), 9), np.uint8)
    if len(beats):
        beats[:, :8] = np.concatenate(packets).astype("<u8").view(np.uint8).reshape(-1, 8)
        beats[np.cumsum([len(packet) for packet in packets]) - 1, 8] = 1
    return beats


class Bits:
    """A packet as single bits, with the place of every group."""

    def __init__(self, words: np.ndarray, lanes: int):
        self.bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
        row = parse_row(words, lanes=lanes).check()
        self.length, self.group_size = row.length, row.group_size
        self.groups = []  # (first bit of the header, first bit past the codes, weights, bits per code)
        position = 16
        for group, field in enumerate(row.datatype.tolist()):
            count = min(row.group_size, row.length - group * row.group_size)
            width = CODES[field][1]
            end = position + 16 + -(-count // lanes) * lanes * width
            self.groups.append((position, end, count, width))
            position = end
        self.end = position

    def words(self) -> np.ndarray:
        return np.packbits(self.bits, bitorder="little").view("<u8").astype(np.uint64)

    def put(self, position: int, width: int, value: int) -> None:
        self.bits[position : position + width] = value >> np.arange(width) & 1

    def mend(self, group: int) -> None:
        """Make the group's parity even again."""
        begin, end = (0 if group == 0 else self.groups[group][0]), self.groups[group][1]
        position = self.groups[group][0] + HEADER["parity"][0]
        self.bits[position] ^= self.bits[begin:end].sum() & 1


def _group_of(bits: Bits, rng) -> int:
    return int(rng.choice([0, len(bits.groups) - 1, rng.integers(len(bits.groups))]))


def reserved_datatype(bits: Bits, rng):
    group = _group_of(bits, rng)
    bits.put(bits.groups[group][0], 4, int(rng.choice([0, 12, 13, 14, 15])))
    if rng.random() < 0.5:
        bits.mend(group)


def reserved_group_size(bits: Bits, rng):
    bits.put(14, 2, 3)


def parity_of_header(bits: Bits, rng):
    """A flip in select, scale or the parity bit: framing is untouched."""
    field = rng.choice(["select", "scale", "parity"])
    offset, width = HEADER[field]
    bits.bits[bits.groups[_group_of(bits, rng)][0] + offset + rng.integers(width)] ^= 1


def parity_of_codes(bits: Bits, rng):
    """A flip anywhere in the codes, padding codes included."""
    begin, end, _count, _width = bits.groups[_group_of(bits, rng)]
    bits.bits[rng.choice([begin + 16, end - 1, rng.integers(begin + 16, end)])] ^= 1


def wrong_short_flag(bits: Bits, rng):
    group = _group_of(bits, rng)
    bits.bits[bits.groups[group][0] + HEADER["short"][0]] ^= 1
    bits.mend(group)


def reserved_code(bits: Bits, rng):
    """A ternary 0b10 in use; a group becomes ternary for it if none is."""
    group = _group_of(bits, rng)
    begin, end, count, width = bits.groups[group]
    if width != 2:
        raise LookupError("the group's codes do not have the width of ternary ones")
    bits.put(begin, 4, 8)
    codes = bits.bits[begin + 16 : end].reshape(-1, 2)
    codes[(codes[:, 0] == 0) & (codes[:, 1] == 1)] = [1, 1]
    codes[rng.integers(count)] = [0, 1]
    bits.mend(group)


def truncated(bits: Bits, rng):
    words = len(bits.bits) // 64
    if words == 1:
        raise LookupError("a packet of one word cannot lose one")
    bits.bits = bits.bits[: 64 * int(rng.choice([1, words - 1, rng.integers(1, words)]))]


def too_long(bits: Bits, rng):
    bits.bits = np.append(bits.bits, rng.integers(0, 2, 64 * int(rng.integers(1, 5))).astype(np.uint8))


def wrong_length(bits: Bits, rng):
    """Another length in the row header."""
    bits.put(0, 14, int(rng.choice([bits.length, bits.length + 30, rng.integers(1 << 14)]) & (1 << 14) - 1))


def flips_anywhere(bits: Bits, rng):
    bits.bits[rng.integers(len(bits.bits), size=rng.integers(1, 4))] ^= 1


def noise(bits: Bits, rng):
    bits.bits = rng.integers(0, 2, 64 * int(rng.integers(1, 8))).astype(np.uint8)


def fill_bits(bits: Bits, rng):
    """Ones behind the last group: no error."""
    bits.bits[bits.end :] = rng.integers(0, 2, len(bits.bits) - bits.end)


def padding_codes(bits: Bits, rng):
    """Any padding codes, with the right parity: no error."""
    begin, end, count, width = bits.groups[-1]
    bits.bits[begin + 16 + count * width : end] = rng.integers(0, 2, end - begin - 16 - count * width)
    bits.mend(len(bits.groups) - 1)


CORRUPTIONS: dict[str, Callable] = {
    function.__name__: function
    for function in (
        reserved_datatype,
        reserved_group_size,
        parity_of_header,
        parity_of_codes,
        wrong_short_flag,
        reserved_code,
        truncated,
        too_long,
        wrong_length,
        flips_anywhere,
        noise,
        fill_bits,
        padding_codes,
    )
}


def corrupted(rng, words: np.ndarray, kind: str, lanes: int) -> np.ndarray:
    """A spoiled copy of a well-formed packet. Raises LookupError where this packet cannot be spoiled that way."""
    bits = Bits(words, lanes)
    CORRUPTIONS[kind](bits, rng)
    return bits.words()

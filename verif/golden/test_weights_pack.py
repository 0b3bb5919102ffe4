"""Row packets: hand-worked bytes, round trips, and what is said about packets that are not well formed."""

import numpy as np
import pytest
import torch

from golden.weights import PacketError, QuantizedWeight, pack, parse_row, quantize, row_packets, unpack, unpack_rows
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from spec.errors import WeightError
from verif.golden.weights_helpers import VECTORS, random_weight, same, vector_weight, vector_words
from verif.spec.test_datatypes import VALUES


@pytest.fixture(params=VECTORS, ids=[vector["name"] for vector in VECTORS])
def vector(request):
    return request.param


def test_vectors_cover_every_datatype():
    assert {group["datatype"] for vector in VECTORS for group in vector["groups"]} == {d.name for d in Datatype}


def test_packer_meets_the_vector(vector):
    (packet,) = row_packets(vector_weight(vector), lanes=vector["lanes"])
    assert packet.astype("<u8").tobytes().hex() == bytes.fromhex(vector["hex"]).hex()


def test_unpacker_meets_the_vector(vector):
    weight = unpack_rows([vector_words(vector)], lanes=vector["lanes"])
    assert same(weight, vector_weight(vector))
    assert weight.integers()[0].tolist() == [value for group in vector["groups"] for value in group["values"]]


def test_values_of_the_vectors_follow_the_tables(vector):
    specials = {"FP3": (3, -3, 6, -6), "FP4": (10, -10, 16, -16)}
    for group in vector["groups"]:
        table = VALUES[group["datatype"]]
        special = specials.get(group["datatype"], (None,) * 4)[group["select"]]
        assert group["values"] == [special if table[code] == "special" else table[code] for code in group["codes"]]


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_round_trip_of_mixed_datatypes(rng, lanes, group_size):
    for length in (1, 7, group_size, group_size + 1, 3 * group_size - 5, 576):
        weight = random_weight(rng, 5, length, group_size)
        packed = pack(weight, lanes=lanes)
        assert same(unpack(packed), weight)
        for row in range(5):
            assert len(packed.row(row)) == expected_words(weight, row, lanes)


def expected_words(weight: QuantizedWeight, row: int, lanes: int) -> int:
    bits = 16
    for group in range(weight.groups):
        count = min(weight.group_size, weight.shape[1] - group * weight.group_size)
        bits += 16 + -(-count // lanes) * lanes * Datatype(int(weight.datatype[row, group])).bits
    return -(-bits // 64)


def test_packing_does_not_depend_on_the_chunks(rng, monkeypatch):
    weight = random_weight(rng, 7, 100, 32)
    whole = row_packets(weight)
    monkeypatch.setattr("golden.weights.packing._CHUNK", 200)
    assert all(np.array_equal(a, b) for a, b in zip(row_packets(weight), whole, strict=True))


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
def test_effective_bits(datatype):
    """b + 16/G per weight, and per row 16 bits of header, 32 of channel scale and less than a word of fill."""
    packed = pack(quantize(torch.randn(4, 4096, generator=torch.Generator().manual_seed(1)), datatype))
    least = datatype.bits + 16 / 128 + (16 + 32) / 4096
    assert least <= packed.effective_bits() < least + 64 / 4096


def test_every_single_flipped_bit_is_seen(rng):
    """Parity covers headers and codes; the fill of the last word is not covered and changes nothing."""
    weight = random_weight(rng, 1, 45, 32)
    (packet,) = row_packets(weight)
    groups = [Datatype(int(field)) for field in weight.datatype[0, :2]]
    used = 16 + 16 + 32 * groups[0].bits + 16 + 16 * groups[1].bits
    for bit in range(64 * len(packet)):
        damaged = packet.copy()
        damaged[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        assert bool(parse_row(damaged).flags) == (bit < used), bit


def test_parity_error_does_not_spread_to_the_next_group():
    codes = torch.zeros(1, 96, dtype=torch.uint8)
    (packet,) = row_packets(QuantizedWeight.from_codes(Datatype.FP4, codes, group_size=32))
    for position, group in ((32, 0), (176, 1), (32 + 2 * 144, 2)):
        damaged = packet.copy()
        damaged[position // 64] ^= np.uint64(1) << np.uint64(position % 64)
        assert [message for _, message in parse_row(damaged).problems] == [f"parity of group {group} (FP4) is odd"]


def header_of(packet: np.ndarray, group_header: int) -> np.ndarray:
    """Replace the first group header of a packet."""
    changed = packet.copy()
    mask = np.uint64(0xFFFF0000)
    changed[0] = (changed[0] & ~mask) | np.uint64(group_header << 16)
    return changed


FP3_ROW = np.array([0x000061E1E7270004], dtype=np.uint64)


@pytest.mark.parametrize(
    ("words", "flag", "message"),
    [
        (FP3_ROW ^ np.uint64(1 << 31), WeightError.PARITY, r"parity of group 0 \(FP3\) is odd"),
        (FP3_ROW ^ np.uint64(0xC000), WeightError.RESERVED_HEADER, "group size code 3 is reserved"),
        (header_of(FP3_ROW, 0xE720), WeightError.RESERVED_HEADER, "datatype 0 of group 0 is reserved"),
        (header_of(FP3_ROW, 0xE72C), WeightError.RESERVED_HEADER, "datatype 12 of group 0 is reserved"),
        (header_of(FP3_ROW, 0xE72F), WeightError.RESERVED_HEADER, "datatype 15 of group 0 is reserved"),
        (header_of(FP3_ROW, 0x2727), WeightError.WEIGHT_LENGTH, "short flag of group 0 is 0, with 5 weights"),
        (np.append(FP3_ROW, np.uint64(0)), WeightError.WEIGHT_LENGTH, "packet has 2 words, its 5 weights take 1"),
        (FP3_ROW | np.uint64(0x1F), WeightError.WEIGHT_LENGTH, "packet of 1 words ends within group 0"),
        (np.array([0x000240480000], np.uint64), WeightError.RESERVED_CODE, "code 2 of input channel 0 .*TERNARY"),
    ],
)
def test_packets_that_are_not_well_formed(words, flag, message):
    row = parse_row(words)
    assert flag in row.flags
    with pytest.raises(PacketError, match="row 0: .*" + message) as caught:
        unpack_rows([words])
    assert flag in caught.value.flags


def test_packet_that_ends_before_a_group():
    (packet,) = row_packets(
        QuantizedWeight.from_codes(Datatype.BINARY, torch.zeros(1, 40, dtype=torch.uint8), group_size=32)
    )
    with pytest.raises(PacketError, match="row 0: packet of 1 words ends before group 1"):
        unpack_rows([packet[:1]])


def test_padding_codes_count_for_parity_only():
    """A padding code 0b10 of a ternary group has no value, and needs none."""
    codes = torch.tensor([[1]], dtype=torch.uint8)
    (packet,) = row_packets(QuantizedWeight.from_codes(Datatype.TERNARY, codes, group_size=32))
    padded = packet ^ np.uint64(0b1000 << 32)
    assert parse_row(padded).flags == WeightError.PARITY
    assert parse_row(padded ^ np.uint64(1 << 31)).flags == WeightError(0)


def test_rows_must_agree(rng):
    rows = row_packets(random_weight(rng, 1, 40, 32)) + row_packets(random_weight(rng, 1, 41, 32))
    with pytest.raises(PacketError, match="row 1 has 41 weights in groups of 32, row 0 has 40"):
        unpack_rows(rows)


def test_bad_parameters(rng):
    weight = random_weight(rng, 1, 40, 32)
    with pytest.raises(ValueError, match=r"lanes must be one of 2, 4, 8, 16, 32, not 5"):
        pack(weight, lanes=5)
    with pytest.raises(ValueError, match=r"lanes must be one of 2, 4, 8, 16, 32, not 3"):
        parse_row(FP3_ROW, lanes=3)
    with pytest.raises(TypeError, match="words must be a non-empty uint64 vector, not int64"):
        parse_row(FP3_ROW.astype(np.int64))
    with pytest.raises(TypeError, match="words must be a non-empty uint64 vector"):
        parse_row(FP3_ROW[:0])
    with pytest.raises(ValueError, match="packets must hold at least one packet"):
        unpack_rows([])

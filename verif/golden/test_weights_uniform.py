"""Rows parsed all at once, against the same rows parsed one by one."""

import numpy as np
import pytest

from golden.weights import pack, parse_row, row_packets, unpack, unpack_rows
from golden.weights.uniform import parse_uniform
from spec.datatypes import Datatype
from verif.golden.weights_helpers import VECTORS, random_weight, same, vector_words


def stacked(rng, rows, length, group_size, lanes, datatypes):
    """One random weight whose rows share their structure, and its packets as uint64 [rows, words]."""
    weight = random_weight(rng, rows, length, group_size, datatypes)
    return weight, np.stack(row_packets(weight, lanes=lanes))


@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("datatype", Datatype, ids=lambda d: d.name)
def test_agrees_with_row_by_row(rng, datatype, group_size, lanes):
    for length in (1, 3, group_size, group_size + 7, 3 * group_size - 1):
        weight, words = stacked(rng, 4, length, group_size, lanes, [datatype])
        parsed = parse_uniform(words, lanes=lanes)
        assert (parsed.length, parsed.group_size) == (length, group_size)
        for index, packet in enumerate(words):
            row = parse_row(packet, lanes=lanes).check()
            for name in ("datatype", "select", "scale8", "codes"):
                assert np.array_equal(getattr(parsed, name)[index], getattr(row, name)), name
        assert np.array_equal(parsed.codes, weight.codes.numpy())


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_meets_the_vector(vector):
    parsed = parse_uniform(vector_words(vector)[None].repeat(3, axis=0), lanes=vector["lanes"])
    assert parsed.codes.tolist() == 3 * [[code for group in vector["groups"] for code in group["codes"]]]
    assert parsed.scale8.tolist() == 3 * [[group["scale8"] for group in vector["groups"]]]
    assert parsed.select.tolist() == 3 * [[group["select"] for group in vector["groups"]]]
    assert parsed.datatype.tolist() == 3 * [[Datatype[group["datatype"]] for group in vector["groups"]]]


@pytest.mark.parametrize("datatype", [Datatype.FP3, Datatype.TERNARY], ids=lambda d: d.name)
def test_refuses_what_the_row_parser_refuses(rng, datatype):
    """Every single flipped bit of the second of three rows; two flips keep the parity and reach the other checks."""
    _, words = stacked(rng, 3, 45, 32, 2, [datatype])  # ends within an octet: 14 codes in the short group
    total = 64 * words.shape[1]
    second = rng.integers(0, total, total)
    refused = 0
    for flips in [[bit] for bit in range(total)] + [[bit, int(second[bit])] for bit in range(total)]:
        damaged = words.copy()
        for bit in flips:
            damaged[1, bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
        row = parse_row(damaged[1], lanes=2)
        whole = not row.flags and row.length == 45 and row.group_size == 32 and set(row.datatype) == {datatype}
        parsed = parse_uniform(damaged, lanes=2)
        assert (parsed is not None) == whole, flips
        refused += parsed is None
        if whole:
            assert np.array_equal(parsed.codes[1], row.codes)
    assert 0 < refused < 2 * total


def test_damage_anywhere_is_reported_by_row_and_group(rng):
    _, words = stacked(rng, 5, 100, 32, 4, [Datatype.INT4])
    words[3, -1] ^= np.uint64(1 << 18)  # a code of the last, short group
    with pytest.raises(ValueError, match=r"row 3: parity of group 3 \(INT4\) is odd"):
        unpack_rows(list(words))


@pytest.mark.parametrize("datatype", Datatype, ids=lambda d: d.name)
def test_rows_that_all_end_too_early_or_too_late(rng, datatype):
    _, words = stacked(rng, 3, 300, 128, 4, [datatype])
    for count in [*range(1, words.shape[1]), words.shape[1] + 1]:
        cut = np.pad(words, ((0, 0), (0, 1)))[:, :count]
        assert parse_uniform(cut, lanes=4) is None
        with pytest.raises(ValueError, match=r"row 0: packet (of|has) "):
            unpack_rows(list(cut))


def test_uniform_rows_are_not_parsed_one_by_one(rng, monkeypatch):
    weight = random_weight(rng, 6, 200, 64, [Datatype.FP4])
    packed = pack(weight)

    def refuse(*_args, **_kwargs):
        raise AssertionError("parsed row by row")

    monkeypatch.setattr("golden.weights.unpacking.parse_row", refuse)
    assert same(unpack(packed), weight)
    with pytest.raises(AssertionError, match="parsed row by row"):
        unpack(pack(random_weight(rng, 6, 200, 64)))


@pytest.mark.parametrize("rows_at_once", [1, 2, 4, 100])
def test_result_does_not_depend_on_the_chunks(rng, monkeypatch, rows_at_once):
    weight = random_weight(rng, 7, 100, 32, [Datatype.INT6])
    monkeypatch.setattr("golden.weights.uniform._CHUNK", 100 * rows_at_once)
    assert same(unpack(pack(weight)), weight)


def test_rows_of_one_size_and_different_datatypes(rng):
    """FP4 and INT4 codes are equally wide, so only the headers tell the rows apart."""
    weight = random_weight(rng, 40, 64, 32, [Datatype.FP4, Datatype.INT4])
    assert len({len(packet) for packet in row_packets(weight)}) == 1
    assert same(unpack(pack(weight)), weight)

"""Packed weight files: round trip, versions, damage, and no partial file."""

import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from golden.weights import (
    PackedPlan,
    PackedReader,
    PackedWriter,
    WeightFileError,
    load_packed,
    pack,
    save_packed,
    unpack,
)
from golden.weights.files import FORMAT
from spec.datatypes import Datatype
from verif.golden.weights_helpers import random_weight, same


@pytest.fixture
def weights(rng):
    specials = {Datatype.FP3: (5, -5, 6, -6)}
    return {
        "blocks.0.q": random_weight(rng, 6, 100, 32, special_values=specials),
        "blocks.0.k": random_weight(rng, 3, 576, 128),
    }


@pytest.fixture
def path(tmp_path, weights):
    path = tmp_path / "weights.safetensors"
    save_packed(path, {name: pack(weight, lanes=8) for name, weight in weights.items()})
    return path


def rewrite(path, **metadata):
    """Write the file again with some metadata changed."""
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(arrays, path, file.metadata() | metadata)


def test_round_trip(path, weights):
    loaded = load_packed(path)
    assert set(loaded) == set(weights)
    for name, weight in weights.items():
        assert same(unpack(loaded[name]), weight)
        assert loaded[name].lanes == 8
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT
    assert metadata["version"] == "1.0"
    assert metadata["generator"].startswith("bitmosaic")
    assert len(metadata["payload_sha256"]) == 64


def test_writing_is_deterministic(tmp_path, path, weights):
    again = tmp_path / "again.safetensors"
    save_packed(again, {name: pack(weight, lanes=8) for name, weight in weights.items()})
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
def test_truncated(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightFileError, match=r"weights\.safetensors is truncated or not a safetensors file"):
        load_packed(path)


def test_every_damaged_byte_is_seen(path, rng):
    data = path.read_bytes()
    for position in [*range(8), *rng.integers(8, len(data), 150)]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = load_packed(path)
        except WeightFileError:
            continue
        # Only the generator's name in the metadata is not vouched for.
        path.write_bytes(data)
        original = load_packed(path)
        assert all(np.array_equal(loaded[name].words, original[name].words) for name in original)


def test_newer_minor_version_is_read_and_newer_major_version_refused(path):
    rewrite(path, version="1.7")
    assert load_packed(path)
    rewrite(path, version="2.0", generator="bitmosaic 9")
    with pytest.raises(
        WeightFileError, match=r"has version '2\.0' \(written by 'bitmosaic 9'\); this reader knows 1\.x only"
    ):
        load_packed(path)


@pytest.mark.parametrize("version", ["", "x", "-1.0", "0.9"])
def test_nonsense_versions(path, version):
    rewrite(path, version=version)
    with pytest.raises(WeightFileError, match="has version"):
        load_packed(path)


def test_other_formats(path, tmp_path):
    rewrite(path, format="other")
    with pytest.raises(WeightFileError, match=r"has format 'other', not 'bitmosaic\.weights'"):
        load_packed(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(WeightFileError, match="has format None"):
        load_packed(path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_packed(tmp_path / "nothing")


def test_changed_description_is_damage(path):
    with safe_open(path, framework="numpy") as file:
        text = json.loads(file.metadata()["weights"])
    text["blocks.0.q"]["lanes"] = 4
    rewrite(path, weights=json.dumps(text, sort_keys=True))
    with pytest.raises(WeightFileError, match="is damaged"):
        load_packed(path)


def test_consistent_hash_of_inconsistent_offsets(tmp_path, weights):
    packed = pack(weights["blocks.0.q"])
    broken = dataclasses.replace(packed, offsets=packed.offsets[:-1])
    save_packed(tmp_path / "broken", {"w": broken})
    with pytest.raises(WeightFileError, match=r"w\.offsets do not divide \d+ words into 6 rows"):
        load_packed(tmp_path / "broken")


def test_failed_write_leaves_the_old_file_alone(path, weights, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_packed(path, {"w": pack(weights["blocks.0.k"])})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.fixture
def packed(weights):
    return {name: pack(weight) for name, weight in weights.items()}


def test_tensors_may_come_in_any_order(tmp_path, packed):
    save_packed(tmp_path / "expected", packed)
    with PackedWriter(tmp_path / "any", {name: one.plan() for name, one in packed.items()}) as writer:
        for name in reversed(packed):
            writer.add(name, packed[name])
            assert not (tmp_path / "any").exists()
    assert (tmp_path / "any").read_bytes() == (tmp_path / "expected").read_bytes()


def test_complete_before_it_has_its_name(tmp_path, packed):
    with PackedWriter(tmp_path / "out", {name: one.plan() for name, one in packed.items()}) as writer:
        for name, one in packed.items():
            writer.add(name, one)
        stated = writer.finish()
        assert load_packed(writer.temporary).keys() == packed.keys()
        assert not (tmp_path / "out").exists()
    with safe_open(tmp_path / "out", framework="numpy") as file:
        assert file.metadata()["payload_sha256"] == stated


def test_hashes_are_those_of_the_docs(path):
    """Section 8 of docs/weights.md, computed from the library's view of the file."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        for name, entry in json.loads(metadata["weights"]).items():
            digest = hashlib.sha256()
            for part, dtype in (("words", "<u8"), ("offsets", "<i8"), ("channel_scale", "<f4")):
                array = file.get_tensor(f"{name}.{part}")
                digest.update(f"{part} {dtype} {len(array)}:".encode() + array.astype(dtype).tobytes())
            assert entry["sha256"] == digest.hexdigest()
    assert metadata["payload_sha256"] == hashlib.sha256(metadata["weights"].encode()).hexdigest()


def test_wide_arrays_are_aligned(tmp_path, rng):
    """Three channel scales take 12 bytes: they must not push 8-byte words off their boundary."""
    save_packed(tmp_path / "out", {name: pack(random_weight(rng, 3, 40, 32)) for name in "ab"})
    data = (tmp_path / "out").read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert header % 8 == 0
    for name, entry in json.loads(data[8 : 8 + header]).items():
        if name.endswith((".words", ".offsets")):
            assert entry["data_offsets"][0] % 8 == 0


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("lanes", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("datatype", Datatype, ids=lambda d: d.name)
def test_plan_foretells_the_packer(rng, datatype, lanes, group_size):
    for length in (1, 45, 128, 300):
        packed = pack(random_weight(rng, 3, length, group_size, [datatype]), lanes=lanes)
        plan = PackedPlan.uniform((3, length), datatype, group_size=group_size, lanes=lanes)
        assert plan == packed.plan()
        assert plan.size == packed.words.nbytes + packed.channel_scale.nbytes


def test_writer_refuses_what_was_not_planned(tmp_path, packed):
    (first, one), (second, other) = packed.items()

    def write(plans, *added):
        with PackedWriter(tmp_path / "out", plans) as writer:
            for name, tensor in added:
                writer.add(name, tensor)

    with pytest.raises(ValueError, match=r"is PackedPlan\(shape=\(6, 100\).*and was planned as PackedPlan\(shape=\(3"):
        write({first: other.plan()}, (first, one))
    for name in (second, first):
        with pytest.raises(ValueError, match="name must be one that was planned and not yet added, not 'blocks"):
            write({first: one.plan()}, (first, one), (name, one))
    with pytest.raises(ValueError, match=r"1 planned tensors were not added, the first is 'blocks\.0\.k'"):
        write({first: one.plan(), second: other.plan()}, (first, one))
    assert list(tmp_path.iterdir()) == []


def test_damage_to_one_tensor_leaves_the_others(path, weights):
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    begin = json.loads(data[8 : 8 + header])["blocks.0.q.words"]["data_offsets"][0]
    damaged = bytearray(data)
    damaged[8 + header + begin] ^= 1
    path.write_bytes(damaged)
    reader = PackedReader(path)
    assert same(unpack(reader.load("blocks.0.k")), weights["blocks.0.k"])
    with pytest.raises(WeightFileError, match=r"is damaged: blocks\.0\.q does not have the SHA-256"):
        reader.load("blocks.0.q")


def test_files_follow_the_umask(tmp_path, packed):
    old = os.umask(0o022)
    try:
        save_packed(tmp_path / "out", packed)
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o644

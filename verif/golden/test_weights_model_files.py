"""Model files: what is listed, what is read, and what is said about files that are damaged."""

import json
import struct

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

from golden.weights.gguf_header import gguf_tensors
from golden.weights.model_files import ModelFileError, open_model


@pytest.fixture
def gguf(tmp_path, rng):
    """A small GGUF file with metadata of every kind, and its tensors in float32."""
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_string("some.text", "ä text")
    writer.add_bool("some.flag", True)
    writer.add_float64("some.double", 0.5)
    writer.add_uint16("some.short", 7)
    writer.add_array("some.words", ["one", "", "three" * 100])
    writer.add_array("some.numbers", [1, 2, 3])
    expected = {}
    for name, shape, kind in (
        ("blk.0.attn_q.weight", (6, 64), GGMLQuantizationType.Q8_0),
        ("blk.0.attn_norm.weight", (64,), GGMLQuantizationType.F32),
        ("blk.0.ffn_up.weight", (5, 100), GGMLQuantizationType.F32),
        ("blk.0.ffn_down.weight", (4, 32), GGMLQuantizationType.F16),
        ("blk.0.ffn_gate.weight", (4, 32), GGMLQuantizationType.BF16),
        ("blk.0.exps.weight", (2, 3, 32), GGMLQuantizationType.Q4_1),
    ):
        data = quantize(rng.standard_normal(shape).astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[name] = dequantize(data, kind)
    writer.add_tensor("ids", np.arange(4, dtype=np.int32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, expected


def agrees_with_the_package(path) -> None:
    theirs = {
        tensor.name: (
            tuple(reversed(tensor.shape.tolist())),
            tensor.tensor_type,
            int(tensor.data_offset),
            int(tensor.n_bytes),
        )
        for tensor in GGUFReader(path).tensors
    }
    ours = {name: (one.shape, one.kind, one.offset, one.size) for name, one in gguf_tensors(path).items()}
    assert list(ours.items()) == list(theirs.items())


def matrices(tensors) -> dict:
    """Stacks of experts taken apart."""
    apart = {}
    for name, values in tensors.items():
        stack = {name.replace(".weight", f".{n}.weight"): one for n, one in enumerate(values)}
        apart |= stack if values.ndim == 3 else {name: values}
    return apart


def test_gguf_tensors(gguf):
    path, expected = gguf
    agrees_with_the_package(path)
    model = open_model(path)
    assert list(model.tensors) == [*matrices(expected), "ids"]
    assert model.tensors["blk.0.attn_q.weight"].shape == (6, 64)
    assert model.tensors["blk.0.attn_q.weight"].dtype == "Q8_0"
    for name, values in matrices(expected).items():
        read = model.read(name)
        assert read.dtype == torch.float32
        assert np.array_equal(read.numpy(), values), name
    with pytest.raises(ModelFileError, match=r"ids in .*model\.gguf is I32, a format that"):
        model.read("ids")


def test_gguf_kind_is_known_by_its_first_bytes(gguf):
    path, expected = gguf
    assert set(open_model(path.rename(path.with_name("model"))).tensors) == {*matrices(expected), "ids"}


def test_gguf_of_the_checkpoint():
    checkpoint = pytest.importorskip("golden.llm.checkpoint")
    try:
        path = checkpoint.checkpoint_path()
    except checkpoint.CheckpointNotFoundError as error:
        pytest.skip(str(error))
    model = open_model(path)
    matrices = {one.shape for one in model.tensors.values() if len(one.shape) == 2}
    assert matrices == set(checkpoint.layer_shapes().values())
    for ours, theirs in (("blk.7.ffn_up", "model.layers.7.mlp.up_proj"), ("token_embd", "lm_head")):
        assert torch.equal(model.read(f"{ours}.weight"), checkpoint.layer_weight(theirs))


def test_truncated_gguf(gguf, rng):
    path, _ = gguf
    data = path.read_bytes()
    for length in [4, 8, 23, *rng.integers(24, len(data), 60).tolist(), len(data) - 64]:
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"model\.gguf is damaged or not a GGUF file"):
            open_model(path)


def test_damaged_gguf_is_an_error_or_a_file(gguf, rng):
    """No damage to the header ends in another exception, or asks for memory that the file does not have."""
    path, _ = gguf
    data = path.read_bytes()
    refused = 0
    for _ in range(600):
        damaged = bytearray(data)
        for position in rng.integers(4, 1500, 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_model(path)
        except ModelFileError:
            refused += 1
    assert 100 < refused < 600


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (4, 4, r"version 4; known is GGUF of versions \(2, 3\)"),
        (5, 255, "version 65283"),
        (8, 255, "is damaged or not a GGUF file"),
        (23, 255, "cut short or nonsense"),
    ],
)
def test_gguf_that_is_not_known(gguf, position, value, message):
    path, _ = gguf
    data = bytearray(path.read_bytes())
    data[position] = value
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        open_model(path)


@pytest.fixture
def tensors(rng):
    normal = torch.from_numpy(rng.standard_normal((4, 32)).astype(np.float32))
    return {
        "a": normal,
        "b": normal.half(),
        "c": normal.bfloat16(),
        "d": normal[0].clone(),
        "e": normal.double(),
        "f": normal.to(torch.int8),
    }


def test_safetensors(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    model = open_model(path)
    assert {name: (one.shape, one.dtype) for name, one in model.tensors.items()} == {
        "a": ((4, 32), "F32"),
        "b": ((4, 32), "F16"),
        "c": ((4, 32), "BF16"),
        "d": ((32,), "F32"),
        "e": ((4, 32), "F64"),
        "f": ((4, 32), "I8"),
    }
    for name in "abcd":
        read = model.read(name)
        assert read.dtype == tensors[name].dtype
        assert torch.equal(read, tensors[name])
    for name, dtype in (("e", "F64"), ("f", "I8")):
        with pytest.raises(ModelFileError, match=f"{name} in .* must be one of F32, F16, BF16, not {dtype}"):
            model.read(name)


def test_what_was_read_does_not_hold_the_file(tensors, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    read = open_model(path).read("a")
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(read, tensors["a"])


def test_files_that_are_no_models(tmp_path, tensors):
    with pytest.raises(FileNotFoundError, match=r"no model file at .*absent"):
        open_model(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"must hold one model file or one .*index\.json, and holds no"):
        open_model(tmp_path)
    path = tmp_path / "model.bin"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelFileError, match=r"model\.bin must be a \.safetensors or a \.gguf file, and is neither"):
        open_model(path)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    for length in (0, 3, 100, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(ModelFileError, match=r"model\.safetensors is truncated or not a safetensors file"):
            open_model(path)
        save_file(tensors, path)


def sharded(directory, tensors):
    directory.mkdir()
    names = {name: f"model-{number:05}-of-00002.safetensors" for name, number in zip("abc", (1, 2, 2), strict=True)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in names if names[name] == file}, directory / file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    return index


def test_shards(tensors, tmp_path):
    index = sharded(tmp_path / "m", tensors)
    for path in (index, index.parent):
        model = open_model(path)
        assert list(model.tensors) == ["a", "b", "c"]
        assert [path.name[6:11] for path in model.paths] == ["00001", "00002"]
        for name in "abc":
            assert torch.equal(model.read(name), tensors[name])
    (tmp_path / "single").mkdir()
    save_file(tensors, tmp_path / "single" / "model.safetensors")
    assert list(open_model(tmp_path / "single").tensors) == list("abcdef")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be JSON with a weight_map from tensor to file"),
        ("[" * 100_000, "must be JSON with a weight_map"),
        ("\xff", "must be JSON with a weight_map"),
        ("{}", "must be JSON with a weight_map"),
        ('{"weight_map": ["a"]}', "must be JSON with a weight_map"),
        ('{"weight_map": {"a": "../a.safetensors"}}', r"names the shard '\.\./a\.safetensors', which is no"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "names the shard '/etc/passwd', which is no"),
        ('{"weight_map": {"a": 7}}', "names the shard '7', which is no"),
        ('{"weight_map": {"a": "absent.safetensors"}}', r"no shard at .*absent\.safetensors"),
        ('{"weight_map": {"x": "model-00001-of-00002.safetensors"}}', "lists x in .*, which does not hold it"),
    ],
)
def test_indices_that_lie(tensors, tmp_path, text, message):
    index = sharded(tmp_path / "m", tensors)
    index.write_text(text, encoding="latin-1")
    with pytest.raises((ModelFileError, FileNotFoundError), match=message):
        open_model(index)


def small_gguf(path, *tensors, version=3, order="<"):
    """Tensors [4, 64] of (name, format), each of the same 1024 bytes."""
    header = b"GGUF" + struct.pack(order + "IQQ", version, len(tensors), 0)
    for name, kind in tensors:
        header += struct.pack(order + "Q", len(name)) + name + struct.pack(order + "IQQIQ", 2, 64, 4, kind, 0)
    path.write_bytes(header + bytes(-len(header) % 32) + np.ones((4, 64), "f4").tobytes())
    return path


def test_gguf_of_other_makers(tmp_path):
    """A format that is not known hinders only who wants that tensor; names need not be text."""
    path = tmp_path / "x.gguf"
    model = open_model(small_gguf(path, (b"a.weight", 0), (b"new.weight", 137), (b"\xff", 0), (b"\xfe", 0)))
    assert list(model.tensors) == ["a.weight", "new.weight", "\\xff", "\\xfe"]
    assert bool((model.read("a.weight") == 1).all())
    with pytest.raises(ModelFileError, match=r"new\.weight in .* is type 137, a format that .* does not know"):
        model.read("new.weight")
    with pytest.raises(ModelFileError, match=r"two of its tensors are called a\.weight"):
        open_model(small_gguf(path, (b"a.weight", 0), (b"a.weight", 0)))
    with pytest.raises(ModelFileError, match="is big-endian, and only little-endian files can be read"):
        open_model(small_gguf(path, (b"a.weight", 0), order=">"))


def test_gguf_shards_are_taken_together(tmp_path):
    """One of them alone would be part of a model in silence."""
    paths = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path, name in zip(paths, (b"a", b"b"), strict=True):
        small_gguf(path, (name, 0))
    assert list(open_model(paths[1]).tensors) == ["a", "b"]
    paths[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"no shard at .*m-00001-of-00002"):
        open_model(paths[1])

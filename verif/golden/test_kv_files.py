"""Packed caches: whole prefills to packets and files and back; damaged files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import safe_open

from golden.kv.bits import bits_table, cache_bits, effective_bits
from golden.kv.cache import LayerCache
from golden.kv.config import PRESETS, KeyFormat, preset
from golden.kv.engine_model import decode
from golden.kv.files import CacheFileError, Dump, load_cache, load_dump, save_cache, save_dump
from golden.kv.packed import pack_cache

LAYERS, HEADS, TOKENS, DIM = 2, 2, 500, 64


@pytest.fixture(scope="module")
def kv():
    generator = torch.Generator().manual_seed(11)
    spread = torch.exp(torch.randn(LAYERS, HEADS, 1, DIM, generator=generator))
    k = torch.randn(LAYERS, HEADS, TOKENS, DIM, generator=generator) * spread
    return k.half(), (torch.randn(LAYERS, HEADS, TOKENS, DIM, generator=generator) * 0.1).half()


@pytest.fixture(scope="module")
def mask():
    return torch.rand(TOKENS, generator=torch.Generator().manual_seed(12)) < 0.2


@pytest.mark.parametrize("name", ["default", "kivi", "vidkv", "vidkv-stp", "keys-ternary", "keys-s2-rfft"])
def test_every_token_is_packed_or_exact_and_comes_back(kv, mask, name, tmp_path):
    fmt = preset(name)
    protected = mask if fmt.value.protected else None
    packed = pack_cache(*kv, fmt, protected=protected)
    save_cache(tmp_path / "cache.safetensors", packed)
    loaded = load_cache(tmp_path / "cache.safetensors")
    assert loaded.fmt == fmt
    for layer in range(LAYERS):
        cache = LayerCache(fmt)
        cache.prefill(kv[0][layer], kv[1][layer], protected)
        expected = cache.read()
        for kind, x, want, centre in (
            ("key", kv[0], expected[0], cache.plan.centre),
            ("value", kv[1], expected[1], None),
        ):
            for head in range(HEADS):
                got = np.full((TOKENS, DIM), np.nan)
                for block_layer, block_head, block in loaded.blocks(kind):
                    if (block_layer, block_head) == (layer, head):
                        assert np.isnan(got[block.tokens]).all()
                        got[block.tokens] = decode(block).values
                        if centre is not None:
                            got[block.tokens] += centre[head].numpy()
                got[:16] = loaded.exact[f"sinks_{kind}s"][layer, head]
                got[loaded.exact[f"residual_{kind}_tokens"]] = loaded.exact[f"residual_{kind}s"][layer, head]
                assert not np.isnan(got).any()
                error = np.abs(got - want[head].numpy().astype(float))
                assert error.max() < 0.01 * np.abs(x[layer, head].numpy()).max()
                newest = slice(TOKENS - 128, TOKENS)
                assert np.array_equal(got[newest], x[layer, head, newest].numpy())


def test_int8_residual_is_written_with_its_scales(kv):
    packed = pack_cache(*kv, preset("default"), residual="int8")
    codes, scale = packed.exact["residual_keys"], packed.exact["residual_keys_scale"]
    assert codes.dtype == np.int8
    assert scale.dtype == np.float16
    assert scale.shape == codes.shape[:3]
    tokens = packed.exact["residual_key_tokens"]
    error = np.abs(codes * scale[..., None].astype(float) - kv[0].numpy()[:, :, tokens])
    assert (error <= scale[..., None].astype(float) * 0.57).all()


def test_measured_bits_are_the_formats_bits(kv):
    """On whole groups the stored bytes divided by the elements are `effective_bits`, by hand too for the default."""
    fmt = replace(preset("default"), sinks=0)
    packed = pack_cache(*(x[:, :, :384] for x in kv), fmt)
    header, mask_bytes, metadata = 8, 8, 64 * 6 // 8
    key_bytes = header + mask_bytes + metadata + 128 * (32 * 2 + 32) // 8
    value_bytes = header + metadata + -(-128 * 64 // 5)
    by_hand = tuple(-(-size // 16) * 16 * 8 / (128 * 64) for size in (key_bytes, value_bytes))
    assert effective_bits(fmt, DIM) == pytest.approx(by_hand, abs=1e-12)
    assert packed.effective_bits == pytest.approx(by_hand, abs=1e-12)


def test_bits_of_released_and_unquantized_formats():
    assert effective_bits(PRESETS["vidkv-released"], 128) == (3.5, 3.0)
    assert effective_bits(PRESETS["fp16"], 64) == (16.0, 16.0)
    assert cache_bits(PRESETS["fp16"], 64, 1000) == 16.0
    fmt = preset("default")
    keys, values = effective_bits(fmt, 64)
    packed = 1280 - 16  # tokens 16 .. 1279 of 1500 are older than the newest 128 and in whole groups
    assert cache_bits(fmt, 64, 1500) == pytest.approx(((keys + values) * packed + 32 * (1500 - packed)) / 3000)


def test_table_of_bits():
    """Counts by hand: 144 of 4,096 tokens are exact in FP16 whatever the format; the paper counts codes."""
    rows = {line.split("|")[1].strip(" *"): line for line in bits_table().splitlines()[2:]}
    assert rows["FP16 cache"].endswith("| 16.00 | 16.00 | 16.00 | 16.00 (100.0%) |")
    assert rows["old tokens dropped"].endswith(f"| {144 * 16 / 4096:.2f} (3.5%) |")
    assert "| 1.50 | 1.58 | 1.54 | - |" in rows["VidKV as its paper counts: codes alone"]
    assert any("| 3.50 | 3.00 | 3.25 |" in line for name, line in rows.items() if "as released" in name)
    assert any("| 1.56 | 1.66 | 1.61 |" in line for name, line in rows.items() if name.startswith("default"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, t: m.update(format="other"), "has format 'other'"),
        (lambda m, t: m.update(version="2.0"), "has version '2.0'"),
        (lambda m, t: m.update(version=""), "has version ''"),
        (lambda m, t: t["packets"].__setitem__(0, t["packets"][0] ^ 1), "is damaged"),
        (lambda m, t: m.update(cache=m["cache"].replace('"sinks": 16', '"sinks": 15')), "is damaged"),
        (lambda m, t: t.pop("index"), "is damaged"),
    ],
)
def test_damaged_files_are_refused(kv, tmp_path, change, message):
    path = tmp_path / "cache.safetensors"
    save_cache(path, pack_cache(*(x[:, :, :300] for x in kv), preset("default")))
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    load_cache(path)
    change(metadata, tensors)
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(CacheFileError, match=message):
        load_cache(path)


def test_newer_minor_version_is_read(kv, tmp_path, monkeypatch):
    import golden.kv.files as files

    path = tmp_path / "cache.safetensors"
    monkeypatch.setattr(files, "VERSION", (1, 7))
    save_cache(path, pack_cache(*(x[:, :, :300] for x in kv), preset("default")))
    monkeypatch.undo()
    assert load_cache(path).shape == (LAYERS, HEADS, 300, DIM)


def test_truncated_and_absent_files(kv, tmp_path):
    path = tmp_path / "cache.safetensors"
    save_cache(path, pack_cache(*(x[:, :, :300] for x in kv), preset("default")))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CacheFileError, match="truncated"):
        load_cache(path)
    with pytest.raises(FileNotFoundError, match="no packed cache at"):
        load_cache(tmp_path / "absent")


def test_same_cache_gives_the_same_bytes(kv, tmp_path):
    for name in ("a", "b"):
        save_cache(tmp_path / name, pack_cache(*(x[:, :, :300] for x in kv), preset("default")))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "bitmosaic.kv"
    assert metadata["generator"].startswith("bitmosaic")
    assert json.loads(metadata["cache"])["shape"] == [LAYERS, HEADS, 300, DIM]


def test_a_failed_write_leaves_nothing(kv, tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        save_cache(tmp_path / "cache", pack_cache(*(x[:, :, :300] for x in kv), preset("default")))
    assert list(tmp_path.iterdir()) == []


def test_dumps(kv, tmp_path):
    path = tmp_path / "dump.safetensors"
    safetensors.numpy.save_file({"k": kv[0].numpy(), "v": kv[1].numpy()}, path)
    dump = load_dump(path)
    assert torch.equal(dump.k, kv[0])
    assert torch.equal(dump.v, kv[1])
    assert dump.protected is dump.moments is None
    eye = torch.eye(DIM).expand(LAYERS, HEADS, -1, -1)
    full = Dump(*kv, protected=torch.arange(kv[0].shape[2]) % 3 == 0, moments=[(m, 2 * m) for m in eye])
    save_dump(path, full)
    dump = load_dump(path)
    assert torch.equal(dump.protected, full.protected)
    assert len(dump.moments) == LAYERS
    for got, put in zip(dump.moments, full.moments, strict=True):
        assert all(torch.equal(*pair) for pair in zip(got, put, strict=True))
    safetensors.numpy.save_file({"k": kv[0].numpy()}, path)
    with pytest.raises(CacheFileError, match=r"lacks \['v'\]"):
        load_dump(path)
    safetensors.numpy.save_file({"k": kv[0].numpy(), "v": kv[1].numpy()[0]}, path)
    with pytest.raises(CacheFileError, match="of one shape"):
        load_dump(path)


def test_what_cannot_be_packed_is_refused(kv):
    with pytest.raises(ValueError, match="keys and values must be"):
        pack_cache(kv[0], kv[1][:1], preset("default"))
    with pytest.raises(ValueError, match="residual must be one of"):
        pack_cache(*kv, preset("default"), residual="int4")
    bad = kv[0].clone().float()
    bad[0, 0, 50, 3] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        pack_cache(bad, kv[1].float(), preset("default"))
    for dim in (4, 12, 100, 1032):
        with pytest.raises(ValueError, match=rf"head dim D must be in 8\.\.1024 and a multiple of 8, not {dim}"):
            pack_cache(torch.ones(1, 1, 300, dim), torch.ones(1, 1, 300, dim), preset("default"))
    with pytest.raises(ValueError, match=r"moments must be None for a head dim D above 128, not for D = 256"):
        pack_cache(torch.ones(1, 1, 300, 256), torch.ones(1, 1, 300, 256), preset("attention"), moments=[None])


def test_shares_of_anomalous_channels_are_whole_bytes():
    assert [KeyFormat(anomalous=0.3).anomalous_channels(dim) for dim in (64, 72, 128)] == [16, 16, 32]
    assert [KeyFormat().anomalous_channels(dim) for dim in (16, 24, 64, 72, 80, 96, 128)] == [8, 8, 32, 32, 40, 48, 64]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("k", float("nan"), r"keys must be finite .*not nan \(layer 1, head 1, token 40, channel 6\)"),
        ("v", float("-inf"), r"values must be finite .*not -inf \(layer 1, head 1, token 40, channel 6\)"),
        ("v", 65520.0, r"values must be .* at most 65504 .*not 65520 \(layer 1, head 1, token 40, channel 6\)"),
        ("v", 20000.0, r"layer 1: values of tokens 16\.\.127, head 1, channel 6: the scale must be at most 124 "),
        ("k", 60000.0, r"layer 1: keys of tokens 16\.\.127, head 1, channel \d+: the scale must be "),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_errors_name_the_place(name, change, message, dtype):
    tensors = {which: torch.ones(2, 2, 300, 64, dtype=dtype) for which in "kv"}
    tensors[name][1, 1, 40, 6] = change
    if change == 60000.0:
        tensors[name][1, 1, 17:100:2] = change
    with pytest.raises(ValueError, match=message):
        pack_cache(tensors["k"], tensors["v"], preset("default"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": np.ones((1, 1, 300, 64))}, r"keys must be a tensor .*not numpy\.ndarray"),
        ({"values": torch.ones(1, 1, 300, 64).int()}, "values must be a tensor .*not int32"),
        ({"keys": torch.ones(1, 1, 300, 64).to_sparse()}, "keys must be dense and have contents, not torch.sparse_coo"),
        ({"keys": torch.ones(1, 1, 300, 64, device="meta")}, "keys must be dense and have contents, not .* on meta"),
        ({"keys": torch.ones(1, 300, 64)}, r"keys must be a tensor \[layers, heads, tokens, D\] .*not of shape"),
        ({"protected": torch.ones(600, dtype=torch.bool)}, "protected must be for 300 tokens, not 600"),
        ({"protected": torch.ones(300)}, r"protected must be a tensor \[tokens\] of bool, not float32"),
        ({"protected": [True] * 300}, r"protected must be a tensor .*not builtins\.list"),
    ],
)
def test_arguments_are_refused_by_name(change, message):
    given = {"keys": torch.ones(1, 1, 300, 64), "values": torch.ones(1, 1, 300, 64), "protected": None} | change
    name = "vidkv-stp" if given["protected"] is not None else "default"
    with pytest.raises((TypeError, ValueError), match=message):
        pack_cache(given["keys"], given["values"], preset(name), protected=given["protected"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_dumps_of_any_float_are_taken(tmp_path, dtype):
    """And with gradients: what is packed is what FP16 would be."""
    x = torch.randn(1, 1, 300, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    safetensors.torch.save_file({"k": x, "v": x.clone()}, tmp_path / "dump")
    dump = load_dump(tmp_path / "dump")
    found = pack_cache(dump.k.requires_grad_(), dump.v, preset("default"))
    half = x.float().half() if dtype == torch.float64 else x.half()
    expected = pack_cache(half, half, preset("default"))
    if dtype != torch.float64:
        assert np.array_equal(found.packets, expected.packets)
    assert found.offsets[-1] == expected.offsets[-1]


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fnuz], ids=str)
def test_dumps_of_other_numbers_are_refused(tmp_path, dtype):
    x = torch.ones(1, 1, 300, 64).to(dtype)
    safetensors.torch.save_file({"k": x, "v": x.clone()}, tmp_path / "dump")
    with pytest.raises(CacheFileError, match="dump: k must be one of F16, BF16, F32, F64, F8_E4M3, F8_E5M2, not "):
        load_dump(tmp_path / "dump")

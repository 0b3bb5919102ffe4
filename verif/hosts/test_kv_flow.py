"""What a user does: dump, pack, simulate; and the demo's verdict on the KV engine."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from gen import cli
from golden.kv.config import PRESETS
from golden.kv.dump import dump_model
from golden.kv.engine_model import add_centre, decode, marked_beats
from golden.kv.files import load_cache
from golden.llm import CheckpointNotFoundError
from golden.weights import pack as pack_weight
from golden.weights import quantize, save_packed
from hosts import kv_simulate as simulate
from hosts.demo.kv import Workload, run_kv, workloads
from hosts.demo.report import write_report
from hosts.kv_dequantizer import TOP, EngineOutput, emit_engine, mismatches, needed_config
from spec.datatypes import Datatype
from spec.system import SYSTEMS

TINY = SYSTEMS["tiny"].kv_engines
SHAPE = (2, 1, 300, 64)


@pytest.fixture
def dump(tmp_path, seed):
    """A dump of keys with offsets and unlike channels, and some tokens to protect."""
    torch.manual_seed(seed)
    k = torch.randn(SHAPE) * torch.rand(2, 1, 1, 64) + torch.randn(2, 1, 1, 64)
    tensors = {"k": k.half(), "v": torch.randn(SHAPE).half(), "protected": torch.rand(300) < 0.3}
    path = tmp_path / "dump.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path, tensors


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["kv-pack", *map(str, arguments)])


def engine(*arguments):
    return CliRunner().invoke(simulate.app, [str(argument) for argument in arguments])


@pytest.mark.sim
@pytest.mark.parametrize("residual", ["fp16", "int8"])
def test_dump_to_packed_to_simulated(dump, tmp_path, residual):
    path, tensors = dump
    packed, out = tmp_path / "packed.safetensors", tmp_path / "out.safetensors"
    result = invoke(path, "--output", packed, "--residual", residual)
    assert result.exit_code == 0, result.output
    result = engine(packed, "--output", out, "--lanes", 4, "--reference", path)
    assert result.exit_code == 0, result.output
    assert re.search(
        r"PASS: [\d,]+ elements of the Verilog, 0 mismatches; .* elements per cycle at 4 lanes", result.output
    )
    found = {name: x.numpy() for name, x in safetensors.torch.load_file(out).items()}
    assert {name: (x.shape, x.dtype) for name, x in found.items()} == dict.fromkeys("kv", (SHAPE, np.float16))
    cache = load_cache(packed)
    centres = {(layer, head): block for layer, head, block in cache.blocks("centre")}
    inside = np.zeros(SHAPE, bool)
    for kind, name in (("key", "k"), ("value", "v")):
        for layer, head, block in cache.blocks(kind):
            expected = decode(block)
            if kind == "key":
                expected = add_centre(expected, centres[layer, head].scales)
            np.testing.assert_array_equal(found[name][layer, head, block.tokens], expected.values)
            if kind == "value":
                inside[layer, head, block.tokens] = True
    assert inside[0, 0].sum() == 64 * 112
    for name in "kv":
        original, outside = tensors[name].numpy(), ~inside
        error = np.abs(found[name][outside].astype(float) - original[outside])
        assert error.max() <= (0 if residual == "fp16" else 0.51 * np.abs(original).max() / 127)


@pytest.mark.sim
def test_keys_without_their_centre(dump, tmp_path):
    path, tensors = dump
    packed = tmp_path / "packed.safetensors"
    assert invoke(path, "--output", packed).exit_code == 0
    cache = load_cache(packed)
    found = simulate.simulate(cache, lanes=4, centre=False)
    assert found.mismatches == 0
    assert found.elements == 2 * 2 * 112 * 64
    for layer, head, block in cache.blocks("key"):
        np.testing.assert_array_equal(found.tensors["k"][layer, head, block.tokens], decode(block).values)
    for layer, head, block in cache.blocks("centre"):
        mu = block.scales.view(np.float16).astype(float)
        sinks = (tensors["k"][layer, head, :16].double().numpy() - mu).astype(np.float16)
        np.testing.assert_array_equal(found.tensors["k"][layer, head, :16], sinks + np.float16(0))


@pytest.mark.sim
def test_marks_are_compared_with_the_models(tmp_path, seed):
    """Elements beyond FP16 are no mismatches where the model has them too."""
    torch.manual_seed(seed)
    k = 30000 * torch.randn(SHAPE).sign()
    safetensors.torch.save_file({"k": k.half(), "v": torch.randn(SHAPE).half()}, tmp_path / "dump")
    packed = tmp_path / "packed.safetensors"
    assert invoke(tmp_path / "dump", "--format", "keys-s2", "--output", packed).exit_code == 0
    result = engine(packed, "--output", tmp_path / "out", "--lanes", 4)
    assert result.exit_code == 0, result.output
    assert re.search(r"PASS: .* 0 mismatches; [1-9][\d,]* beyond FP16, marked as in the model", result.output)
    cache = load_cache(packed)
    blocks = [block for kind in ("key", "value") for _, _, block in cache.blocks(kind)]
    beyond = sum(int(decode(block).overflow.sum()) for block in blocks)
    assert f" {beyond:,} beyond FP16" in result.output


def test_a_missing_or_an_additional_mark_is_a_mismatch(dump, tmp_path):
    packed = tmp_path / "packed.safetensors"
    assert invoke(dump[0], "--output", packed).exit_code == 0
    blocks = [block for _, _, block in load_cache(packed).blocks("value")][:2]
    config = needed_config([block.header for block in blocks], 4)
    decoded = [decode(block) for block in blocks]
    output = EngineOutput(
        values=[one.values.view(np.uint16)[:, block.channels] for one, block in zip(decoded, blocks, strict=True)],
        tokens=[one.tokens for one in decoded],
        wrong=[0, 0],
        marked=[np.zeros(one.values.size // 4, bool) for one in decoded],
        cycles=1,
        seconds=1.0,
    )
    assert mismatches(output, blocks, config) == 0
    output.marked[1][5] = True
    assert mismatches(output, blocks, config) == 4
    overflow = replace(decoded[0], overflow=decoded[0].overflow.copy())
    overflow.overflow[3, 17] = True
    marks = marked_beats(blocks[0], overflow, 4)
    assert (int(marks.argmax()), marks[3 * 16 + 4 :].all(), len(marks)) == (3 * 16 + 4, True, 112 * 16)


@pytest.mark.sim
@pytest.mark.parametrize("head_dim", [72, 256])
def test_other_head_dims(tmp_path, seed, head_dim):
    torch.manual_seed(seed)
    shape = (1, 2, 300, head_dim)
    tensors = {name: torch.randn(shape).half() for name in "kv"}
    safetensors.torch.save_file(tensors, tmp_path / "dump")
    packed, out = tmp_path / "packed.safetensors", tmp_path / "out"
    result = invoke(tmp_path / "dump", "--output", packed)
    assert result.exit_code == 0, result.output
    result = engine(packed, "--output", out, "--lanes", 4, "--reference", tmp_path / "dump")
    assert result.exit_code == 0, result.output
    found = safetensors.torch.load_file(out)
    for name, least in (("k", 5), ("v", 5)):
        assert found[name].shape == shape
        for tokens in (slice(0, 16), slice(200, 300)):
            assert torch.equal(found[name][:, :, tokens], tensors[name][:, :, tokens])
        assert float(re.search(rf"{name}: ([\d.]+) dB", result.output)[1]) > least


@pytest.mark.parametrize("kind", ["dump", "gguf", "index", "text", "empty", "directory", "fifo", "weights"])
def test_any_file_for_any_other_is_one_line(dump, tmp_path, kind):
    """Whatever is given for a model, activations, a dump or a packed cache."""
    path = tmp_path / "given"
    if kind == "dump":
        safetensors.torch.save_file({"k": torch.ones(SHAPE).bfloat16(), "v": torch.ones(SHAPE).bfloat16()}, path)
    elif kind == "weights":
        save_packed(path, {"a": pack_weight(quantize(torch.ones(2, 32), Datatype.FP4, group_size=32))})
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(
            {"gguf": b"GGUF\3\0\0\0", "index": b'{"weight_map": {}}', "text": b"hello, no file", "empty": b""}[kind]
        )
    model = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"a.weight": torch.ones(2, 32)}, model)
    tiny = ["--core", "tiny", "--group-size", 32]
    for command in (
        ["pack", path, "--layers", "a", "--output", tmp_path / "out"],
        ["pack", model, "--layers", "a", *tiny, "--activations", path, "--output", tmp_path / "out"],
        ["kv-pack", path, "--output", tmp_path / "out"],
        None,
    ):
        if kind == "dump" and command and command[0] == "kv-pack":
            continue
        if command is None:
            result = engine(path, "--output", tmp_path / "out")
        else:
            result = CliRunner().invoke(cli.app, [str(word) for word in command])
        assert (result.exit_code, result.exception.__class__) == (2, SystemExit), result.output
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith(("bitmosaic: ", "simulate: "))
        assert "given" in last
    assert not (tmp_path / "out").exists()


def test_protected_tokens_are_packed_at_two_bits(dump, tmp_path):
    path, tensors = dump
    packed = tmp_path / "packed.safetensors"
    result = invoke(path, "--format", "vidkv-stp", "--output", packed)
    assert result.exit_code == 0, result.output
    kept = {t for _, _, b in load_cache(packed).blocks("value") if b.minima is not None for t in b.tokens.tolist()}
    assert kept
    assert kept <= set(torch.nonzero(tensors["protected"])[:, 0].tolist())


def test_rounding_for_attention_needs_moments_and_stores_the_same_format(dump, tmp_path):
    path, tensors = dump
    q = torch.randn(2, 1, 500, 8, dtype=torch.float64) @ torch.randn(2, 1, 8, 64, dtype=torch.float64)
    moments = {"key_moments": q.mT @ q / 500, "value_moments": torch.eye(64).expand(2, 1, -1, -1)}
    safetensors.torch.save_file({n: x.contiguous() for n, x in (tensors | moments).items()}, path)
    errors, bits = {}, {}
    for name in ("keys-s2", "keys-s2-attention"):
        result = invoke(path, "--format", name, "--output", tmp_path / name)
        assert result.exit_code == 0, result.output
        cache = load_cache(tmp_path / name)
        centres = {(layer, head): block.scales.view(np.float16) for layer, head, block in cache.blocks("centre")}
        bits[name], errors[name] = cache.effective_bits, 0.0
        for layer, head, block in cache.blocks("key"):
            kept = tensors["k"][layer, head, block.tokens].double().numpy() - centres[layer, head].astype(float)
            errors[name] += np.square((kept - decode(block).values.astype(float)) @ q[layer, head].T.numpy()).sum()
    assert bits["keys-s2"] == bits["keys-s2-attention"]
    assert errors["keys-s2-attention"] < 0.6 * errors["keys-s2"]


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (["--format", "best"], {}, "format must be one of kivi, vidkv,.*default,.*not 'best'"),
        (["--format", "fp16"], {}, "format must be one of .*not 'fp16'"),
        (["--format", "vidkv-released"], {}, "format must be one of .*not 'vidkv-released'"),
        (["--format", "vidkv-stp"], {"protected": None}, "must hold a tensor 'protected' that says which"),
        (["--format", "attention"], {}, "must hold 'key_moments' and 'value_moments'"),
        (["--residual", "int4"], {}, "residual must be one of .*not 'int4'"),
        ([], {"k": None}, r"it lacks \['k'\]"),
        ([], {"v": torch.ones(2, 1, 300, 32)}, "k and v must be of one shape"),
        ([], {"k": torch.ones(SHAPE).int()}, "k must be one of F16, .*not I32"),
        ([], {"k": torch.full(SHAPE, float("nan"))}, "finite"),
        ([], {"v": torch.full(SHAPE, 1e9)}, "finite and at most 65504"),
        ([], {"protected": torch.ones(7)}, r"protected must be \[300\] of 0 and 1"),
        ([], {"protected": torch.full((300,), 2)}, r"protected must be \[300\] of 0 and 1"),
        ([], {"key_moments": torch.ones(1)}, "key_moments and value_moments must both be"),
        (
            [],
            {"k": torch.ones(1, 1, 9, 64), "v": torch.ones(1, 1, 9, 64), "protected": None},
            "longer than the 16 sinks",
        ),
        ([], {"k": torch.ones(1, 1, 99, 64), "v": torch.ones(1, 1, 99, 64), "protected": None}, "more tokens"),
        (
            [],
            {"k": torch.ones(1, 1, 300, 12), "v": torch.ones(1, 1, 300, 12)},
            "head dim D must be in 8..1024 and a multiple",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(dump, tmp_path, options, change, message):
    path, tensors = dump
    tensors = {name: x for name, x in (tensors | change).items() if x is not None}
    safetensors.torch.save_file({name: x.contiguous() for name, x in tensors.items()}, path)
    out = tmp_path / "out" / "packed.safetensors"
    result = invoke(path, *options, "--output", out)
    assert result.exit_code == 2
    assert re.search(f"bitmosaic: .*{message}", result.output), result.output
    assert "Traceback" not in result.output
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_files_that_are_none(dump, tmp_path):
    path, _ = dump
    for arguments, message in (
        ([tmp_path / "absent"], "no K/V dump at"),
        ([path, "--output", tmp_path], "output must be a file"),
        ([path, "--output", path], "output must not be the dump"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert message in result.output
    before = path.read_bytes()
    path.write_bytes(before[:-50])
    assert "truncated" in invoke(path, "--output", tmp_path / "x").output
    path.write_bytes(before)
    packed = tmp_path / "packed.safetensors"
    assert invoke(path, "--output", packed).exit_code == 0
    for arguments, message in (
        ([tmp_path / "absent"], "no packed cache at"),
        ([path], "has format None, not 'bitmosaic.kv'"),
        ([packed, "--lanes", 5], "lanes must be one of 4, 8, 16, 32, not 5"),
        ([packed, "--output", packed], "output must not be the packed file"),
        ([packed, "--output", tmp_path], "output must be a file"),
    ):
        result = engine(*arguments)
        assert result.exit_code == 2
        assert message in result.output


@pytest.fixture
def checkpoint():
    try:
        return dump_model(200, protect=0.2, queries=8)
    except CheckpointNotFoundError as error:
        pytest.skip(str(error))


def test_dump_of_the_model(checkpoint):
    assert checkpoint.k.shape == checkpoint.v.shape == (30, 3, 200, 64)
    assert int(checkpoint.protected.sum()) == 40
    with pytest.raises(ValueError, match=r"protect must be from 0 to 1, not 1\.5"):
        dump_model(200, protect=1.5)
    with pytest.raises(ValueError, match=r"queries must be in 1\.\.9, not 64"):
        dump_model(10)


@pytest.mark.sim
@pytest.mark.parametrize("wrong", [False, True], ids=["as generated", "one bit wrong"])
def test_demo_verdict(checkpoint, tmp_path, wrong):
    path = emit_engine(TINY[TOP], tmp_path / "source").path_v
    if wrong:
        # The smallest invalid byte of trits becomes 242, which is five times the largest digit.
        changed, count = re.subn(r"8'hf3", "8'hf2", path.read_text())
        assert count, "the constant whose bit is flipped was not found"
        path.write_text(changed)
    jobs = [
        replace(job, layers=(3,), tokens=300)
        for job in (Workload(kind="key", fmt=PRESETS["default"]), Workload(kind="value", fmt=PRESETS["default"]))
    ]
    section = run_kv(tmp_path / "demo", 1, jobs=jobs, engines=TINY, verilog={TOP: path})
    assert write_report([section], 1, tmp_path / "demo") is not wrong
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["pass"] is not wrong
    items = report["sections"][0]["items"]
    assert [item["compared"] for item in items] == [item["expected"] for item in items] == [3 * 112 * 64] * 2
    assert any(item["mismatches"] for item in items) is wrong
    assert set(report["verilog_sha256"]) == {TOP}


def test_the_demo_covers_every_format_and_transform():
    """Each transformable format through each transform, the formats with a minimum, and the default on all layers."""
    jobs = workloads()
    keys = {(job.fmt.key.code, job.fmt.key.anomalous_code, job.fmt.key.transform) for job in jobs if job.kind == "key"}
    for transform in ("none", "wht", "rfft"):
        for pair in (("binary", None), ("s2", None), ("ternary", None), ("binary", "s2")):
            assert (*pair, transform) in keys
    assert ("u2", None, "none") in keys
    whole = {(job.kind, job.fmt.value.protected > 0) for job in jobs if not job.layers}
    assert whole == {("key", False), ("value", False), ("value", True)}

"""``bitmosaic pack``: what it leaves behind, what it refuses, and how much it keeps in memory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import save_file
from typer.testing import CliRunner

import golden.weights
from gen import cli
from gen.pack.selection import select_layers
from gen.pack.weights import pack_layers
from golden.weights import load_packed, pack, quantize, save_packed, unpack
from golden.weights.model_files import TensorInfo, open_model
from sim.build import ROOT
from spec.datatypes import WEIGHT_DATATYPES, Datatype


@pytest.fixture
def tensors(rng):
    def normal(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    return {
        "layers.0.q_proj.weight": normal(6, 100),
        "layers.0.k_proj.weight": normal(3, 100).half(),
        "layers.1.q_proj.weight": normal(5, 256).bfloat16(),
        "layers.0.norm.weight": normal(100),
        "experts": normal(2, 3, 32),
        "head": normal(4, 33),
    }


@pytest.fixture
def run(tmp_path, monkeypatch, tensors):
    """Runs the command in a directory that holds model.safetensors."""
    save_file(tensors, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.app, ["pack", *map(str, arguments)])


def same_packed(left, right) -> bool:
    return left.plan() == right.plan() and all(
        np.array_equal(getattr(left, part), getattr(right, part)) for part in ("words", "offsets", "channel_scale")
    )


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
def test_packs_what_the_models_pack(run, tensors, datatype):
    options = ("--datatype", datatype.name.lower(), "--group-size", 32, "--lanes", 8, "--output", "out/packed")
    result = run("model.safetensors", "--layers", "layers.*", "head", *options)
    assert result.exit_code == 0, result.output
    expected = {
        name.removesuffix(".weight"): pack(quantize(tensors[name], datatype, group_size=32), lanes=8)
        for name in tensors
        if tensors[name].dim() == 2
    }
    loaded = load_packed("out/packed")
    assert loaded.keys() == expected.keys()
    assert all(same_packed(loaded[name], expected[name]) for name in expected)
    save_packed("expected", expected)
    assert Path("expected").read_bytes() == Path("out/packed").read_bytes()
    assert [path.name for path in Path("out").iterdir()] == ["packed"]


def test_table_and_progress(run):
    result = run("model.safetensors", "--layers", "*q_proj", "--datatype", "FP3", "--verify")
    assert result.exit_code == 0, result.output
    # 6 rows of 16 + 16 + 300 bits and 5 of 16 + 2 * (16 + 384), filled to words; 4 bytes of scale each.
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines() if "FP3" in line]
    assert rows == [
        ["layers.0.q_proj", "6", "x", "100", "FP3", f"{8 * 312 / 600:.3f}", "312"],
        ["layers.1.q_proj", "5", "x", "256", "FP3", f"{8 * 540 / 1280:.3f}", "540"],
        ["2", "layers", "1,880", "FP3", f"{8 * 852 / 1880:.3f}", "852"],
    ]
    assert "packed: packed.safetensors" in result.stdout
    assert result.stderr.splitlines() == [
        "pack [1/4] layers.0.q_proj",
        "pack [2/4] layers.1.q_proj",
        "pack [3/4] layers.0.q_proj",
        "pack [4/4] layers.1.q_proj",
    ]


def test_gguf(run, tensors):
    writer = GGUFWriter("model.gguf", "llama")
    for name in ("layers.0.q_proj.weight", "layers.0.k_proj.weight", "layers.0.norm.weight"):
        writer.add_tensor(name, tensors[name].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for model in ("model.gguf", "model.safetensors"):
        result = run(model, "--layers", "layers.0.*", "--verify", "--output", f"{model}.packed")
        assert result.exit_code == 0, result.output
    assert Path("model.gguf.packed").read_bytes() == Path("model.safetensors.packed").read_bytes()


def infos(**shapes):
    return {name: TensorInfo(name, shape, "F32") for name, shape in shapes.items()}


def test_selection():
    tensors = infos(**{"a.q.weight": (2, 3), "a.norm.weight": (3,), "b.q.weight": (4, 5), "B.q": (1, 1)})
    everything = {"a.q": "a.q.weight", "b.q": "b.q.weight", "B.q": "B.q"}

    def layers(*patterns):
        return select_layers(tensors, patterns).layers

    assert layers("*") == everything
    assert list(layers("B.*", "a.*", "b.?", "a.q")) == list(everything)
    assert layers("a.q") == layers("a.q.weight") == {"a.q": "a.q.weight"}
    assert layers("[ab].q") == {"a.q": "a.q.weight", "b.q": "b.q.weight"}


@pytest.mark.parametrize("name", ["blk[0].w", "[/x]", "a?", "*", "[a-b]", "w[!x]"])
def test_a_name_with_wildcards_in_it_matches_itself(name):
    tensors = infos(**{f"{name}.weight": (2, 3), "blk0.w": (2, 3), "ab": (2, 3)})
    assert select_layers(tensors, [name]).layers == {name: f"{name}.weight"}


@pytest.mark.parametrize(
    ("tensors", "pattern", "message"),
    [
        (infos(a=(2, 3), q_proj=(2, 3), k_proj=(2, 3)), "q_prj", r"no layer matches 'q_prj'; the model has q_proj"),
        (infos(a=(2,), b=(2, 3), c=(2, 3), d=(2, 3), e=(2, 3)), "z", "the model has b, c, d and 1 more"),
        (infos(a=(2,)), "z", "the model has no matrix at all"),
        (infos(a=(2,)), "*", r"a has shape \[2\], and only matrices"),
        (infos(a=(2, 0)), "a", r"a must have shape \[output channels, 1\.\.32768 input channels\], not \[2, 0\]"),
        (infos(a=(2, 32769)), "a", r"not \[2, 32769\]"),
        (infos(**{"a": (2, 2), "a.weight": (2, 2)}), "a", "a and a.weight would both be packed as a"),
    ],
)
def test_selection_refuses(tensors, pattern, message):
    with pytest.raises(ValueError, match=message):
        select_layers(tensors, [pattern])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("model.safetensors", "--layers", "q"),
            "'q'; the model has experts.0, experts.1, head and 3 more",
        ),
        (("model.safetensors", "--layers", "head", "absent"), "no layer matches 'absent'"),
        (("model.safetensors", "--layers", "layers.0.norm"), "layers.0.norm.weight has shape [100], and only matrices"),
        (("model.safetensors",), "layers must name at least one layer: --layers PATTERN"),
        (("model.safetensors", "--layers", "head", "--datatype", "fp5"), "datatype must be one of int8, int6, int5"),
        (("model.safetensors", "--layers", "head", "--datatype", "ternary"), "not 'ternary'"),
        (
            ("model.safetensors", "--layers", "head", "--group-size", 16),
            "group_size must be one of 32, 64, 128, not 16",
        ),
        (("model.safetensors", "--layers", "head", "--lanes", 3), "lanes must be one of 2, 4, 8, 16, 32, not 3"),
        (("absent.gguf", "--layers", "head"), "no model file at absent.gguf"),
        (("notes.txt", "--layers", "head"), "notes.txt must be a .safetensors or a .gguf file, and is neither"),
        (("cut.safetensors", "--layers", "head"), "cut.safetensors is truncated or not a safetensors file"),
        (("model.safetensors", "--layers", "head", "--output", "model.safetensors"), "must not be the model file"),
        (("model.safetensors", "--layers", "head", "--output", "."), "output must be a file, and . is a directory"),
        (("nan.safetensors", "--layers", "bad"), "layer bad: weight must be finite, but weight[1, 2] = nan"),
        (("nan.safetensors", "--layers", "bad", "--output", "new/out"), "layer bad: weight must be finite"),
        (
            ("nan.safetensors", "--layers", "bad", "--core", "tiny", "--group-size", 32),
            "layer bad: weight must be finite",
        ),
        (("double.safetensors", "--layers", "*"), "a must be one of F32, F16, BF16 or quantized, not F64"),
    ],
)
def test_user_errors_are_one_line_and_leave_nothing(run, tmp_path, tensors, arguments, message):
    Path("notes.txt").write_text("not a model")
    Path("cut.safetensors").write_bytes(Path("model.safetensors").read_bytes()[:-1])
    bad = torch.ones(2, 3)
    bad[1, 2] = float("nan")
    save_file({"a": torch.ones(2, 3), "bad": bad}, "nan.safetensors")
    save_file({"a": torch.ones(2, 3).double()}, "double.safetensors")
    Path("packed.safetensors").write_text("older")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run(*arguments)
    assert result.exit_code == 2
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("bitmosaic: ")
    assert message in line
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("core", [(), ("--core", "tiny")], ids=["packets", "core"])
def test_what_is_left_out_is_listed_and_the_rest_is_done(run, tensors, core):
    bad = torch.ones(2, 32)
    bad[1, 2] = float("nan")
    others = {"ids": torch.arange(32)[None], "c.bad": bad, "wide": torch.zeros(2, 32769), "double": bad.double()}
    save_file({**tensors, **others}, "model.safetensors")
    options = ("--group-size", 32, "--verify", "--output", "out", *core)
    result = run("model.safetensors", "--layers", "*", *options)
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("pack ")]
    assert lines == [
        "skipped: double: must be one of F32, F16, BF16 or quantized, not F64",
        "skipped: ids: must be one of F32, F16, BF16 or quantized, not I64",
        "skipped: layers.0.norm.weight: has shape [100], and only matrices "
        "[output channels, input channels] can be packed",
        "skipped: wide: must have shape [output channels, 1..32768 input channels], not [2, 32769]",
        "warning: layer c.bad is not packed: weight must be finite, but weight[1, 2] = nan",
    ]
    matrices = {"experts.0", "experts.1", "head", "layers.0.k_proj", "layers.0.q_proj", "layers.1.q_proj"}
    if core:
        assert {path.name for path in Path("out").iterdir()} == matrices
        return
    assert load_packed("out").keys() == matrices
    save_file({name: x for name, x in tensors.items() if "norm" not in name}, "model.safetensors")
    assert run("model.safetensors", "--layers", "*", *options[:-1], "clean").exit_code == 0
    assert Path("out").read_bytes() == Path("clean").read_bytes()


def test_experts_are_layers_of_their_own(run, tensors):
    for pattern in ("experts", "experts.?"):
        result = run("model.safetensors", "--layers", pattern, "--verify", "--group-size", 32, "--datatype", "int8")
        assert result.exit_code == 0, result.output
        loaded = load_packed("packed.safetensors")
        assert list(loaded) == ["experts.0", "experts.1"]
        for number, packed in enumerate(loaded.values()):
            assert same_packed(packed, pack(quantize(tensors["experts"][number], Datatype.INT8, group_size=32)))


def test_long_rows_are_packed_in_parts_of_one_scale(run, rng):
    long = torch.from_numpy(rng.standard_normal((2, 18944)).astype(np.float32))
    long[:, 17000] = 20
    save_file({"down.weight": long}, "model.safetensors")
    result = run("model.safetensors", "--layers", "*", "--verify")
    assert result.exit_code == 0, result.output
    parts = load_packed("packed.safetensors")
    assert list(parts) == ["down[0:16384]", "down[16384:18944]"]
    whole = quantize(long, Datatype.FP4)
    joined = torch.cat([unpack(part).dequantize() for part in parts.values()], 1)
    assert torch.equal(joined, whole.dequantize())


def test_what_a_scale_cannot_hold_is_counted_and_verified(run):
    weight = torch.linspace(-1, 1, 256).view(2, 128)
    save_file({"tiny": weight * 1e-6, "huge": weight * 1e30, "good": weight}, "model.safetensors")
    options = ("--datatype", "int8", "--group-size", 32, "--verify")
    for layer, words in (("tiny", "0 comes back with a relative error of 1.000"), ("huge", "256 of 256 weights")):
        result = run("model.safetensors", "--layers", layer, *options[:-1])
        assert result.exit_code == 0
        assert f"warning: layer {layer}: " in result.stderr
        assert "weights are in groups whose scale could not be stored" in result.stderr
        assert words in result.stderr
        os.remove("packed.safetensors")
        result = run("model.safetensors", "--layers", layer, *options)
        assert result.exit_code == 2
        assert re.search(
            rf"layer {layer}: row \d comes back with a relative error of .*, more than max_error 0.5", result.stderr
        )
        assert not Path("packed.safetensors").exists()
    result = run("model.safetensors", "--layers", "good", *options)
    assert (result.exit_code, "warning" in result.stderr) == (0, False)
    assert run("model.safetensors", "--layers", "good", *options, "--max-error", 1e-4).exit_code == 2


def packed_otherwise(field):
    """A packer that changes one field of what it is given."""

    def packer(weight, **options):
        changed = {name: getattr(weight, name) for name in ("codes", "select", "scale8", "channel_scale")}
        changed[field] = changed[field] + (1 if field == "channel_scale" else 0)
        if field != "channel_scale":
            changed[field][1, 0] ^= 1
        return pack(type(weight)(weight.datatype, **changed, group_size=weight.group_size), **options)

    return packer


@pytest.mark.parametrize("field", ["codes", "select", "scale8", "channel_scale"])
def test_verify_sees_what_was_packed_wrong(run, monkeypatch, field):
    monkeypatch.setattr(golden.weights, "pack", packed_otherwise(field))
    arguments = ("model.safetensors", "--layers", "head", "--datatype", "int4")
    assert run(*arguments, "--output", "unverified").exit_code == 0
    result = run(*arguments, "--verify")
    assert result.exit_code == 2
    assert f"layer head: what was written unpacks to other {field}" in result.stderr
    assert sorted(path.name for path in Path(".").iterdir()) == ["model.safetensors", "unverified"]


def test_interruption_leaves_nothing(run):
    model = open_model("model.safetensors")

    def interrupt(_layer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_layers(model, select_layers(model.tensors, ["*"]), Path("packed"), Datatype.FP4, progress=interrupt)
    assert [path.name for path in Path(".").iterdir()] == ["model.safetensors"]


def test_without_torch_it_names_the_remedy(run, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from gen.cli import app; app()"
    arguments = ("pack", str(tmp_path / "model.safetensors"), "--layers", "head")
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "bitmosaic: pack needs torch, which is not installed; make setup-all or pip install '.[golden]' installs it\n"
    )


PEAKS = """
import json, re, sys
from pathlib import Path
from gen.pack.selection import select_layers
from gen.pack.weights import pack_layers
from golden.weights.model_files import open_model
from spec.datatypes import Datatype

peaks = []

def note(_layer):
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
    Path("/proc/self/clear_refs").write_text("5")  # what follows has its own peak

model = open_model(sys.argv[1])
chosen = select_layers(model.tensors, ["*"])
pack_layers(model, chosen, Path(sys.argv[2]), Datatype.INT4, max_error=0.5, progress=note)
print(json.dumps(peaks))
"""


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path):
    """Eight layers of 8 MiB, 1 MiB packed: the peak of the second and of the last, in MiB."""
    path = tmp_path / "model.safetensors"
    layer = torch.randn(512, 4096, generator=torch.Generator().manual_seed(1))
    save_file({f"layer{index}": layer + index for index in range(8)}, path)
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, path, tmp_path / "packed"],
        cwd=ROOT,
        # Large blocks go back to the system at once: else the figure is one of the allocator's habits.
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"},
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = json.loads(done.stdout)
    assert len(peaks) == 16
    packing, verifying = peaks[:8], peaks[8:]
    assert packing[-1] - packing[1] < 3, peaks
    assert verifying[-1] - verifying[1] < 3, peaks

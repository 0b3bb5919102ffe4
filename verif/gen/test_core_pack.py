"""``bitmosaic pack --core``: images that hold what the models hold, streams of the whole job, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import gen.pack.core
from gen import cli
from gen.pack.selection import Selection
from golden.core import activation_stream, weight_image, weight_stream
from golden.core.files import memh, read_weight
from golden.weights import quantize
from spec.datatypes import Datatype
from spec.system import core_preset


@pytest.fixture
def tensors(rng):
    shapes = {"a.q.weight": (11, 100), "a.k.weight": (3, 64), "norm": (4,)}
    return {name: torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}


@pytest.fixture
def activations(rng):
    return {"a.q": torch.randn(6, 100).half(), "a.k": torch.randn(2, 64).half()}


@pytest.fixture
def run(tmp_path, monkeypatch, tensors, activations):
    save_file(tensors, tmp_path / "model.safetensors")
    save_file(activations, tmp_path / "x.safetensors")
    monkeypatch.chdir(tmp_path)
    fixed = ["pack", "model.safetensors", "--layers", "a.*", "--core", "tiny", "--group-size", "32"]
    return lambda *arguments: CliRunner().invoke(cli.app, [*fixed, *map(str, arguments)])


def test_images_and_streams(run, tensors, activations):
    result = run("--datatype", "int6", "--activations", "x.safetensors", "--streams", "--fp16", "--verify")
    assert result.exit_code == 0, result.output
    config = core_preset("tiny")
    for layer, vectors in activations.items():
        weight = quantize(tensors[f"{layer}.weight"], Datatype.INT6, group_size=32)
        assert read_weight(Path("packed") / layer, config).first_difference(weight) is None
        job = json.loads((Path("packed") / layer / "job.json").read_text())
        assert job["registers"]["TOKENS"] == len(vectors)
        assert job["registers"]["FORMAT"] == 256
        assert np.array_equal(
            np.fromfile(f"packed/{layer}/weights.bin", "<u8"), weight_image(config, weight).beats.flatten()
        )
        streams = weight_stream(config, weight, len(vectors)), activation_stream(config, vectors, len(weight.codes))
        for name, stream in zip(("weights", "activations"), streams, strict=True):
            assert Path(f"packed/{layer}/{name}.memh").read_text() == memh(stream)
    rows = [line.replace("│", " ").split() for line in result.stdout.splitlines() if "INT6" in line]
    image = weight_image(config, quantize(tensors["a.k.weight"], Datatype.INT6, group_size=32))
    size = image.octets().size
    assert ["a.k", "3", "x", "64", "INT6", f"{8 * size / 192:.3f}", f"{len(image.beats):,}", f"{size:,}"] in rows
    assert result.stderr.splitlines() == [f"pack [{k}/4] {name}" for k, name in enumerate(["a.k", "a.q"] * 2, 1)]
    before = {path: path.read_bytes() for path in Path("packed").rglob("*.*") if path.is_file()}
    assert run("--datatype", "int6", "--activations", "x.safetensors", "--streams", "--fp16").exit_code == 0
    assert {path: path.read_bytes() for path in Path("packed").rglob("*.*") if path.is_file()} == before


def test_one_layer_at_a_time(run, monkeypatch, tmp_path):
    """A layer is on disk before the next is read."""
    from golden.weights.model_files import open_model

    model = open_model(tmp_path / "model.safetensors")
    seen = []

    class Watched:
        tensors, path, paths = model.tensors, model.path, model.paths

        def read(self, name):
            seen.append((name, sorted(path.name for path in Path("out").glob("*"))))
            return model.read(name)

    chosen = Selection({"a.q": "a.q.weight", "a.k": "a.k.weight"})
    gen.pack.core.pack_core_layers(Watched(), chosen, Path("out"), Datatype.FP4, "tiny", group_size=32)
    assert seen == [("a.q.weight", []), ("a.k.weight", ["a.q"])]


def test_damage_is_found(run):
    assert run().exit_code == 0
    path = Path("packed/a.q/weights.bin")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="the weight image is damaged"):
        read_weight(path.parent, core_preset("tiny"))
    with pytest.raises(ValueError, match="was written for another core"):
        read_weight(path.parent, core_preset("edge"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--core", "huge"], "preset must be one of paper, tiny, dense, edge, dense-fp4, precise, not 'huge'"),
        (["--group-size", 128], "group_size for core tiny must be one of 32, not 128"),
        (["--lanes", 4], "lanes follows from --core, and must not be given with it"),
        (["--output", "model.safetensors"], "output with --core must be a directory, and model.safetensors is a file"),
        (["--output", "full"], "full/a.q is there and holds 'precious': it will not be replaced"),
        (["--activations", "short.safetensors"], "activations must hold a tensor for each layer"),
        (["--activations", "wide.safetensors"], "activations of a.q must be FP16, not F32"),
        (["--activations", "wrong.safetensors"], "activations of a.q must have shape [tokens, 100], not [6, 99]"),
    ],
)
def test_refused(run, activations, arguments, message):
    Path("full/a.q").mkdir(parents=True)
    (Path("full/a.q") / "precious").write_text("kept")
    save_file({"a.q": activations["a.q"]}, "short.safetensors")
    save_file(activations | {"a.q": activations["a.q"].float()}, "wide.safetensors")
    save_file(activations | {"a.q": activations["a.q"][:, :99].contiguous()}, "wrong.safetensors")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("packed").exists()
    assert (Path("full/a.q") / "precious").read_text() == "kept"


def test_core_options_need_a_core(run, monkeypatch):
    for option in (["--fp16"], ["--streams"], ["--activations", "x.safetensors"]):
        result = CliRunner().invoke(cli.app, ["pack", "model.safetensors", "--layers", "a.*", *option])
        assert result.exit_code == 2
        assert "activations, fp16 and streams go with --core PRESET" in result.stderr

"""The real tops, through the real command: emitted without torch, the same bytes everywhere, and clean of warnings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gen
from gen.tops import KV_ENGINES, PRESETS, tops
from sim.build import lint

ROOT = Path(gen.__file__).parents[1]
# The command with every import of torch, of the models and of the simulator refused.
WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "golden", "sim", "cocotb"):
            raise ImportError(f"{name} is blocked here")
sys.meta_path.insert(0, Blocked())
from gen.cli import app
app(sys.argv[1:])
"""


def verilog(preset: str, out: Path, hash_seed: str) -> None:
    out.mkdir()
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "verilog", "--preset", preset, "--out", "rtl"],
        cwd=out,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        check=True,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_top_is_stable_and_clean(tmp_path, preset):
    for seed in ("0", "99"):
        verilog(preset, tmp_path / seed, seed)
    files = sorted((tmp_path / "0" / "rtl").iterdir())
    assert files
    modules = []
    for path in files:
        assert path.read_bytes() == (tmp_path / "99" / "rtl" / path.name).read_bytes(), path.name
        if path.suffix == ".v":
            lint(path, path.stem)
            text = path.read_text()
            assert " initial " not in text
            modules += [line.split()[1].split("(")[0] for line in text.splitlines() if line.startswith("module ")]
        else:
            assert json.loads(path.read_text())["top"] == path.stem
    assert len(modules) == len(set(modules)), "two tops define a module of one name"


@pytest.mark.parametrize("preset", PRESETS)
def test_kv_engines_say_what_they_are_built_for(preset):
    parameters = {top.name: top.parameters for top in tops(preset)}
    for name, engine in KV_ENGINES.get(preset, {}).items():
        stated = json.loads(json.dumps(parameters[name]))
        assert stated["lanes"] == engine.lanes
        assert stated["max_channels"] == engine.max_channels
        assert set(stated["transforms"]) == {transform.name for transform in engine.transforms}

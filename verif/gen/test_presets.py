"""The real tops, through the real command: emitted without torch, the same bytes everywhere, and clean of warnings."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gen
from gen.tops import tops
from gen.verilog import to_verilog
from hw.tops.core import AcceleratorCoreAxi
from sim.build import lint
from spec.system import SYSTEMS, core_preset
from verif.gen.test_names import keywords_in

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


VERILOG = ("paper", "tiny", "dense", "edge")
"""Presets whose Verilog is emitted here: the others are `dense` with other digits or widths."""
AGAIN = ("core", "kv_dequantizer_axi", "kv_address_generator_axi")
"""Tops of ``tiny`` that are emitted twice: one of each kind."""


def verilog(preset: str, out: Path, hash_seed: str, names: tuple[str, ...] = ()) -> None:
    out.mkdir()
    chosen = [word for name in names for word in ("--top", name)]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "verilog", "--preset", preset, "--out", "rtl", *chosen],
        cwd=out,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        check=True,
    )


@pytest.mark.parametrize(
    "preset", ["tiny", *(pytest.param(name, marks=pytest.mark.full) for name in VERILOG if name != "tiny")]
)
def test_every_top_is_stable_and_clean(tmp_path, preset):
    verilog(preset, tmp_path / "0", "0")
    again = preset == "tiny"
    if again:
        verilog(preset, tmp_path / "99", "99", AGAIN)
        assert {path.stem for path in (tmp_path / "99" / "rtl").iterdir()} == set(AGAIN)
    files = sorted((tmp_path / "0" / "rtl").iterdir())
    assert files
    modules = []
    for path in files:
        assert (
            not (again and path.stem in AGAIN)
            or path.read_bytes() == (tmp_path / "99" / "rtl" / path.name).read_bytes()
        ), path.name
        if path.suffix == ".v":
            lint(path, path.stem)
            text = path.read_text()
            assert " initial " not in text
            assert not keywords_in(text), path.name
            modules += [line.split()[1].split("(")[0] for line in text.splitlines() if line.startswith("module ")]
        else:
            assert json.loads(path.read_text())["top"] == path.stem
    assert len(modules) == len(set(modules)), "two tops define a module of one name"


@pytest.mark.full
def test_large_array_is_quick_and_small():
    """32 x 32 PEs: the modules of 8 x 8, and most of their text."""
    texts, started = [], time.process_time()
    for size in (8, 32):
        component = AcceleratorCoreAxi(core_preset("dense", rows=size, columns=size))
        started = time.process_time()
        texts.append(to_verilog(component, "core")[0])
    seconds = time.process_time() - started
    print(f"32 x 32 PEs: {seconds:.0f} s of CPU time, {len(texts[1]):,} bytes of Verilog")
    small, large = (set(re.findall(r"^module (\w+?)(?:_\d+)?\b", text, re.MULTILINE)) for text in texts)
    assert large == small
    assert seconds < 60
    assert len(texts[1]) < 4e6


@pytest.mark.parametrize("preset", SYSTEMS)
def test_kv_engines_say_what_they_are_built_for(preset):
    parameters = {top.name: top.parameters for top in tops(preset)}
    for name, engine in SYSTEMS[preset].kv_engines.items():
        stated = json.loads(json.dumps(parameters[name]))
        assert stated["lanes"] == engine.lanes
        assert stated["max_channels"] == engine.max_channels
        assert (stated["interleave"], stated["centre"]) == (engine.interleave, engine.centre)
        assert set(stated["transforms"]) == {transform.name for transform in engine.transforms}


def test_synthesis_takes_the_parts_of_the_bit_serial_core():
    """The core of `paper`, whose parts are tops, only when it is named; others with their presets."""
    on_request = {preset: [top.name for top in tops(preset) if top.on_request] for preset in SYSTEMS}
    assert on_request == {preset: ["core"] if preset == "paper" else [] for preset in SYSTEMS}

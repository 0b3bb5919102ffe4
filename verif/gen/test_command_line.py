"""The ``bitmosaic`` command: what it leaves behind, and how it refuses."""

import json
import shutil
import sys
import types

import pytest
from typer.testing import CliRunner

from gen import cli
from gen.synth import liberty
from gen.synth.liberty import GENERIC
from spec import checks
from verif.gen.toys import Adder, Buffer, Clash, ToyTop

TOPS = {"paper": [ToyTop("adder", Adder), ToyTop("buffer", Buffer)], "broken": [ToyTop("x", Adder), ToyTop("y", Clash)]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in an empty directory with toy presets."""
    toys = types.ModuleType("gen.tops")
    toys.tops = lambda preset: checks.named("preset", preset, TOPS)
    monkeypatch.setitem(sys.modules, "gen.tops", toys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIBERTY", raising=False)
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


def test_verilog_leaves_every_top_and_its_sidecar(run, tmp_path):
    result = run("verilog")
    assert result.exit_code == 0, result.output
    left = sorted(path.name for path in (tmp_path / "build/verilog").iterdir())
    assert left == ["adder.json", "adder.v", "buffer.json", "buffer.v"]
    assert run("verilog", "--out", "elsewhere/rtl").exit_code == 0
    assert (tmp_path / "elsewhere/rtl/adder.v").read_bytes() == (tmp_path / "build/verilog/adder.v").read_bytes()


def test_synth_leaves_a_report(run, tmp_path):
    result = run("synth")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "build/synth/report.json").read_text())
    assert [(row["top"], row["preset"], row["library"]) for row in rows] == [
        ("adder", "paper", "generic"),
        ("buffer", "paper", "generic"),
    ]
    assert (rows[0]["flipflops"], rows[0]["memory_bits"]) == (18, 0)
    assert (rows[1]["flipflops"], rows[1]["memory_bits"]) == (0, 128)
    for row in rows:
        assert row["gate_equivalents"] > 0
        assert row["delay_ps"] > 0
        assert row["delay_tool"] in ("OpenSTA", "ABC stime")
        assert (row["area_um2"], row["estimate"]) == (None, True)
        assert len(row["variants"]) == 6
    assert "an estimate" in result.output


def test_synth_of_one_top_with_a_library_from_the_environment(run, tmp_path, monkeypatch):
    library = tmp_path / "house cells.lib"
    library.write_text(GENERIC.read_text().replace("bitmosaic_generic", "house_cells"))
    monkeypatch.setenv("LIBERTY", str(library))
    result = run("synth", "--top", "adder")
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "build/synth/report.json").read_text())
    assert (row["top"], row["library"], row["estimate"]) == ("adder", "house_cells", False)
    assert row["area_um2"] == pytest.approx(row["gate_equivalents"])


def test_liberty_paths_may_share_an_argument(tmp_path, monkeypatch):
    monkeypatch.delenv("LIBERTY", raising=False)
    assert liberty.liberty_paths(None) == []
    assert [str(path) for path in liberty.liberty_paths(["a.lib:b.lib c.lib", "d.lib"])] == [
        "a.lib",
        "b.lib",
        "c.lib",
        "d.lib",
    ]
    spaced = tmp_path / "one file.lib"
    shutil.copy(GENERIC, spaced)
    assert liberty.liberty_paths([str(spaced)]) == [spaced]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verilog", "--preset", "huge"), "preset must be one of paper, broken, not 'huge'"),
        (("synth", "--preset", "huge"), "preset must be one of paper, broken, not 'huge'"),
        (("synth", "--top", "pe"), "top must be one of adder, buffer, not 'pe'"),
        (("synth", "--liberty", "absent.lib"), "cannot read Liberty file"),
        (("synth", "--target-ps", "-1"), "target_ps must be a positive number of picoseconds, not -1"),
        (("verilog", "--preset", "broken"), "two submodules would both be called y__a__b"),
    ],
)
def test_user_errors_are_one_line_and_leave_nothing(run, tmp_path, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("bitmosaic: ")
    assert message in line
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("*.*"))


def test_out_that_is_a_file(run, tmp_path):
    (tmp_path / "taken").write_text("mine")
    result = run("verilog", "--out", "taken")
    assert result.exit_code == 2
    assert "out must be a directory, and taken is a file" in result.stderr
    assert (tmp_path / "taken").read_text() == "mine"

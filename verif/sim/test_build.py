"""sim.build: what is built when, and what the tools refuse."""

import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from sim.build import CACHE, ROOT, BuildError, build, lint

SOUND = """
module sound(input clk, input [7:0] a, output reg [7:0] q);
  always @(posedge clk) q <= a;
endmodule
"""
TRUNCATES = "module sound(input [7:0] a, output [3:0] q);\n  assign q = a;\nendmodule\n"
LATCH = "module sound(input e, input a, output reg q);\n  always @* if (e) q = a;\nendmodule\n"
LOOP = "module sound(input a, output q);\n  wire [1:0] w = {w[0] ^ a, w[1]};\n  assign q = w[0];\nendmodule\n"
EXPANDS = (
    "module sound(input signed [3:0] a, output signed [7:0] q);\n  wire unused = a[0];\n  assign q = a;\nendmodule\n"
)

pytestmark = pytest.mark.sim


@pytest.fixture
def source(tmp_path):
    """A design never built before; its builds, in the project's own cache, are removed afterwards."""
    mark = uuid.uuid4().hex
    path = tmp_path / "sound.v"
    path.write_text(f"// {mark}\n{SOUND}")
    yield path
    for copy in CACHE.glob("sound-*/sound.v"):
        if mark in copy.read_text():
            shutil.rmtree(copy.parent)


def edit(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_same_content_is_built_once(source, tmp_path):
    first = build(source, "sound")
    assert first.seconds > 0
    stamp = first.executable.stat().st_mtime_ns
    moved = tmp_path / "elsewhere" / "sound.v"
    moved.parent.mkdir()
    shutil.copy(source, moved)
    second = build(moved, "sound")
    assert (second.executable, second.seconds) == (first.executable, 0)
    assert second.executable.stat().st_mtime_ns == stamp
    assert second.verilog[0].read_text() == source.read_text()

    assert build(moved, "sound", defines={"X": 1}).key != first.key
    edit(source, "q <= a", "q <= ~a")
    assert build(source, "sound").key != first.key


def test_runtime_is_compiled_once(source):
    built = build(source, "sound")
    log = (built.executable.parent / "build.log").read_text()
    assert re.search(r"/runtime-\w+/verilated_vpi\.o", log), "the shared runtime is linked"
    stamps = {path: path.stat().st_mtime_ns for path in CACHE.glob("runtime-*/*.o")}
    edit(source, "q <= a", "q <= ~a")
    log = (build(source, "sound").executable.parent / "build.log").read_text()
    assert "verilated_vpi.cpp" not in log
    assert stamps.items() <= {path: path.stat().st_mtime_ns for path in CACHE.glob("runtime-*/*.o")}.items()


def test_processes_build_together(source):
    code = (
        "import sys; from pathlib import Path; from sim.build import build\n"
        "print(build(Path(sys.argv[1]), 'sound').seconds > 0)"
    )
    command = [sys.executable, "-c", code, str(source)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert sorted(outputs) == ["False", "False", "True"]


def test_first_build_makes_the_runtime_and_leaves_no_scratch(source, tmp_path, monkeypatch):
    """In a cache of its own, with the optimiser off to save time."""
    monkeypatch.setattr("sim.build.OPT_RUNTIME", "-O0")
    built = build(source, "sound", cache=tmp_path / "cache")
    assert {path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()} == {"locks", "runtime", "sound"}
    assert sorted(path.name for path in built.executable.parent.iterdir()) == ["build.log", "sound", "sound.v"]


def test_large_design(source):
    """Verilator splits the model of a large design, and has the parts compiled with a precompiled header."""
    built = build(source, "sound", options=["--output-split", "200"])
    assert ".gch" in (built.executable.parent / "build.log").read_text()


def test_refused_design_leaves_nothing(source, tmp_path):
    source.write_text("module sound(input clk); oops endmodule\n")
    with pytest.raises(BuildError, match="syntax error"):
        build(source, "sound", cache=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["locks"]


@pytest.mark.parametrize(("text", "warning"), [(TRUNCATES, "WIDTHTRUNC"), (LATCH, "LATCH"), (LOOP, "UNOPTFLAT")])
def test_warnings_that_matter_are_fatal(source, text, warning):
    source.write_text(text)
    with pytest.raises(BuildError, match=warning):
        lint(source, "sound")
    with pytest.raises(BuildError, match=warning):
        build(source, "sound")


def test_documented_waivers(source):
    source.write_text(EXPANDS)
    lint(source, "sound")


def test_missing_things_are_named(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.v does not exist"):
        build(tmp_path / "nowhere.v", "sound")
    with pytest.raises(ValueError, match="at least one file"):
        build([], "sound")
    with pytest.raises(BuildError, match="absent"):
        build(source, "absent")


def test_missing_compiler_is_named(monkeypatch):
    from sim.toolchain import compiler

    compiler.cache_clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BuildError, match=r"c\+\+ not found on PATH: install"):
        compiler()
    compiler.cache_clear()

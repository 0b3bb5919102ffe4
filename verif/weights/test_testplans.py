"""Testplans and tests agree: every test that a plan names exists, and every test is named by a plan."""

import ast
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLANS = sorted((HERE / "testplans").glob("*.toml"))
FIELDS = {"name", "description", "stage", "tests"}
STAGES = {"directed", "coverage"}


def existing() -> set[str]:
    """``file::function`` of every test of this package."""
    found = set()
    for path in HERE.glob("test_*.py"):
        if path.name != Path(__file__).name:
            functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
            found |= {f"{path.name}::{node.name}" for node in functions if node.name.startswith("test_")}
    return found


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plan_is_complete(path):
    plan = tomllib.loads(path.read_text())
    assert plan["block"]
    for point in plan["testpoint"]:
        assert set(point) == FIELDS
        assert point["stage"] in STAGES
        assert point["description"]
        assert set(point["tests"]) <= existing(), f"{point['name']} names tests that do not exist"


def test_every_test_is_planned():
    named = {
        test for path in PLANS for point in tomllib.loads(path.read_text())["testpoint"] for test in point["tests"]
    }
    assert named == existing()

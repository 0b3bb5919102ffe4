"""Testplan and tests agree: every test that the plan names exists, and every test is named by it."""

import ast
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PLAN = HERE / "testplan.toml"
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


def test_plan_and_tests_agree():
    plan = tomllib.loads(PLAN.read_text())
    assert plan["block"]
    named = []
    for point in plan["testpoint"]:
        assert set(point) == FIELDS
        assert point["stage"] in STAGES
        assert point["description"]
        named += point["tests"]
    assert len(named) == len(set(named))
    assert set(named) == existing()

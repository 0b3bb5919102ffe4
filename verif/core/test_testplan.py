"""The core's test plan names tests that exist, and all of them."""

import ast
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def test_plan_and_tests_agree():
    plan = tomllib.loads((HERE / "testplan.toml").read_text())["testpoint"]
    named = [test for point in plan for test in point["tests"]]
    assert len({point["name"] for point in plan}) == len(plan)
    assert all(point["description"] and point["stage"] in ("V1", "V2", "V3") for point in plan)
    present = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        if path.name != Path(__file__).name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert sorted(named) == sorted(present)

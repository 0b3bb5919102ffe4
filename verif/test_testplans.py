"""Testplans and tests agree, in every room that has a plan."""

import ast
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLANS = sorted([*HERE.rglob("testplan.toml"), *HERE.glob("*/testplans/*.toml")])
FIELDS = {"name", "description", "stage", "tests"}
STAGES = {"V1", "V2", "V3"}


def room(plan: Path) -> str:
    return plan.relative_to(HERE).parts[0]


def functions_of(path: Path) -> set[str]:
    """``room/file::function`` of every test of a file."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    name = path.relative_to(HERE).as_posix()
    return {f"{name}::{node.name}" for node in functions if node.name.startswith("test_")}


def points(plan: Path) -> list[dict]:
    return tomllib.loads(plan.read_text())["testpoint"]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.relative_to(HERE).as_posix())
def test_points_are_whole_and_their_tests_exist(plan):
    assert tomllib.loads(plan.read_text()).get("block"), "a plan says what it is of: block"
    assert len({point["name"] for point in points(plan)}) == len(points(plan)), "a name twice"
    for point in points(plan):
        assert set(point) == FIELDS, point["name"]
        assert point["stage"] in STAGES, point["name"]
        assert point["description"], point["name"]
        assert point["tests"], point["name"]
        for test in point["tests"]:
            assert test in functions_of(HERE / test.split("::")[0]), f"{point['name']} names a test that does not exist"


@pytest.mark.parametrize("name", sorted({room(plan) for plan in PLANS}))
def test_every_test_of_a_room_with_a_plan_is_in_one(name):
    named = [test for plan in PLANS for point in points(plan) for test in point["tests"]]
    assert len(named) == len(set(named)), "a test is named twice"
    unnamed = {test for path in (HERE / name).glob("test_*.py") for test in functions_of(path)} - set(named)
    assert not unnamed, f"in no plan: {sorted(unnamed)}"

"""Testplans and tests agree: what the ``test_testplan`` of each package checks."""

import ast
import tomllib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FIELDS", "check_plans", "tests_of"]

FIELDS = {"name", "description", "stage", "tests"}


def tests_of(directory: Path) -> set[str]:
    """``file::function`` of every test of a package but those of its testplan."""
    found = set()
    for path in directory.glob("test_*.py"):
        if not path.name.startswith("test_testplan"):
            functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
            found |= {f"{path.name}::{node.name}" for node in functions if node.name.startswith("test_")}
    return found


def check_plans(directory: Path, plans: Iterable[Path], *, stages: set[str], names_block: bool = True) -> None:
    """Asserts that the plans' points are whole, that the tests they name exist, and that every test is named.

    Parameters
    ----------
    directory : Path
        The package.
    plans : iterable of Path
        Its plans, TOML.
    stages : set of str
        What a point may be for.
    names_block : bool
        Each plan must say what block it is of.
    """
    named = []
    for path in plans:
        plan = tomllib.loads(path.read_text())
        assert plan.get("block") or not names_block, path.name
        points = plan["testpoint"]
        assert len({point["name"] for point in points}) == len(points), f"{path.name}: a name twice"
        for point in points:
            assert set(point) == FIELDS, f"{path.name}: {point['name']}"
            assert point["stage"] in stages, f"{path.name}: {point['name']}"
            assert point["description"], f"{path.name}: {point['name']}"
            missing = set(point["tests"]) - tests_of(directory)
            assert not missing, f"{path.name}: {point['name']} names tests that do not exist: {missing}"
            named += point["tests"]
    assert len(named) == len(set(named)), "a test is named twice"
    assert set(named) == tests_of(directory), f"in no plan: {tests_of(directory) - set(named)}"

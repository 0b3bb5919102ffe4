"""What every test shares: one seed, the way to replay a failure, and the mark of tests that simulate."""

import os
import random

import numpy as np
import pytest

# Two test processes on two cores: threads inside each would only fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seed", default="1", help="seed of every random test: a number in 1..2**31 - 1, or `random` (default 1)"
    )

    parser.addoption("--full", action="store_true", help="run what is marked `full`, too (make test-full)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests that show no more than shorter ones, only of larger builds, are for `make test-full`."""
    if not config.option.full:
        long = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        config.option.seed = config.workerinput["seed"]
    elif config.option.seed == "random":
        config.option.seed = str(random.SystemRandom().randrange(1, 1 << 31))
    if not config.option.seed.isdigit() or not 1 <= int(config.option.seed) < 1 << 31:
        raise pytest.UsageError(f"--seed must be `random` or a number in 1..2**31 - 1, not {config.option.seed!r}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Test processes take the seed that was drawn for the session."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Seed of this run (``--seed``); a failing test prints it with the command that replays it."""
    return int(request.config.option.seed)


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> np.random.Generator:
    """NumPy generator that follows from the seed and the name of the test."""
    return np.random.default_rng([seed, *request.node.nodeid.encode()])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    outcome = yield
    report = outcome.get_result()
    if report.failed and {"seed", "rng"} & set(getattr(item, "fixturenames", ())):
        option = item.config.option.seed
        report.sections.append(("replay", f"seed {option}: python -m pytest '{item.nodeid}' --seed {option}"))


@pytest.fixture(autouse=True)
def _simulating_tests_are_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make sim` selects by the mark, so a test that simulates without it would be left out in silence."""
    if request.node.get_closest_marker("sim") is None:
        import sim.runner

        def refuse(*_args, **_kwargs):
            pytest.fail("this test runs a simulator: mark it with @pytest.mark.sim")

        monkeypatch.setattr(sim.runner, "simulate", refuse)

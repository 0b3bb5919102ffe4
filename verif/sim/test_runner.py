"""sim.runner: what comes back from a run, and how each way of failing is reported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim import runner
from sim.build import build
from sim.runner import SimulationError, run
from verif.shell.test_processes import HOSTILE

DESIGN = Path(__file__).with_name("defects.v")
BENCH = "verif.sim.tb_runner"
VALUES = np.array([[1, 2], [3, 4]], np.uint32)


@pytest.fixture(scope="module")
def design():
    return build(DESIGN, "defects")


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.mark.sim
def test_data_crosses_both_ways(design, runs):
    result = run(design, BENCH, "passes", vectors={"values": VALUES}, options={"option": 7}, runs=runs)
    np.testing.assert_array_equal(result.data["doubled"], VALUES * 2)
    assert result.data["option"] == 7
    assert [(test.name, test.status) for test in result.tests] == [(f"{BENCH}.passes", "passed")]
    assert not list(runs.iterdir()), "a run that passed leaves no files"


@pytest.mark.sim
def test_failure_names_test_reason_seed_and_replay(design, runs):
    with pytest.raises(SimulationError) as caught:
        run(design, BENCH, ["passes", "fails"], vectors={"values": VALUES}, options={"option": 1}, seed=1234, runs=runs)
    message = str(caught.value)
    assert f"{BENCH}.fails failed" in message
    assert "beat 17: got 4, expected 3" in message
    assert f"{BENCH}.passes" not in message
    assert "seed 1234; replay: " in message

    command = message.rsplit("replay: ", 1)[1]
    again = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert again.returncode == 1
    assert "beat 17: got 4, expected 3" in again.stderr
    assert "Seeding Python random module with 1234" in again.stdout


@pytest.mark.sim
def test_settings_of_the_user_change_nothing(design, runs, monkeypatch):
    """Neither do they end a good run, nor do they let a bad one pass."""
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    result = run(design, BENCH, "passes", vectors={"values": VALUES}, options={"option": 7}, runs=runs)
    np.testing.assert_array_equal(result.data["doubled"], VALUES * 2)
    with pytest.raises(SimulationError, match="beat 17: got 4, expected 3"):
        run(design, BENCH, "fails", vectors={"values": VALUES}, options={"option": 1}, runs=runs)


@pytest.mark.sim
def test_crash_shows_the_end_of_the_log(design, runs):
    with pytest.raises(SimulationError, match=r"(?s)ended without results.*running verif.sim.tb_runner.crashes"):
        run(design, BENCH, "crashes", runs=runs)


@pytest.mark.sim
def test_run_out_of_time_is_killed(design, runs):
    with pytest.raises(SimulationError, match="killed after 3 s"):
        run(design, BENCH, "hangs", timeout=3, runs=runs)


@pytest.mark.sim
def test_no_test_is_a_failure(design, runs):
    with pytest.raises(SimulationError, match=r"no test ran|without results"):
        run(design, BENCH, "passe", runs=runs)


@pytest.mark.sim
def test_streams_served_in_pieces(design, runs, seed):
    result = run(design, BENCH, "continues", seed=seed, runs=runs)
    assert result.cycles > 100


@pytest.mark.sim
def test_seed_decides_power_up_values(design, runs):
    def held(seed: int) -> tuple[int, int]:
        data = run(design, BENCH, "power_up", seed=seed, runs=runs).data
        return int(data["held"]), int(data["random"])

    first, second = held(1), held(2)
    assert first == held(1)
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.sim
def test_waves(runs):
    design = build(DESIGN, "defects", trace=True)
    run(design, BENCH, "continues", waves=True, keep=True, runs=runs)
    (directory,) = runs.iterdir()
    assert "$var" in (directory / "dump.vcd").read_text()


@pytest.mark.sim
def test_coverage(runs):
    design = build(DESIGN, "defects", coverage=True)
    run(design, BENCH, "continues", keep=True, runs=runs)
    (directory,) = runs.iterdir()
    points = (directory / "coverage.dat").read_text().splitlines()[1:]
    hits = [int(point.rsplit(" ", 1)[1]) for point in points]
    assert any(hits)
    assert not all(hits), "a design that was barely exercised has points never hit"


@pytest.mark.sim
def test_bad_arguments_are_named(design, runs):
    with pytest.raises(ValueError, match=r"seed must be in 1..2\*\*31 - 1, not 0"):
        run(design, BENCH, seed=0, runs=runs)
    with pytest.raises(ValueError, match=r"waves needs a design built with build\(..., trace=True\)"):
        run(design, BENCH, waves=True, runs=runs)
    with pytest.raises(TypeError, match=r"vectors\['x'\] must be an array of numbers"):
        run(design, BENCH, vectors={"x": np.array([1 << 80])}, runs=runs)


def test_missing_libpython_names_the_remedy(monkeypatch):
    import find_libpython

    monkeypatch.setattr(find_libpython, "find_libpython", lambda: None)
    runner.libpython.cache_clear()
    with pytest.raises(SimulationError, match=r"shared libpython.*Remedy: .*libpython3.11.*--enable-shared"):
        runner.libpython()
    runner.libpython.cache_clear()


def test_replay_refuses_other_directories(tmp_path):
    command = [sys.executable, "-m", "sim.runner", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runner.ROOT)
    assert done.returncode == 2
    assert "holds no run.json" in done.stderr

"""Run a cocotb test module against a built design, from plain Python or pytest.

``python -m sim.runner DIRECTORY`` runs a recorded run again, with the same stimulus and seeds.
"""

import argparse
import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from xml.etree import ElementTree

import numpy as np

from shell import processes
from sim import exchange
from sim.build import ROOT, Built

__all__ = ["RUNS", "RunResult", "SimulationError", "TestResult", "run"]

RUNS = ROOT / "build" / "sim" / "runs"
JUNIT = ROOT / "build" / "sim" / "junit"
NO_LIBPYTHON = (
    "cocotb needs a shared libpython, and {python} has none. Remedy: install it (Debian, Ubuntu: apt install "
    "libpython3.11), or build the interpreter with it (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.11)"
)


class SimulationError(processes.ToolError, AssertionError):
    """A cocotb test failed, or the simulator did not finish. The message says which, why, and how to run it again."""


@dataclass(frozen=True)
class TestResult:
    """Outcome of one cocotb test: ``status`` is passed, failed, error or skipped."""

    __test__ = False

    name: str
    status: str
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class RunResult:
    """Outcome of :func:`run`.

    Attributes
    ----------
    cycles : int
        Clock cycles simulated by the benches of the run.
    seconds : float
        Wall time of the simulator process.
    tests : tuple[TestResult, ...]
        One per cocotb test.
    data : dict[str, numpy.ndarray]
        What the tests left with :func:`sim.exchange.save`.
    """

    cycles: int
    seconds: float
    tests: tuple[TestResult, ...]
    data: dict[str, np.ndarray] = field(default_factory=dict)


@functools.cache
def libpython() -> str:
    """Path of the shared libpython cocotb embeds; raises `SimulationError` naming the remedy when there is none."""
    import find_libpython

    path = find_libpython.find_libpython()
    if path is None:
        raise SimulationError(NO_LIBPYTHON.format(python=sys.executable))
    return path


_counter = itertools.count()


def new_directory(name: str, runs: Path) -> Path:
    """An empty directory for one run, named after the pytest test that is running, if any."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)").split("::", 1)[-1]
    label = re.sub(r"[^\w.=-]+", "_", f"{test or name}").strip("_")[:120]
    path = runs / f"{label}-{os.getpid()}-{next(_counter)}"
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def run(
    built: Built,
    test_module: str,
    testcase: str | Sequence[str] | None = None,
    *,
    vectors: Mapping[str, np.ndarray] | None = None,
    options: Mapping[str, object] | None = None,
    seed: int = 1,
    plusargs: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    waves: bool = False,
    timeout: float = 900.0,
    keep: bool = False,
    runs: Path = RUNS,
) -> RunResult:
    """Run cocotb tests on ``built`` in a simulator process and wait for it.

    Parameters
    ----------
    built : Built
        From :func:`sim.build.build`.
    test_module : str
        Importable module with ``@cocotb.test`` functions, for instance ``"verif.pe.tb_pe"``.
    testcase : str or sequence of str, optional
        Tests to run; default all of the module.
    vectors : mapping of str to numpy.ndarray, optional
        Stimulus, read with :func:`sim.exchange.vectors`. Arrays of objects are refused.
    options : mapping, optional
        Anything JSON, read with :func:`sim.exchange.options`.
    seed : int
        Seeds cocotb, the benches, and the values registers power up with; 1..2**31 - 1.
    plusargs : sequence of str
        Further arguments of the simulator.
    env : mapping, optional
        Further environment variables.
    waves : bool
        Record ``dump.vcd`` in the run's directory (needs ``build(..., trace=True)``).
    timeout : float
        Wall-clock seconds after which the simulator is killed.
    keep : bool
        Keep the directory of a run that passed; that of a failed run is always kept.
    runs : Path
        Where runs are recorded, one directory each.

    Raises
    ------
    SimulationError
        A test failed, none ran, or the simulator crashed or ran out of time.
    """
    if not 1 <= seed < 1 << 31:
        raise ValueError(f"seed must be in 1..2**31 - 1, not {seed}")
    if waves and not built.trace:
        raise ValueError("waves needs a design built with build(..., trace=True)")
    for name, array in (vectors or {}).items():
        if np.asarray(array).dtype == object:
            raise TypeError(f"vectors[{name!r}] must be an array of numbers, not of objects")

    directory = new_directory(test_module, runs)
    np.savez(directory / exchange.STIMULUS, **(vectors or {}))
    (directory / exchange.OPTIONS).write_text(json.dumps(dict(options or {})))
    names = [testcase] if isinstance(testcase, str) else list(testcase or ())
    command = [str(built.executable), f"+verilator+seed+{seed}", "+verilator+rand+reset+2", *plusargs]
    command += ["--trace"] if waves else []
    variables = {
        "COCOTB_TOPLEVEL": built.top,
        "COCOTB_TEST_MODULES": test_module,
        "COCOTB_RANDOM_SEED": str(seed),
        **(four_state(built) if built.unknown else {}),
        **({"COCOTB_TEST_FILTER": rf"\.({'|'.join(map(re.escape, names))})$"} if names else {}),
        **(env or {}),
    }
    record = {"command": command, "environment": variables, "timeout": timeout}
    (directory / "run.json").write_text(json.dumps(record, indent=2))

    seconds = simulate(directory)
    if runs == RUNS and (directory / "results.xml").exists():
        JUNIT.mkdir(parents=True, exist_ok=True)
        shutil.copy(directory / "results.xml", JUNIT / f"{directory.name}.xml")
    result = collect(directory, seconds)
    if not keep:
        shutil.rmtree(directory)
    return result


def four_state(built: Built) -> dict[str, str]:
    """Variables of a run in a four-state simulator (:mod:`sim.ports`)."""
    quiet = " ".join(built.quiet)
    return {"BITMOSAIC_UNKNOWN": built.unknown, "BITMOSAIC_QUIET": quiet, "COCOTB_TRUST_INERTIAL_WRITES": "0"}


def simulate(directory: Path) -> float:
    """Run the simulator as recorded in ``directory``; returns its wall time in seconds."""
    import cocotb_tools.config

    record = json.loads((directory / "run.json").read_text())
    path = os.pathsep.join(dict.fromkeys([str(ROOT), *filter(None, sys.path)]))
    settings = {
        "PYTHONPATH": path,
        "PYGPI_PYTHON_BIN": sys.executable,
        "GPI_USERS": f"{libpython()};{cocotb_tools.config.pygpi_entry_point()}",
        "TOPLEVEL_LANG": "verilog",
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "COCOTB_RESULTS_FILE": str(directory / "results.xml"),
        "COCOTB_ANSI_OUTPUT": "0",
        # cocotb takes its readable assertions from pytest: for test benches only, and without pytest's plugins, since
        # rewriting NumPy's assertions and loading plugins would make up most of a short run.
        "COCOTB_REWRITE_ASSERTION_FILES": "tb_*.py *_tb.py *_bench.py test_*.py",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        exchange.VARIABLE: str(directory),
        **record["environment"],
    }
    start = perf_counter()
    options = {"cwd": directory, "env": processes.environment(**settings), "timeout": record["timeout"]}
    with (directory / "log.txt").open("wb") as log:
        try:
            processes.run(record["command"], stdout=log, stderr=subprocess.STDOUT, **options)
        except subprocess.TimeoutExpired:
            log.write(f"\nkilled after {record['timeout']} s\n".encode())
    return perf_counter() - start


def collect(directory: Path, seconds: float) -> RunResult:
    """Read what a run left; raises `SimulationError` unless every test of it passed."""
    tests = read_junit(directory / "results.xml")
    failed = [test for test in tests if test.status not in ("passed", "skipped")]
    if failed or not any(test.status == "passed" for test in tests):
        reasons = [f"{test.name} {test.status}:\n{test.message}" for test in failed]
        if not tests:
            log = (directory / "log.txt").read_text(errors="replace")
            reasons = [f"the simulator ended without results; the end of its log:\n{log[-4000:]}"]
        elif not failed:
            reasons = ["no test ran"]
        raise SimulationError("\n".join([*reasons, replay_hint(directory)]))
    status = directory / exchange.STATUS
    cycles = json.loads(status.read_text())["cycles"] if status.exists() else 0
    data: dict[str, np.ndarray] = {}
    if (directory / exchange.RESULTS).exists():
        with np.load(directory / exchange.RESULTS) as archive:
            data = dict(archive)
    return RunResult(cycles, seconds, tuple(tests), data)


def replay_hint(directory: Path) -> str:
    seed = json.loads((directory / "run.json").read_text())["environment"]["COCOTB_RANDOM_SEED"]
    command = shlex.join(["cd", str(ROOT)]) + f" && {shlex.quote(sys.executable)} -m sim.runner "
    return f"seed {seed}; replay: {command}{shlex.quote(str(directory))}"


def read_junit(path: Path) -> list[TestResult]:
    """Tests of a JUnit file of cocotb; none when the file is missing or cut off."""
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []
    tests = []
    for case in cases:
        status, message = "passed", ""
        for kind in ("failure", "error", "skipped"):
            for node in case.findall(kind):
                status = {"failure": "failed"}.get(kind, kind)
                message = "\n".join(filter(None, [node.get("message"), node.text]))
        tests.append(
            TestResult(f"{case.get('classname')}.{case.get('name')}", status, float(case.get("time", 0)), message)
        )
    return tests


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.runner", description="Run a recorded simulation again.")
    parser.add_argument("directory", type=Path, help="directory of the run, as printed by the failure")
    directory = parser.parse_args().directory.resolve()
    if not (directory / "run.json").is_file():
        parser.error(f"{directory} holds no run.json: not the directory of a run")
    simulator = json.loads((directory / "run.json").read_text())["command"][0]
    if not Path(simulator).exists():
        parser.error(f"{simulator} is gone: run the test again, which builds it")
    for name in ("results.xml", exchange.RESULTS, exchange.STATUS):
        (directory / name).unlink(missing_ok=True)
    seconds = simulate(directory)
    print((directory / "log.txt").read_text(errors="replace"))
    try:
        result = collect(directory, seconds)
    except SimulationError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(result.tests)} passed, {result.cycles} cycles in {result.seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

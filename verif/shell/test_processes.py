"""Signals, children and the environment: nothing is left behind, nothing leaks in."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shell import processes
from shell.processes import environment, run
from sim.build import ROOT

PROGRAM = """
import signal, sys, time
# Whoever runs the tests in the background may ignore these; a program takes that over.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from shell import console
from shell.output import staged_directory, staged_file, staged_files
from shell.processes import parallel, run

CHILD = ["sh", "-c", "sleep 60 & echo $$ $! > $1/$$; touch $1/ready; wait", "sh", sys.argv.pop()]

def file():
    with staged_file("out") as path:
        path.write_text("half")
        run(CHILD)

def files():
    with staged_files("out") as path:
        (path / "x").write_text("half")
        run(CHILD)

def directory():
    with staged_directory("out/x", ()) as path:
        (path / "x").write_text("half")
        parallel(run, [CHILD] * 6, 2)

app = console.application("waits")
console.command(app, globals()[sys.argv.pop()])
app()
"""


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(condition) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("what", ["file", "files", "directory"])
def test_a_signal_leaves_neither_part_files_nor_orphans(tmp_path, number, what):
    home, numbers = tmp_path / "home", tmp_path / "numbers"
    home.mkdir()
    numbers.mkdir()
    command = [sys.executable, "-c", PROGRAM, what, str(numbers)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=home, env=variables, stderr=subprocess.PIPE, process_group=0)
    assert wait_for((numbers / "ready").exists)
    process.send_signal(number)
    if number != signal.SIGINT:
        process.send_signal(signal.SIGHUP)  # as when a terminal closes
    assert process.wait(30) not in (0, None)
    assert b"Traceback" not in process.stderr.read()
    family = [int(number) for path in numbers.iterdir() for number in path.read_text().split()]
    assert family
    assert wait_for(lambda: not any(map(alive, family)))
    assert not list(home.iterdir())


def test_handlers_of_others_are_left_alone():
    def mine(*_):
        pass

    handlers = {signal.SIGTERM: mine, signal.SIGHUP: signal.SIG_IGN, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with processes.orderly_end():
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_slow_children_get_all_their_input():
    text = "line\n" * 100_000
    done = run(["sh", "-c", "sleep 0.5; cat"], input=text, text=True, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, text)


def test_a_child_out_of_time_is_ended_with_its_children(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sh", "-c", "sleep 60 & echo $! > number; wait"], cwd=tmp_path, timeout=1)
    assert wait_for(lambda: not alive(int((tmp_path / "number").read_text())))


HOSTILE = {
    "COCOTB_TEST_FILTER": "nothing",
    "COCOTB_TESTCASE": "absent",
    "COCOTB_RESOLVE_X": "ERROR",
    "MODULE": "absent",
    "TESTCASE": "absent",
    "GPI_EXTRA": "absent.so:entry",
    "PYGPI_ENTRY_POINT": "absent:entry",
    "PYTEST_ADDOPTS": "--absent-option",
    "PYTEST_PLUGINS": "absent_plugin",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii:strict",
    "VERILATOR_ROOT": "/absent",
    "MAKEFLAGS": "-n",
    "TORCH_LOGS": "all",
    "LC_ALL": "de_DE.ISO-8859-1",
    "LANG": "tr_TR",
    "TMPDIR": "/absent",
}
"""What users set for other work, each of which would change or end what a child does."""


def test_no_setting_of_the_user_reaches_a_child(monkeypatch):
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MODULEPATH", "kept")
    seen = environment(COCOTB_TOPLEVEL="own")
    assert seen["COCOTB_TOPLEVEL"] == "own"
    assert seen["MODULEPATH"] == "kept"
    assert seen["PATH"] == os.environ["PATH"]
    assert (seen["LC_ALL"], seen["PYTHONUTF8"]) == ("C.UTF-8", "1")
    assert not (HOSTILE.keys() - {"LC_ALL", "TMPDIR"}) & seen.keys()

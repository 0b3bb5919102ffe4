"""What is printed: text from outside as it is, errors as one line, on any terminal."""

import os
import subprocess
import sys

import pytest
from rich.table import Table

from shell import console
from shell.processes import ToolError
from sim.build import ROOT
from verif.shell.test_processes import HOSTILE

NAMES = ["[/x]", "[red]y", "o[/1]/p", "[link=a]", ":smile:", "\\[b]", "{title}", "[", "]", "'[1]'"]


@pytest.mark.parametrize("name", NAMES)
def test_text_from_outside_is_printed_as_it_is(capsys, name):
    console.say(name)
    console.warn(name)
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    console.stdout.print(table)
    with console.progress_bar("pack", 1) as advance:
        advance(name)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == name
    assert shown.out.count(name) == 4
    assert shown.err.splitlines() == [f"warning: {name}", f"pack [1/1] {name}"]


def test_long_lines_are_not_broken(capsys):
    console.say("path/" * 100)
    assert capsys.readouterr().out == "path/" * 100 + "\n"


PROGRAM = r"""
import pathlib, sys
from rich.table import Table
from shell import console

def fail():
    name = "[/x] \xb5\udcff \u65e5\u672c"
    console.say(name)
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    console.stdout.print(table)
    with console.progress_bar("\xb5", 1) as advance:
        advance(name)
    raise ValueError(f"{name} is refused")

app = console.application("fails")
console.command(app, fail)
app()
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TERM": "dumb", "COLUMNS": "20"},
        {"FORCE_COLOR": "1"},
    ],
    ids=str,
)
def test_any_terminal_will_do(variables):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=clean | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert b"bitmosaic: [/x] " in last
    assert last.endswith(b" is refused")


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x"), ToolError("x"), MemoryError("x"), UnicodeError("x")])
def test_errors_of_users_are_one_line(capsys, error):
    from typer.testing import CliRunner

    def fail() -> None:
        raise error

    app = console.application("fails")
    console.command(app, fail)
    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stderr) == (2, "bitmosaic: x\n")


def test_without_assertions_nothing_is_run():
    command = [sys.executable, "-O", "-m", "gen", "registers"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "bitmosaic: Python must run with assertions: without -O, and PYTHONOPTIMIZE unset\n"


@pytest.mark.parametrize("top", ["fp32_adder"])
def test_emission_depends_on_no_setting_of_the_user(tmp_path, top):
    hostile = {name: value for name, value in HOSTILE.items() if name not in ("PYTHONOPTIMIZE", "PYTHONWARNINGS")}
    for name, variables in (("plain", {}), ("hostile", hostile), ("spaces", {"TMPDIR": str(tmp_path / "a [b] c")})):
        (tmp_path / "a [b] c").mkdir(exist_ok=True)
        command = [sys.executable, "-m", "gen", "verilog", "--preset", "tiny", "--top", top, "--out", tmp_path / name]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True)
        assert done.returncode == 0, done.stderr
    texts = {(tmp_path / name / f"{top}.v").read_bytes() for name in ("plain", "hostile", "spaces")}
    assert len(texts) == 1

"""Run Yosys passes in a process of their own.

Yosys numbers the objects it creates from one counter per process and exits the process on error, so nothing here loads
it into the generator: a fresh process per job makes the result depend on the job alone.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from shell.processes import ToolError, run

__all__ = ["YosysError", "run_python", "run_yosys", "yosys_version"]


class YosysError(ToolError):
    """A Yosys pass failed. The message is Yosys' own first error line."""


def run_yosys(passes: Sequence[str], *, cwd: Path) -> str:
    """Run ``passes`` in order on one empty design and return the log.

    Parameters
    ----------
    passes : sequence of str
        Yosys commands, one per item. Relative file names are relative to ``cwd``.

    Raises
    ------
    YosysError
        If a pass fails or the process dies.
    """
    return run_python(Path(__file__).with_name("yosys_worker.py"), "\n".join(passes), cwd=cwd)


def run_python(script: Path, text: str, *, cwd: Path) -> str:
    """Run a Python ``script`` that drives Yosys, with ``text`` as its standard input, and return the log.

    Raises
    ------
    YosysError
        If the process fails.
    """
    command = [sys.executable, "-P", str(script)]
    result = run(command, input=text, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        lines = result.stdout.strip().splitlines()
        # The log's buffer and the error's need not meet at the end of a line.
        errors = re.findall(r"ERROR:.*|.*Error:.*", result.stdout)
        detail = errors[0] if errors else "; ".join(lines[-3:])
        raise YosysError(f"Yosys stopped with code {result.returncode}: {detail}")
    return result.stdout


def yosys_version() -> str:
    """Version of the installed ``pyosys``, the package that carries Yosys and ABC."""
    from importlib.metadata import version

    return version("pyosys")

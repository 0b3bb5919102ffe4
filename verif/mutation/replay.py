"""A simulator of many mutants that replays recorded traces (``replay.cpp``)."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from shell import processes
from sim.build import CACHE, OPT_MODEL, runtime_objects
from sim.toolchain import call, make, verilator
from verif.mutation.traces import Ports

__all__ = ["compile_replay", "run_replay", "write_layout"]

MAIN = Path(__file__).with_name("replay.cpp")
QUIET = (
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "-Wno-UNOPTFLAT",
    "--no-assert",
    "--x-initial",
    "unique",
    "--x-assign",
    "unique",
)
WORDS = 3
"""At least, so that Verilator makes the port an array."""


def wrapper(ports: Ports) -> str:
    """The top with all inputs and all outputs as one port each."""
    sizes = {way: 32 * max(WORDS, count) for way, count in ports.words.items()}
    used = {"input": "i", "output": "o"}
    pins = [f".{name}({used[way]}[{low} +: {width}])" for name, (way, low, width) in ports.place.items()]
    spare = f"assign o[{sizes['output'] - 1}:{ports.width['output']}] = 0;"
    return f"""module replay(input clk, input [{sizes["input"] - 1}:0] i, output [{sizes["output"] - 1}:0] o,
              input [15:0] mutant_select);
  {spare}
  {ports.top} dut(.{ports.clock}(clk), .mutant_select(mutant_select), {", ".join(pins)});
endmodule
"""


def write_layout(ports: Ports, path: Path) -> None:
    """Where the bits of each stream are."""
    active = 0 if ports.reset.endswith("n") else 1
    lines = [f"{ports.words['input']} {ports.words['output']} {ports.place[ports.reset][1]} {active}"]
    lines.append(str(len(ports.streams)))
    for stream in ports.streams:
        fields = " ".join(f"{low} {width}" for _, low, width in stream.payload)
        lines.append(f"{stream.name} {int(stream.sent)} {stream.valid} {stream.ready} {len(stream.payload)} {fields}")
    levels = [ports.place[name][1:] for name in ports.levels if ports.place[name][0] == "output"]
    lines.append(f"{len(levels)} " + " ".join(f"{low} {width}" for low, width in levels))
    path.write_text("\n".join(lines) + "\n")


def compile_replay(verilog: str, ports: Ports, work: Path) -> Path:
    """The program, in ``work``; not compiled again while the Verilog is the same."""
    program, source = work / "replay", work / "mutants.v"
    text = verilog + wrapper(ports)
    stamp = text + MAIN.read_text()
    if program.exists() and (work / "stamp").exists() and (work / "stamp").read_text() == stamp:
        return program
    work.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    log = work / "build.log"
    generate = ["--cc", "--exe", "--prefix", "Vtop", "--top-module", "replay", "-Mdir", work, "-o", "replay", *QUIET]
    call(verilator(*generate, "--output-split", "20000", MAIN, source), log)
    runtime = runtime_objects(work, CACHE)
    settings = {"OPT_FAST": OPT_MODEL, "OPT_SLOW": "-O0", "VM_GLOBAL_FAST": "", "VM_GLOBAL_SLOW": ""}
    make(work, settings | {"LDLIBS": " ".join(map(str, runtime))}, "default", log)
    (work / "stamp").write_text(stamp)
    return program


def run_replay(
    program: Path, layout: Path, mutants: Sequence[int], traces: Sequence[Path], told: Callable[[int, str, str], None]
) -> list[str]:
    """Every mutant against the traces until one kills it; ``told(number, outcome, where)`` as they come.

    ``silent``: nothing differs; ``timing``: only cycles; anything else is how it was killed. Returns what the program
    says of the traces.

    Raises
    ------
    RuntimeError
        The design without a mutant does not do what was recorded.
    """
    command = [str(program), str(layout), *map(str, mutants), "--", *map(str, traces)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=processes.environment()
    ) as child:
        for line in child.stdout:
            if match := re.fullmatch(r"(\d+) (\w+) (\d+) (\d+)\n", line):
                told(int(match[1]), match[2], f"trace {match[3]}, cycle {match[4]}")
        said = child.stderr.read()
    if child.returncode:
        raise RuntimeError(f"replay: {said.strip()}")
    return said.splitlines()

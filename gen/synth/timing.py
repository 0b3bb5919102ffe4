"""Delay of a mapped netlist: OpenSTA where it is installed, else what ABC printed."""

import functools
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gen.synth.liberty import Library
from shell.processes import run

__all__ = ["Delay", "abc_delay", "delay_tool", "opensta_delay"]

OPENSTA = "OpenSTA"
ABC = "ABC stime"


@dataclass(frozen=True)
class Delay:
    """Shortest clock period in picoseconds, the tool that says so, and where the worst path starts and ends."""

    ps: float
    tool: str
    start: str = ""
    end: str = ""


@functools.cache
def delay_tool() -> tuple[str, str]:
    """Name and version of the tool that gives delays on this machine."""
    if shutil.which("sta") is None:
        return ABC, ""
    shown = run(["sta", "-version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.split()
    return OPENSTA, shown[-1] if shown else ""


def opensta_delay(library: Library, top: str, clocks: list[str], work: Path) -> Delay:
    """Worst path of ``work/netlist.v``: register, input and output to each other, ideal clock, no wires.

    Clock to output and setup are included; inputs arrive at the clock edge and outputs are wanted at the next. A design
    without a flip-flop is timed from input to output.

    Raises
    ------
    RuntimeError
        If OpenSTA stops, or finds no path.
    """
    period = library.target_ps
    source = f"[get_ports {{{' '.join(clocks)}}}]" if clocks else ""
    script = [
        *(f"read_liberty {{{path}}}" for path in library.paths),
        "read_verilog netlist.v",
        f"link_design {top}",
        "set_cmd_units -time ps",
        f"create_clock -name clock -period {period} {source}",
        "set_input_delay 0 -clock clock [all_inputs]",
        "set_output_delay 0 -clock clock [all_outputs]",
        "report_checks -path_delay max -format full -digits 4",
    ]
    (work / "sta.tcl").write_text("\n".join(script) + "\n")
    result = run(
        ["sta", "-no_init", "-no_splash", "-exit", "sta.tcl"],
        cwd=work,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    slack = re.search(r"^\s*(-?[\d.]+)\s+slack \(", result.stdout, re.MULTILINE)
    if result.returncode != 0 or slack is None or "Error:" in result.stdout:
        raise RuntimeError(f"OpenSTA found no worst path of {top}: {result.stdout.strip()[-500:]}")
    netlist = (work / "netlist.v").read_text()
    start, end = (
        _output_net(library, netlist, re.search(rf"^{point}: (\S+)", result.stdout, re.MULTILINE)[1])
        for point in ("Startpoint", "Endpoint")
    )
    return Delay(period - float(slack[1]), OPENSTA, start, end)


def abc_delay(log: str) -> Delay:
    """The delay of the combinational logic that ABC printed last, without clock to output and setup."""
    shown = re.findall(r"Delay =\s*([\d.]+) ps", log)
    return Delay(float(shown[-1]) if shown else 0.0, ABC)


def _output_net(library: Library, netlist: str, point: str) -> str:
    """The net a flip-flop drives says more than the flip-flop's own name; a port stands for itself."""
    instance = re.search(rf"^  (\S+) {re.escape(point)} \(\n(.*?)\);$", netlist, re.MULTILINE | re.DOTALL)
    if instance is None or instance[1] not in library.cells:
        return point
    inputs = library.cells[instance[1]].inputs
    nets = [net for pin, net in re.findall(r"\.(\w+)\((.*?)\),?$", instance[2], re.MULTILINE) if pin not in inputs]
    return nets[0].strip().lstrip("\\") if nets else point

"""Four-state simulation: Icarus Verilog as a simulator for the same benches.

A two-state simulator cannot show an X. Here registers and memories power up unknown, idle payloads are driven unknown
(:mod:`sim.ports`), and a RAM that is written and read at one address in one cycle gives X unless the design passes the
new data on itself.
"""

import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

from amaranth.lib import wiring

from gen.verilog import to_verilog
from sim.build import CACHE, Built, digest
from sim.toolchain import call, cocotb_dirs

__all__ = ["available", "build_four_state", "with_collisions"]

# A memory's name may be escaped: then a space ends it.
_NAME = r"(\\\S+ |[^\s\[]+)"
_MEMORY = re.compile(rf"^  reg \[[^]]+\] {_NAME} ?\[\d+:\d+\];$", re.MULTILINE)
_WRITE = re.compile(rf"^    if \((.+)\)\n      {_NAME}\[(.+?)\] <= ", re.MULTILINE)
_READ = re.compile(rf"^    (?:if \((.+)\)\n      )?(\S+) <= {_NAME}\[(.+)\];$", re.MULTILINE)


def available() -> bool:
    """Whether ``iverilog`` is installed (Debian: apt install iverilog)."""
    return shutil.which("iverilog") is not None


def with_collisions(verilog: str) -> str:
    """The same Verilog whose RAMs read X where they are written in the same cycle."""
    modules = []
    for module in re.split(r"(?m)(?<=^endmodule$)", verilog):
        memories = set(_MEMORY.findall(module))
        writes = {}
        for enable, memory, address in _WRITE.findall(module):
            if memory in memories:
                writes.setdefault(memory, []).append(f"(({enable}) !== 1'b0 && ({address}) === ")

        def read(match: re.Match, writes=writes) -> str:
            enable, register, memory, address = match.groups()
            collisions = " || ".join(f"{write}({address}))" for write in writes.get(memory, ()))
            if not collisions:
                return match[0]
            condition = f"({enable}) && ({collisions})" if enable else collisions
            return f"{match[0]}\n    if ({condition})\n      {register} <= 'bx;"

        modules.append(_READ.sub(read, module))
    return "".join(modules)


def build_four_state(component: wiring.Component, name: str, *, unknown: int, cache: Path = CACHE) -> Built:
    """Emit ``component`` and compile it for Icarus, with RAM collisions; for :func:`sim.runner.run`.

    ``unknown``: whether an unknown bit of an output payload counts as 0 or as 1. What must be known is compared with
    both; what may be anything is masked by whoever compares.
    """
    verilog, ports = to_verilog(component, name)
    text = "`timescale 1ns/1ps\n" + with_collisions(verilog)
    key = digest("icarus", name, text)
    home = cache / f"{name}-{key}"
    built = Built(name, home / f"{name}.sh", (home / f"{name}.v",), key, trace=False, coverage=False, seconds=0.0)
    if not built.executable.exists():
        home.mkdir(parents=True, exist_ok=True)
        built.verilog[0].write_text(text)
        compiled = home / f"{name}.vvp"
        call(["iverilog", "-g2005", "-Wall", "-s", name, "-o", compiled, built.verilog[0]])
        libraries = cocotb_dirs()[0]
        built.executable.write_text(f'#!/bin/sh\nexec vvp -m {libraries}/libcocotbvpi_icarus.so "{compiled}" "$@"\n')
        built.executable.chmod(built.executable.stat().st_mode | stat.S_IXUSR)
    inputs = (port["name"] for port in ports if port["direction"] == "input")
    quiet = tuple(port for port in inputs if port.endswith(("valid", "ready")))
    return replace(built, unknown=str(unknown), quiet=quiet)

"""A flat netlist in Yosys' RTLIL as cells, ports and bits; and how it comes from Verilog and goes back."""

import re
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gen.yosys import run_yosys

__all__ = ["Bit", "Cell", "Netlist", "flatten", "to_verilog"]

Bit = tuple[str, int] | str
"""(wire, index), or a constant: ``0``, ``1``, ``x``."""

_FLAT = ("read_verilog design.v", "hierarchy -top {top}", "proc -noopt", "flatten", "opt_expr", "opt_dff", "opt_clean",
         "setattr -unset src c:*", "write_rtlil flat.il")  # fmt: skip
_PART = re.compile(r"(\\\S+|\$\S+)(?: \[(\d+)(?::(\d+))?\])?|(\d+)'([01xz-]*)|(-?\d+)")
STATE = ("$dff", "$dffe", "$sdff", "$sdffe", "$sdffce", "$adff", "$adffe", "$aldff", "$aldffe", "$mem")
OUTPUTS = ("\\Y", "\\Q", "\\RD_DATA")


@dataclass
class Cell:
    """``ports``: port -> signal as RTLIL writes it."""

    name: str
    kind: str
    parameters: dict[str, str] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)

    @property
    def outputs(self) -> list[str]:
        given = (*OUTPUTS, "\\DATA") if self.kind.startswith("$memrd") else OUTPUTS
        return [port for port in self.ports if port in given]

    @property
    def inputs(self) -> list[str]:
        """All others but clocks."""
        return [port for port in self.ports if port not in self.outputs and not port.endswith("CLK")]

    @property
    def holds_state(self) -> bool:
        return self.kind.startswith(STATE)

    def text(self) -> str:
        lines = [f"  cell {self.kind} {self.name}"]
        lines += [f"    parameter {key} {value}" for key, value in self.parameters.items()]
        lines += [f"    connect {port} {signal}" for port, signal in self.ports.items()]
        return "\n".join([*lines, "  end"])


@dataclass
class Netlist:
    """``wires``: name -> (width, further words of its declaration); ``joins``: pairs of signals, left driven by right;
    ``memories``: declarations."""

    top: str
    wires: dict[str, tuple[int, str]] = field(default_factory=dict)
    memories: list[str] = field(default_factory=list)
    cells: dict[str, Cell] = field(default_factory=dict)
    joins: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> "Netlist":
        found = cls("")
        cell = None
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "module":
                found.top = rest
            elif word == "wire":
                *options, name = rest.split(" ")
                width = int(options[options.index("width") + 1]) if "width" in options else 1
                way = re.search(r"(input|output) \d+", rest)
                found.wires[name] = (width, way[0] if way else "")
            elif word == "memory":
                found.memories.append(line)
            elif word == "cell":
                kind, name = rest.split(" ")
                cell = found.cells[name] = Cell(name, kind)
            elif word == "parameter" and cell:
                *sign, key, value = rest.split(" ", 2 if rest.startswith("signed") else 1)
                cell.parameters[" ".join([*sign, key])] = value
            elif word == "end":
                cell = None
            elif word == "connect":
                if cell:
                    port, _, cell.ports[port] = rest.partition(" ")
                else:
                    left, right = split_pair(rest)
                    found.joins.append((left, right))
            elif word in ("process", "switch", "assign"):
                raise ValueError(f"a netlist must be without processes, not with {line.strip()!r}")
        return found

    def text(self) -> str:
        wires = [
            f"  wire width {width} {way} {name}".replace("  \\", " \\") for name, (width, way) in self.wires.items()
        ]
        joins = [f"  connect {left} {right}" for left, right in self.joins]
        cells = [cell.text() for cell in self.cells.values()]
        return "\n".join([f"module {self.top}", *wires, *self.memories, *cells, *joins, "end", ""])

    def bits(self, signal: str) -> list[Bit]:
        """Its bits, lowest first."""
        found: list[Bit] = []
        for name, high, low, width, digits, number in reversed(_PART.findall(signal)):
            if name and not high:
                found += [(name, index) for index in range(self.wires[name][0])]
            elif name:
                found += [(name, index) for index in range(int(low or high), int(high) + 1)]
            elif number:
                found += [str(int(number) >> index & 1) for index in range(32)]
            else:
                fill = digits[0] if digits[0] in "xz" else "0"
                found += list(reversed(digits.rjust(int(width), fill)))
        return found

    @staticmethod
    def signal(bits: list[Bit]) -> str:
        """Inverse of :meth:`bits`."""
        parts = [f"1'{bit}" if isinstance(bit, str) else f"{bit[0]} [{bit[1]}]" for bit in reversed(bits)]
        return parts[0] if len(parts) == 1 else f"{{ {' '.join(parts)} }}"

    def room(self, cell: Cell) -> str:
        """Path of the module instance that a cell came from; empty: the top."""
        path = cell.name
        if path.startswith("$auto"):  # a register that Yosys made again: its signal tells
            path = next((name for port in cell.outputs for name, _ in self.bits(cell.ports[port])), "$")
        if path.startswith("$") and not path.startswith("$flatten"):
            return ""
        path = path.removeprefix("$flatten").replace("\\", "")
        return path.split(".$")[0] if ".$" in path else path.rpartition(".")[0]

    def add_wire(self, name: str, width: int, way: str = "") -> str:
        self.wires[name] = (width, way)
        return name

    def add_cell(self, kind: str, name: str, **ports: str) -> None:
        """A cell without signs; its widths follow from its ports."""
        widths = {port: len(self.bits(signal)) for port, signal in ports.items()}
        keys = {"\\WIDTH": widths["Y"]} if kind == "$mux" else {f"\\{port}_WIDTH": widths[port] for port in ports}
        signs = {} if kind == "$mux" else {f"\\{port}_SIGNED": 0 for port in ports if port != "Y"}
        parameters = {key: str(value) for key, value in (signs | keys).items()}
        self.cells[name] = Cell(name, kind, parameters, {f"\\{port}": signal for port, signal in ports.items()})

    @cached_property
    def aliases(self) -> dict[Bit, Bit]:
        """Driven bit -> the bit it is joined to."""
        found: dict[Bit, Bit] = {}
        for left, right in self.joins:
            found.update(zip(self.bits(left), self.bits(right), strict=True))
        return found

    def source(self, bit: Bit) -> Bit:
        while bit in self.aliases:
            bit = self.aliases[bit]
        return bit

    def sources(self, signal: str) -> list[Bit]:
        return [self.source(bit) for bit in self.bits(signal)]


def split_pair(text: str) -> tuple[str, str]:
    """The two signals of a ``connect`` outside cells."""
    if text.startswith("{"):
        left, _, right = text.partition(" } ")
        return f"{left} }}", right
    match = re.match(r"(\S+(?: \[[\d:]+\])?) (.*)", text)
    return match[1], match[2]


def flatten(verilog: str, top: str) -> Netlist:
    """One module of Yosys' cells: constants propagated, enables and resets of registers found, nothing unused."""
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
        (Path(scratch) / "design.v").write_text(verilog)
        run_yosys([step.format(top=top) for step in _FLAT], cwd=Path(scratch))
        return Netlist.parse((Path(scratch) / "flat.il").read_text())


def to_verilog(netlist: Netlist) -> str:
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
        (Path(scratch) / "flat.il").write_text(netlist.text())
        run_yosys(["read_rtlil flat.il", "opt_clean", "write_verilog -noattr -norename flat.v"], cwd=Path(scratch))
        return (Path(scratch) / "flat.v").read_text()

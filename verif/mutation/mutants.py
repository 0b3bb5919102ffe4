"""Mutants of a netlist: what one input port of one cell sees is changed.

Kinds: ``invert``, ``stuck0``, ``stuck1`` (a bit), ``constant`` (a constant operand, one more or one less), ``swap``
(operands of a difference or an order), ``enable`` (a register or memory that takes every value), ``reset`` (a register
that is never reset).
"""

import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from hashlib import sha256

from verif.mutation.netlist import Bit, Cell, Netlist

__all__ = ["SELECT", "Mutant", "change", "draw", "insert"]

SELECT = "\\mutant_select"
BITS = ("invert", "stuck0", "stuck1")
ORDERED = ("$sub", "$lt", "$le", "$gt", "$ge")
COUNTING = (*ORDERED, "$add", "$eq", "$ne", "$mux")


@dataclass(frozen=True)
class Mutant:
    """``module``: path of the instance; ``bit``: of the port, or for a constant what is added."""

    module: str
    cell: str
    type: str
    port: str
    bit: int
    kind: str

    @property
    def id(self) -> str:
        return sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:12]


def choices(netlist: Netlist, cell: Cell) -> list[tuple[str, str]]:
    """(kind, port) that make sense for a cell."""
    found = []
    for port in () if cell.kind.startswith("$meminit") else cell.inputs:
        bits = netlist.bits(cell.ports[port])
        # The enable and resets of an asynchronous read are constants, which Yosys insists on.
        if not bits or (cell.kind.startswith("$memrd") and port != "\\ADDR"):
            continue
        found += [(kind, port) for kind in BITS]
        if cell.kind in COUNTING and port in ("\\A", "\\B") and len(bits) > 1 and set(bits) <= {"0", "1"}:
            found += [("constant", port)] * 2
        if port == "\\EN":
            found += [("enable", port)] * 2
        if port == "\\SRST":
            found.append(("reset", port))
        if cell.kind in ORDERED and port == "\\A" and len(bits) == len(netlist.bits(cell.ports["\\B"])):
            found += [("swap", port)] * 2
    return found


def draw(netlist: Netlist, count: int, seed: int) -> list[Mutant]:
    """``count`` different mutants, or all there are if fewer turn up: the instance, the cell in it, kind and port, and
    the bit are drawn evenly, so that a table of many gates does not outweigh the control beside it."""
    rng = random.Random(seed)
    rooms = defaultdict(list)
    for cell in netlist.cells.values():
        if cell.kind.startswith("$") and (options := choices(netlist, cell)):
            rooms[netlist.room(cell)].append((cell, options))
    names, found = sorted(rooms), {}
    for _ in range(100 * count):
        if len(found) == count:
            break
        room = rng.choice(names)
        cell, options = rng.choice(rooms[room])
        kind, port = rng.choice(options)
        bits = netlist.bits(cell.ports[port])
        bit = rng.randrange(len(bits)) if kind in BITS else rng.choice((1, -1)) if kind == "constant" else 0
        if kind in BITS and bits[bit] in ("x", kind[-1]):
            continue
        found[Mutant(room, cell.name, cell.kind, port[1:], bit, kind)] = None
    return list(found)


def change(netlist: Netlist, mutant: Mutant, label: str) -> dict[str, list[Bit]]:
    """Port -> the bits that the mutant's cell sees there. May add a cell to the netlist."""
    cell, port = netlist.cells[mutant.cell], f"\\{mutant.port}"
    bits = netlist.bits(cell.ports[port])
    if mutant.kind == "swap":
        return {"\\A": netlist.bits(cell.ports["\\B"]), "\\B": bits}
    if mutant.kind in ("enable", "reset"):
        active = cell.parameters.get(f"{port}_POLARITY", "1")[-1]
        level = active if mutant.kind == "enable" else "10"[int(active)]
        return {port: [level] * len(bits)}
    if mutant.kind == "constant":
        value = int("".join(reversed(bits)), 2) + mutant.bit
        return {port: [str(value >> index & 1) for index in range(len(bits))]}
    seen: Bit = mutant.kind[-1]
    if mutant.kind == "invert":
        seen = (netlist.add_wire(f"\\{label}_inverted", 1), 0)
        netlist.add_cell("$not", f"\\{label}_not", A=netlist.signal([bits[mutant.bit]]), Y=f"\\{label}_inverted")
    return {port: [*bits[: mutant.bit], seen, *bits[mutant.bit + 1 :]]}


def insert(netlist: Netlist, mutants: list[Mutant]) -> None:
    """All mutants into one netlist, each there while the new input ``mutant_select`` is its number, from 1."""
    ports = sum(bool(way) for _width, way in netlist.wires.values())
    netlist.add_wire(SELECT, 16, f"input {ports + 1}")
    for number, mutant in enumerate(mutants, 1):
        label = f"mutant_{number}"
        active = netlist.add_wire(f"\\{label}", 1)
        netlist.add_cell("$eq", f"\\{label}_eq", A=SELECT, B=f"16'{number:016b}", Y=active)
        for port, seen in change(netlist, mutant, label).items():
            cell = netlist.cells[mutant.cell]
            wire = netlist.add_wire(f"\\{label}_{port[1:]}", len(seen))
            netlist.add_cell("$mux", f"\\{label}_{port[1:]}_mux", A=cell.ports[port], B=netlist.signal(seen), S=active,
                             Y=wire)  # fmt: skip
            cell.ports[port] = wire

"""Is a mutant the same circuit? A SAT solver's answer for one cycle from the same state."""

import tempfile
from collections import defaultdict
from pathlib import Path

from gen.yosys import YosysError, run_yosys
from verif.mutation.mutants import Mutant, change
from verif.mutation.netlist import Bit, Cell, Netlist

__all__ = ["Prover"]

DIFFER = "\\differ"


class Prover:
    """Proves mutants of one netlist equivalent: whatever the inputs, and whatever the state, every register, memory
    and output is the same after one cycle. That is enough, though not all that could be shown: a difference in states
    that are never reached is not proved away."""

    def __init__(self, netlist: Netlist):
        self.netlist = netlist
        self.readers: dict[Bit, list[str]] = defaultdict(list)
        self.drivers: dict[Bit, str] = {}
        for cell in netlist.cells.values():
            for port in cell.inputs:
                for bit in set(netlist.sources(cell.ports[port])):
                    self.readers[bit].append(cell.name)
            for port in cell.outputs:
                self.drivers |= dict.fromkeys(netlist.bits(cell.ports[port]), cell.name)
        self.outputs = [
            bit for name, (_, way) in netlist.wires.items() if way.startswith("output") for bit in netlist.sources(name)
        ]

    def miter(self, mutant: Mutant) -> Netlist:
        """A netlist of the cone in question alone, with one wire that says whether anything differs."""
        netlist = self.netlist
        cone = Netlist(netlist.top, dict(netlist.wires), [], {}, netlist.joins)
        first = netlist.cells[mutant.cell]
        cone.cells[first.name] = Cell(first.name, first.kind, first.parameters, dict(first.ports))
        seen = change(cone, mutant, "mutant")
        pairs: list[tuple[Bit, Bit]] = []
        copies: dict[Bit, Bit] = {}
        if first.holds_state:
            for port, bits in seen.items():
                pairs += zip(netlist.bits(first.ports[port]), bits, strict=True)
            del cone.cells[first.name]
        else:
            pairs = self._copy(cone, first, seen, copies)
        pairs += [(bit, copies[bit]) for bit in self.outputs if bit in copies]
        pairs = list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))
        self._add_cone(cone, pairs)
        left, right = (cone.signal([pair[side] for pair in pairs]) if pairs else "1'0" for side in (0, 1))
        cone.add_wire(DIFFER, 1)
        cone.add_cell("$ne", "\\differ_ne", A=left, B=right, Y=DIFFER)
        return cone

    def _copy(self, cone, first, seen, copies) -> list[tuple[Bit, Bit]]:
        """Second copies of everything combinational behind the mutant; pairs of bits that state is made from."""
        netlist, pairs = self.netlist, []
        behind, queue = {first.name}, [first.name]
        while queue:
            cell = netlist.cells[queue.pop()]
            for port in cell.outputs:
                width = len(netlist.bits(cell.ports[port]))
                wire = cone.add_wire(f"{cell.name}_copy_{port[1:]}", width)
                copies |= {bit: (wire, index) for index, bit in enumerate(netlist.bits(cell.ports[port]))}
                for bit in netlist.bits(cell.ports[port]):
                    for reader in self.readers.get(bit, ()):
                        if reader not in behind:
                            behind.add(reader)
                            if not netlist.cells[reader].holds_state:
                                queue.append(reader)
        for name in behind:
            cell = netlist.cells[name]
            inputs = {port: netlist.sources(cell.ports[port]) for port in cell.inputs}
            changed = {port: [copies.get(bit, bit) for bit in bits] for port, bits in inputs.items()}
            if cell.holds_state:
                pairs += [pair for port in inputs for pair in zip(inputs[port], changed[port], strict=True)]
                continue
            if name == first.name:
                changed |= seen
            ports = {port: cone.signal(bits) for port, bits in changed.items()}
            ports |= {port: f"{name}_copy_{port[1:]}" for port in cell.outputs}
            cone.cells[f"{name}_copy"] = Cell(f"{name}_copy", cell.kind, cell.parameters, ports)
        return pairs

    def _add_cone(self, cone: Netlist, pairs) -> None:
        """The original cells that the compared bits and the copies follow from."""
        netlist = self.netlist
        queue = [bit for pair in pairs for bit in pair]
        for cell in list(cone.cells.values()):
            queue += [bit for port in cell.inputs for bit in cone.bits(cell.ports[port])]
        done = set()
        while queue:
            bit = netlist.source(queue.pop())
            driver = self.drivers.get(bit)
            if driver is None or driver in done or netlist.cells[driver].holds_state:
                continue
            done.add(driver)
            cone.cells[driver] = cell = netlist.cells[driver]
            queue += [one for port in cell.inputs for one in netlist.bits(cell.ports[port])]

    def equivalent(self, mutant: Mutant, seconds: int = 30) -> bool:
        """Whether it was proved within the time."""
        with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
            (Path(scratch) / "cone.il").write_text(self.miter(mutant).text())
            prove = f"sat -prove {DIFFER} 0 -verify -timeout {seconds} -ignore_unknown_cells"
            steps = ["read_rtlil cone.il", "opt_expr", "opt_merge", prove]
            try:
                run_yosys(steps, cwd=Path(scratch))
            except YosysError:
                return False
            return True

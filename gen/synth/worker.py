"""The front half of a synthesis run, in a process of its own (see `gen.yosys`): from Verilog to generic gates.

Reads a job as JSON from standard input, writes ``front.il`` and ``front.json`` to the working directory. Memories
become ports of the top here, because no Yosys pass does that.
"""

import json
import sys
from pathlib import Path

from pyosys import libyosys as ys

IN, OUT = "input", "output"
MEMORY_PINS = {"WR_ADDR": OUT, "WR_DATA": OUT, "WR_EN": OUT, "RD_ADDR": OUT, "RD_EN": OUT, "RD_DATA": IN}


def evert_memories(module) -> list[dict]:
    """Replace each writable memory by ports: what drives it becomes an output, what it drives an input.

    So the logic around a memory is kept and timed as if the memory were a macro outside, and the memory itself costs
    nothing. ROMs stay and become logic later.
    """
    memories = []
    for name in sorted(module.cells_, key=str):
        cell = module.cell(name)
        if cell.type.str() != "$mem_v2":
            continue
        value = {key: cell.getParam(ys.IdString(f"\\{key}")) for key in ("SIZE", "WIDTH", "RD_PORTS", "WR_PORTS")}
        value = {key: const.as_int() for key, const in value.items()}
        if value["WR_PORTS"] == 0:
            continue
        memory = cell.name.str().lstrip("\\")
        for pin, direction in MEMORY_PINS.items():
            signal = cell.getPort(ys.IdString(f"\\{pin}"))
            if signal.size() == 0:
                continue
            wire = module.addWire(ys.IdString(f"\\{memory}.{pin}"), signal.size())
            if direction == IN:
                wire.port_input = True
                module.connect(signal, ys.SigSpec(wire))
            else:
                wire.port_output = True
                module.connect(ys.SigSpec(wire), signal)
        memories.append(
            {
                "name": memory,
                "depth": value["SIZE"],
                "width": value["WIDTH"],
                "ports": value["RD_PORTS"] + value["WR_PORTS"],
            }
        )
        module.remove(cell)
    module.fixup_ports()
    return memories


def clear_port_bits(module) -> None:
    """Rename nets called like a bit of a port: once ports are split, one of the two gets a name OpenSTA cannot find."""
    ports = {port.str() for port in module.ports}
    for name in sorted(module.wires_, key=str):
        text = name.str()
        if text.endswith("]") and text.partition("[")[0] in ports:
            module.rename(module.wire(name), ys.IdString(text.replace("[", "__").replace("]", "")))


def clocks(module) -> list[str]:
    """Names of the nets that clock flip-flops."""
    found = set()
    for name in module.cells_:
        cell = module.cell(name)
        if cell.is_builtin_ff() and cell.hasPort(ys.IdString("\\C")):
            found.add(cell.getPort(ys.IdString("\\C")).as_bit().wire.name.str().lstrip("\\"))
    return sorted(found)


def main() -> None:
    job = json.load(sys.stdin)
    design = ys.Design()
    for line in job["before"]:
        ys.run_pass(line, design)
    memories = evert_memories(design.top_module())
    for line in job["after"]:
        ys.run_pass(line, design)
    clear_port_bits(design.top_module())
    Path("front.json").write_text(json.dumps({"memories": memories, "clocks": clocks(design.top_module())}))
    ys.run_pass("write_rtlil front.il", design)


if __name__ == "__main__":
    main()

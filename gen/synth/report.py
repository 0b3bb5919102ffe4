"""The synthesis report: rows for ``report.json``, and a table for people."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from gen.synth.liberty import Library
from gen.synth.run import SynthResult
from shell.output import write_file

__all__ = ["row", "synthesis_table", "write_report"]


def row(preset: str, library: Library, result: SynthResult) -> dict:
    """One entry of ``report.json``: what was measured, and what it takes to compare it with another."""
    return {
        "top": result.top,
        "preset": preset,
        "library": result.library,
        "area_um2": result.area_um2,
        "gate_equivalents": result.gate_equivalents,
        "flipflops": result.flipflops,
        "memory_bits": result.memory_bits,
        "gate_equivalents_with_memory": result.gate_equivalents_with_memory,
        "delay_ps": result.delay_ps,
        "delay_tool": result.delay_tool,
        "delay_tool_version": result.delay_tool_version,
        "estimate": library.is_estimate,
        "variant": result.variant,
        "path_from": result.path_from,
        "path_to": result.path_to,
        "memories": list(result.memories),
        "target_ps": library.target_ps,
        "library_hash": result.library_hash,
        "recipe_hash": result.recipe_hash,
        "verilog_sha256": result.design_hash,
        "variants": [
            {"variant": v.variant, "gate_equivalents": v.gate_equivalents, "delay_ps": v.delay_ps}
            for v in result.all_variants
        ],
    }


def write_report(rows: Sequence[dict], path: Path) -> None:
    """Write the rows as JSON, in one step."""
    write_file(path, json.dumps(list(rows), indent=2) + "\n")


def synthesis_table(rows: Sequence[dict]) -> Table:
    """The rows as a table. All rows are of one library and one delay tool."""
    first = rows[0]
    estimate = ": an estimate, nominal delays" if first["estimate"] else ""
    clock = "clock to output, setup, no wires" if first["delay_tool"] == "OpenSTA" else "combinational logic alone"
    table = Table(
        title=f"preset {first['preset']}, library {first['library']}{estimate}",
        caption=f"delay by {first['delay_tool']} {first['delay_tool_version']}".rstrip() + f" ({clock})",
    )
    table.add_column("top")
    for name in ("gate eq.", "area um2", "FFs", "mem bits", "delay ps"):
        table.add_column(name, justify="right")
    table.add_column("variant")
    for entry in rows:
        area = "-" if entry["area_um2"] is None else f"{entry['area_um2']:,.1f}"
        numbers = [f"{entry['gate_equivalents']:,.0f}", area, f"{entry['flipflops']:,}", f"{entry['memory_bits']:,}"]
        table.add_row(entry["top"], *numbers, f"{entry['delay_ps']:,.0f}", entry["variant"])
    return table

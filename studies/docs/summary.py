"""``python -m studies.docs.summary``: figures of area and density in docs/results.md, from the reports that exist.

``make density``, ``make kv-area`` and ``make attention-cost`` write the reports; their whole tables are in other pages.
"""

import json
from pathlib import Path

import typer

from golden.document import write_between_markers
from shell.console import single
from sim.build import ROOT
from studies.attention.cost import ratio_lines
from studies.kv import area as kv_report
from studies.kv import transforms as kv_transforms

__all__ = ["attention_markdown", "density_markdown", "kv_markdown"]


def density_markdown(entries: list[dict]) -> str:
    """Per design and library with a peer's figures: ratios of density for FP3, FP4, INT6 and INT8."""
    names = ("fp3", "fp4", "int6", "int8")

    def cells(found: dict) -> str:
        return " / ".join("-" if found[name] is None else f"{found[name]:.1f}" for name in names)

    peers = ("bitmod_authors", "bit_parallel", "bitserial_pe")
    lines = [
        "| design | library | GE + edge | ps | BitMoD authors' PE | bit-parallel PE | our bit-serial PE |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| `{e['design']}` | {e['library']} | {e['gate_equivalents']:,.0f} + {e['edge_gate_equivalents']:,.0f} | "
        f"{e['delay_ps']:,.0f} | " + " | ".join(cells(e[f"ratio_to_{peer}"]) for peer in peers) + " |"
        for e in entries
        if e["ratio_to_bitmod_authors"]
    ]
    return "\n".join(lines) + "\n"


def kv_markdown(rows: list[dict]) -> str:
    """The KV engines beside those with arithmetic in every lane; without their parts, and transforms on their own."""
    inside = (kv_report.PART_PREFIX, kv_transforms.PREFIX)
    return kv_report.table([row for row in rows if not row["key"].startswith(inside)])


def attention_markdown(report: dict) -> str:
    """The ratios of gate-cycles, one line per number of query heads, and what they were measured for."""
    return "\n".join(ratio_lines(report)) + "\n"


REPORTS = {
    "density": ("build/density/report.json", density_markdown),
    "kv area": ("build/synth/kv.json", kv_markdown),
    "attention cost": ("build/attention/report.json", attention_markdown),
}
"""Section -> where its report is, and what becomes of it."""


def main() -> None:
    """Write the sections whose reports exist into docs/results.md."""
    found = {name: ROOT / path for name, (path, _) in REPORTS.items() if (ROOT / path).exists()}
    if not found:
        raise typer.BadParameter(f"none of {', '.join(path for path, _ in REPORTS.values())} exists: run make first")
    for name, path in found.items():
        markers = f"<!-- {name} in short: python -m studies.docs.summary -->", f"<!-- end of {name} in short -->"
        text = REPORTS[name][1](json.loads(Path(path).read_text()))
        write_between_markers(ROOT / "docs" / "results.md", text, markers)


if __name__ == "__main__":
    single(main, "summary")()

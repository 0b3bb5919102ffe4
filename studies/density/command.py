"""``make density``: the presets' throughput density, in every library given."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from gen.synth.liberty import GENERIC, KNOWN, Library, load_library
from gen.synth.liberty_parse import parse
from studies.density.density import DATAPATHS

__all__ = ["density", "density_markdown", "density_rows", "load_libraries"]

HEADERS = ("design", "library", "GE", "edge GE", "ps", "wires")
SHOWN = ("fp3", "fp4", "int4", "int6", "int8")


def load_libraries(paths: Sequence[Path]) -> list[Library]:
    """The libraries that the files belong to, by the name in each file; without files the generic one."""
    families = {}
    for path in paths or [GENERIC]:
        name = parse(Path(path)).library
        family = next((known.name for known in KNOWN if re.match(known.pattern, name)), name)
        families.setdefault(family, []).append(path)
    return [load_library(family) for family in families.values()]


def density_rows(entries: Sequence[dict]) -> list[list[str]]:
    """The report as text: per design and library what it takes, and its ratios per datatype."""

    def ratios(found: dict | None) -> str:
        if found is None:
            return "-"
        return " / ".join("-" if found[name] is None else f"{found[name]:.1f}" for name in SHOWN)

    return [
        [
            entry["design"],
            entry["library"],
            f"{entry['gate_equivalents']:,.0f}",
            f"{entry['edge_gate_equivalents']:,.0f}",
            f"{entry['delay_ps']:,.0f}",
            "-" if entry["broadcast_wires"] is None else f"{entry['broadcast_wires']:,}",
            *(ratios(entry[f"ratio_to_{peer}"]) for peer in ("bitmod_authors", "bit_parallel", "bitserial_pe")),
            ratios(entry["aligner_per_token"]["ratio_to_bitmod_authors"]) if "aligner_per_token" in entry else "-",
        ]
        for entry in entries
    ]


TITLES = (
    *HEADERS,
    "to BitMoD authors' PE",
    "to bit-parallel PE",
    "to our bit-serial PE",
    "to BitMoD authors' PE, an aligner per token",
)


PEERS = {
    "bitmod_authors": "the BitMoD authors' PE",
    "bit_parallel": "a bit-parallel PE",
    "bitserial_pe": "our bit-serial PE",
}


def density_tables(entries: Sequence[dict]) -> list[Table]:
    """The ratios for people, a narrow table per peer that anything compares with."""
    tables = []
    for peer, name in PEERS.items():
        rows = [(entry, entry[f"ratio_to_{peer}"]) for entry in entries if entry[f"ratio_to_{peer}"] is not None]
        if not rows:
            continue
        table = Table(title=f"MACs per second and gate equivalent, {name} = 1", box=SIMPLE, padding=(0, 1, 0, 0))
        for title in ("design", "library", "GE", "edge", "ps", *(datatype.upper() for datatype in SHOWN)):
            table.add_column(title, justify="left" if title in ("design", "library") else "right", no_wrap=True)
        for entry, found in rows:
            sizes = (entry[key] for key in ("gate_equivalents", "edge_gate_equivalents", "delay_ps"))
            ratios = ("-" if found[d] is None else f"{found[d]:.1f}" for d in SHOWN)
            table.add_row(entry["design"], entry["library"], *(f"{size:,.0f}" for size in sizes), *ratios)
        tables.append(table)
    return tables


def density_markdown(entries: Sequence[dict]) -> str:
    """The rows as a Markdown table."""
    first = entries[0]
    lines = [
        f"Delay by {first['delay_tool']} {first['delay_tool_version']}".rstrip()
        + f". Ratios of density for {' / '.join(SHOWN).upper()}; `-`: does not compare.",
        "",
        "| " + " | ".join(TITLES) + " |",
        "|---|---|" + "---:|" * (len(TITLES) - 2),
    ]
    lines += ["| `" + cells[0] + "` | " + " | ".join(cells[1:]) + " |" for cells in density_rows(entries)]
    return "\n".join(lines) + "\n"


def density(
    liberty: Annotated[
        list[str] | None,
        typer.Option(help="Liberty files of one or more libraries; several in one argument separated by space."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for report.json and the cache.")] = Path("build/density"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
) -> None:
    """Compare the throughput density of the pre-aligned presets with peers' and with the bit-serial PE's."""
    from gen.synth.liberty import liberty_paths
    from gen.synth.report import write_report
    from shell.console import progress_bar, say, stdout
    from studies.density.density import TILE, report

    libraries = load_libraries(liberty_paths(liberty))
    with progress_bar("density", len(libraries) * (1 + len(DATAPATHS) * len(TILE))) as advance:
        entries = report(libraries, out / "cache", advance, jobs=jobs)
    write_report(entries, out / "report.json")
    stdout.print(*density_tables(entries), sep="\n")
    say(f"report: {out / 'report.json'}")

"""``python -m studies.docs.tables``: write measured tables into the documents, so that none is typed by hand."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gen.synth.liberty import LibraryError, generic_library, named_library
from gen.synth.run import SynthResult, synthesize
from gen.tops import tops
from gen.verilog import to_verilog
from golden.document import write_between_markers
from shell.console import single

LIBRARIES = ("generic", "sky130hd", "asap7")
MARKERS = "<!-- synthesis: python -m studies.docs.tables -->", "<!-- end of synthesis -->"


def measure_tops(preset: str, names: list[str] | None, console: Console) -> list[SynthResult]:
    """Every top of the preset (or those named) in every library that is at hand."""
    results = []
    for library_name in LIBRARIES:
        try:
            library = generic_library() if library_name == "generic" else named_library(library_name)
        except LibraryError as error:
            console.print(f"{library_name}: left out: {error}")
            continue
        for top in tops(preset):
            if top.name not in names if names else top.on_request:
                continue
            console.print(f"{library_name}: {top.name}")
            results.append(synthesize(to_verilog(top.component(), top.name)[0], top.name, library))
    return results


def synthesis_markdown(preset: str, results: list[SynthResult]) -> str:
    """One row per top, a pair of columns per library."""
    libraries = list(dict.fromkeys(result.library for result in results))
    by_top = {}
    for result in results:
        by_top.setdefault(result.top, {})[result.library] = result
    tools = sorted({f"{result.delay_tool} {result.delay_tool_version}" for result in results})
    lines = [
        f"Preset `{preset}`, best of the recipe's variants, delay by {', '.join(tools)}; gate equivalents at ps.",
        "The generic library is an estimate with nominal delays.",
        "",
        "| top | flip-flops | memory bits | " + " | ".join(libraries) + " |",
        "|---|---:|---:|" + "---:|" * len(libraries),
    ]
    for top, row in by_top.items():
        first = next(iter(row.values()))
        cells = [f"{row[name].gate_equivalents:,.0f} at {row[name].delay_ps:,.0f}" for name in libraries if name in row]
        lines.append(f"| `{top}` | {first.flipflops:,} | {first.memory_bits:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(
    preset: Annotated[str, typer.Option(help="Configuration.")] = "paper",
    top: Annotated[list[str] | None, typer.Option(help="Only these tops.")] = None,
    document: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("docs/synthesis.md"),
):
    """Synthesize the tops of a preset in every library at hand and write the table into the document."""
    console = Console()
    write_between_markers(document, synthesis_markdown(preset, measure_tops(preset, top, console)), MARKERS)


if __name__ == "__main__":
    single(main, "tables")()

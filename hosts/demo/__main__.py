"""``python -m hosts.demo``: the main job end to end, with a report and a table."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from gen.synth.liberty import generic_library, load_library
from golden.document import write_between_markers
from hosts.demo.attention import run_attention
from hosts.demo.core import run_core_section
from hosts.demo.kv import run_kv
from hosts.demo.report import write_report
from hosts.demo.weights import demo_core, run_weights
from shell.console import single, stdout
from spec import checks
from spec.system import SYSTEMS

OUT_DIR = Path("build/demo")
SECTIONS = ("weights", "core", "kv", "attention")


def main(
    config: Annotated[
        str, typer.Option("--preset", help="System whose bit-serial PEs section weights takes: paper or tiny.")
    ] = "paper",
    seed: Annotated[int, typer.Option(help="Start values of registers and memories in the simulation.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = OUT_DIR,
    liberty: Annotated[str, typer.Option(envvar="LIBERTY", help="Cell library for the gate count.")] = "",
    section: Annotated[
        list[str] | None, typer.Option(help=f"Sections to run: {', '.join(SECTIONS)}; default: all.")
    ] = None,
    verilog: Annotated[
        Path | None,
        typer.Option(help="Simulate this bit_serial_core.v instead of a newly generated one (section weights)."),
    ] = None,
    document: Annotated[
        Path | None, typer.Option(help="Write the tables into docs/results.md or whatever has `demo` markers.")
    ] = None,
):
    """Run real LLM tensors through the generated Verilog; exit status 1 if anything differs from the golden models."""
    console = stdout
    if not console.is_terminal:  # a log file has room
        console.width = 140
    unknown = sorted(set(section or SECTIONS) - set(SECTIONS))
    if unknown:
        raise typer.BadParameter(f"section must be one of {', '.join(SECTIONS)}, not {', '.join(unknown)}")
    try:
        known = {name: system.bit_serial for name, system in SYSTEMS.items() if system.bit_serial}
        core = demo_core(checks.named("preset", config, known), rows=2 if config == "tiny" else 8)
        library = load_library([Path(p) for p in liberty.replace(":", " ").split()]) if liberty else generic_library()
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    start = time.perf_counter()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task("starting", total=None)

        def tell(what: str) -> None:
            progress.update(task, description=what)
            if not console.is_terminal:
                console.print(what)

        sections = []
        if "weights" in (section or SECTIONS):
            sections.append(run_weights(core, out, seed, library=library, verilog=verilog, progress=tell))
        if "core" in (section or SECTIONS):
            sections.append(run_core_section(out, seed, progress=tell))
        if "kv" in (section or SECTIONS):
            sections.append(run_kv(out, seed, progress=tell))
        if "attention" in (section or SECTIONS):
            sections.append(run_attention(out, seed, progress=tell))
    passed = write_report(sections, seed, out)
    for part in sections:
        part.show(console)
        if document is not None:
            markers = f"<!-- demo {part.name}: make demo -->", f"<!-- end of demo {part.name} -->"
            write_between_markers(document, part.markdown(), markers)
    verdict = Text("PASS", "bold green") if passed else Text("FAIL", "bold red")
    compared = sum(item.compared for part in sections for item in part.items)
    groups = sum(item.more.get("groups", 0) for part in sections for item in part.items)
    console.print(
        verdict + ": " + f"{compared:,} outputs ({groups:,} group dot products) of the Verilog compared bit for bit, "
        f"{time.perf_counter() - start:.0f} s. Report: {out / 'report.json'}"
    )
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    single(main, "demo")()

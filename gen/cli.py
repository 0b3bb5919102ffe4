"""The command line: ``python -m gen``, installed as ``bitmosaic``."""

from pathlib import Path
from typing import Annotated

import typer

from gen.pack.alloc import alloc
from gen.pack.kv import kv_pack
from gen.pack.weights import pack
from shell import console
from shell.console import progress_bar, say, stdout
from spec import checks

app = console.application("Generate verified RTL for low-bit LLM inference.")

Preset = Annotated[str, typer.Option(help="Named configuration.")]


def command(function):
    """Register a sub-command."""
    return console.command(app, function)


@command
def verilog(
    preset: Preset = "paper",
    out: Annotated[Path, typer.Option(help="Directory for the .v and .json files.")] = Path("build/verilog"),
    top: Annotated[list[str] | None, typer.Option(help="Only these tops; default: all.")] = None,
) -> None:
    """Write the Verilog of every top of a preset, each with a JSON sidecar."""
    from gen.emit_tops import emit_tops

    tops = find_tops(preset, top)
    with progress_bar("verilog", len(tops)) as advance:
        emitted = emit_tops(tops, out, progress=advance)
    for one in emitted:
        say(f"{one.path_v}  sha256 {one.sha256[:16]}")


@command
def synth(
    preset: Preset = "paper",
    liberty: Annotated[
        list[str] | None,
        typer.Option(
            help="Liberty files of one library; several in one argument separated by space or colon. [LIBERTY]"
        ),
    ] = None,
    top: Annotated[
        list[str] | None, typer.Option(help="Only these tops; default: all but the core of bit-serial PEs.")
    ] = None,
    target_ps: Annotated[int | None, typer.Option(help="Delay target for ABC; default: the library's own.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for report.json and the cache.")] = Path("build/synth"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
) -> None:
    """Estimate area, flip-flops, memory and delay of the tops of a preset. Without a library: in generic gates."""
    from gen.synth.liberty import GENERIC, liberty_paths, load_library
    from gen.synth.recipe import VARIANTS
    from gen.synth.report import row, synthesis_table, write_report
    from gen.synth.run import synthesize
    from gen.verilog import to_verilog

    library = load_library(liberty_paths(liberty) or [GENERIC], target_ps=target_ps)
    tops = [one for one in find_tops(preset, top) if top or not one.on_request]
    rows = []
    with progress_bar("synth", len(tops) * len(VARIANTS)) as advance:
        for one in tops:
            text, _ports = to_verilog(one.component(), one.name)
            result = synthesize(
                text,
                one.name,
                library,
                cache_dir=out / "cache",
                jobs=jobs,
                progress=lambda variant, name=one.name: advance(f"{name} {variant}"),
            )
            rows.append(row(preset, library, result))
    write_report(rows, out / "report.json")
    stdout.print(synthesis_table(rows))
    say(f"report: {out / 'report.json'}")


command(pack)
command(kv_pack)
command(alloc)


@command
def registers(
    out: Annotated[Path, typer.Option(help="Directory for the C headers.")] = Path("build/registers"),
    preset: Preset = "paper",
    docs: Annotated[
        Path | None, typer.Option(help="Directory for registers.md and encodings.md; default: out.")
    ] = None,
) -> None:
    """Write register maps and encodings as C headers and as Markdown."""
    from gen.registers import write_registers

    for path in write_registers(out, preset=preset, docs=docs):
        say(path)


def find_tops(preset: str, names: list[str] | None = None) -> list:
    """The tops of ``preset``, or those of ``names`` among them.

    Raises
    ------
    ValueError
        If the preset or a name does not exist; the message lists those that do.
    """
    from gen.tops import tops

    found = tops(preset)
    for name in names or ():
        checks.named("top", name, {top.name: top for top in found})
    return [top for top in found if not names or top.name in names]

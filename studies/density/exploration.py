"""``make explore``: the pre-aligned tile along each of its parameters, so that a choice can be compared.

From ``dense`` one parameter at a time is changed: digit set, lanes, width of the aligned activations, pipeline
registers, how far the accumulator's carries propagate. Every entry is an 8 x 8 tile composed like those of
`studies.density.density`, edges included, but of one quick variant of the recipe: entries compare with each other, not
with the figures of ``make density``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from gen.synth.liberty import Library
from gen.synth.recipe import QUICK
from hw.prealigned.digits import steps
from spec.digits import DIGIT_SETS
from spec.prealigned import LANES, PrealignedConfig
from spec.system import SYSTEMS
from studies.density.command import load_libraries
from studies.density.density import DATATYPES, TILE, build, macs_per_cycle

__all__ = ["exploration", "exploration_markdown", "explore", "points"]

BASE = "dense"
WIDTHS = (12, 14, 16, 17, 18, 19, 20, 22, 24)
SEGMENTS = {"carry-save": 1, "split, 4 bits": 4, "split, 8 bits": 8, "split, 16 bits": 16, "carry-propagate": 64}
REGISTERS = ((2,), (4,), (16,), (16, 4), (16, 6, 2), (16, 8, 4, 2), (16, 11, 8, 6, 4, 3, 2))
SHOWN = ("fp3", "fp4", "int6", "int8")


def points() -> Iterator[tuple[str, str, PrealignedConfig]]:
    """(parameter, value, config) of every entry. The base comes once per parameter."""
    base = SYSTEMS[BASE].core.datapath
    for name, digits in DIGIT_SETS.items():
        yield "digit set", name, replace(base, digits=digits)
    for lanes in LANES:
        yield "lanes", str(lanes), replace(base, lanes=lanes, registers=None)
    for width in WIDTHS:
        yield "W", str(width), replace(base, activation_bits=width)
    for registers in REGISTERS:
        yield "registers", " ".join(map(str, registers)), replace(base, registers=registers)
    for name, bits in SEGMENTS.items():
        yield "accumulator", name, replace(base, segment_bits=bits)


def exploration(
    libraries: Sequence[Library], cache_dir: Path, progress: Callable[[str], None] | None = None, jobs: int = 2
) -> list[dict]:
    """An entry per library and point: gate equivalents per PE and of its share of the edge, delay, MACs per cycle.

    ``density_to_base`` is MACs per second and gate equivalent over those of the base in the same library.
    """
    entries = []
    for library in libraries:
        found, densities = [], []
        for parameter, value, config in points():
            built, _results = build(config, library, cache_dir, progress, variants=QUICK, jobs=jobs)
            total = built.gate_equivalents["pe"] + built.edge()
            rates = {name: macs_per_cycle(config, DATATYPES[name], config.group_size) for name in SHOWN}
            densities.append((config, {name: rate / (total * built.delay_ps) for name, rate in rates.items()}))
            found.append(
                {
                    "parameter": parameter,
                    "value": value,
                    "is_base": config == SYSTEMS[BASE].core.datapath,
                    "library": library.name,
                    "estimate": library.is_estimate,
                    "steps": {name: steps(DATATYPES[name], config.digits) for name in SHOWN},
                    "gate_equivalents": built.gate_equivalents["pe"],
                    "edge_gate_equivalents": round(built.edge(), 2),
                    "delay_ps": built.delay_ps,
                    "macs_per_cycle": rates,
                }
            )
        base = next(density for config, density in densities if config == SYSTEMS[BASE].core.datapath)
        for entry, (_config, density) in zip(found, densities, strict=True):
            entry["density_to_base"] = {name: density[name] / base[name] for name in SHOWN}
        entries += found
    return entries


TITLES = ("parameter", "value", "steps", "library", "GE", "edge GE", "ps", f"MACs/s per gate, `{BASE}` = 1")


def exploration_rows(entries: Sequence[dict]) -> list[list[str]]:
    """The entries as text, a parameter's values together and their libraries below each other."""
    order = {(parameter, value): n for n, (parameter, value, _config) in enumerate(points())}
    return [
        [
            entry["parameter"],
            f"{entry['value']} (`{BASE}`)" if entry["is_base"] else entry["value"],
            " / ".join(str(entry["steps"][name]) for name in SHOWN),
            entry["library"],
            f"{entry['gate_equivalents']:,.0f}",
            f"{entry['edge_gate_equivalents']:,.0f}",
            f"{entry['delay_ps']:,.0f}",
            " / ".join(f"{entry['density_to_base'][name]:.2f}" for name in SHOWN),
        ]
        for entry in sorted(entries, key=lambda e: order[e["parameter"], e["value"]])
    ]


def exploration_markdown(entries: Sequence[dict]) -> str:
    """The entries as a Markdown table."""
    lines = ["| " + " | ".join(TITLES) + " |", "|---|---|---|---|" + "---:|" * (len(TITLES) - 4)]
    lines += ["| " + " | ".join(cells) + " |" for cells in exploration_rows(entries)]
    return f"Steps and ratios for {' / '.join(SHOWN).upper()}.\n\n" + "\n".join(lines) + "\n"


def explore(
    liberty: Annotated[
        list[str] | None,
        typer.Option(help="Liberty files of one or more libraries; several in one argument separated by space."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for exploration.json and the cache.")] = Path("build/density"),
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
) -> None:
    """Compare digit sets, lanes, widths, registers and accumulators of the pre-aligned tile (quick variant)."""
    from gen.synth.liberty import liberty_paths
    from gen.synth.report import write_report
    from shell.console import progress_bar, say, stdout

    libraries = load_libraries(liberty_paths(liberty))
    with progress_bar("explore", len(libraries) * len(list(points())) * len(TILE)) as advance:
        entries = exploration(libraries, out / "cache", advance, jobs=jobs)
    write_report(entries, out / "exploration.json")
    table = Table(
        title="One parameter at a time; steps and MACs/s per gate for " + " / ".join(SHOWN).upper(),
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for number, title in enumerate((*TITLES[:-1], f"`{BASE}` = 1")):
        table.add_column(title, justify="left" if number < 4 else "right", overflow="fold")
    for parameter, value, step, library, *numbers, ratios in exploration_rows(entries):
        table.add_row(parameter, value, step.replace(" ", ""), library, *numbers, ratios.replace(" ", ""))
    stdout.print(table)
    say(f"report: {out / 'exploration.json'}")

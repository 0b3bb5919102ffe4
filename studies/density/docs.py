"""``python -m studies.density.docs``: ``make density`` and ``make explore`` as tables in docs/density.md.

And the first one as a plot. (`studies.docs.summary` has it in short for docs/results.md.)
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from golden.document import write_between_markers
from shell.console import single
from studies.density.command import SHOWN, density_markdown
from studies.density.exploration import exploration_markdown

MARKERS = "<!-- density: python -m studies.density.docs -->", "<!-- end of density -->"
EXPLORED = "<!-- exploration: python -m studies.density.docs -->", "<!-- end of exploration -->"


def plot(entries: list[dict], path: Path) -> None:
    """Bars of the ratios to the BitMoD authors' PE, a panel per library that they compare in."""
    from matplotlib.figure import Figure

    libraries = list(dict.fromkeys(e["library"] for e in entries if e["ratio_to_bitmod_authors"]))
    if not libraries:
        raise typer.BadParameter("the report has no ratio to a peer: give make density the peers' libraries")
    figure = Figure(figsize=(5 * len(libraries), 3.5), layout="constrained")
    for axes, library in zip(figure.subplots(1, len(libraries), squeeze=False)[0], libraries, strict=True):
        shown = [e for e in entries if e["library"] == library and e["ratio_to_bitmod_authors"]]
        for k, entry in enumerate(shown):
            places = [x + 0.8 * (k + 0.5) / len(shown) - 0.4 for x in range(len(SHOWN))]
            heights = [entry["ratio_to_bitmod_authors"][name] for name in SHOWN]
            axes.bar(places, heights, 0.75 / len(shown), label=entry["design"])
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set(title=library, ylabel="MACs/s per gate, BitMoD authors' PE = 1")
        axes.set_xticks(range(len(SHOWN)), [name.upper() for name in SHOWN])
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(
    report: Annotated[Path, typer.Option(help="What make density wrote.")] = Path("build/density/report.json"),
    exploration: Annotated[Path, typer.Option(help="Of make explore.")] = Path("build/density/exploration.json"),
    document: Annotated[Path, typer.Option(help="Where the tables go.")] = Path("docs/density.md"),
    figure: Annotated[Path | None, typer.Option(help="Where a plot goes, if one is wanted.")] = None,
):
    """Write the tables of the reports that exist into the document, and the plot."""
    if not report.exists() and not exploration.exists():
        raise typer.BadParameter(f"neither {report} nor {exploration} exists: run make density or make explore first")
    if exploration.exists():
        write_between_markers(document, exploration_markdown(json.loads(exploration.read_text())), EXPLORED)
    if not report.exists():
        return
    entries = json.loads(report.read_text())
    write_between_markers(document, density_markdown(entries), MARKERS)
    if figure is not None:
        plot(entries, figure)


if __name__ == "__main__":
    single(main, "density")()

"""``make mutation TOP=name N=200``: small defects in the netlist of a block, and which of them its tests notice.

Outcomes are kept under ``build/mutation`` for as long as the block's Verilog and its recorded traffic stay as they are;
a run that was interrupted goes on. The table of docs/mutation.md is written anew.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from gen.cli import find_tops
from gen.verilog import to_verilog
from golden.document import write_between_markers
from shell import console
from shell.console import progress_bar, say
from shell.output import write_file
from sim.build import ROOT
from verif.mutation.blocks import BLOCKS
from verif.mutation.campaign import Campaign
from verif.mutation.traces import Ports, read, record

HOME = ROOT / "build" / "mutation"
REPORT = ROOT / "build" / "signoff" / "mutation.json"
DOCUMENT = ROOT / "docs" / "mutation.md"
MARKERS = "<!-- scores: make mutation -->", "<!-- end of scores -->"
SURVIVORS = "<!-- survivors: make mutation -->", "<!-- end of survivors -->"
PRESET = "tiny"


def campaign_of(name: str, seeds: Sequence[int], cycles: int) -> Campaign:
    """Of a block: its Verilog, and its tests' traffic once per seed."""
    block = BLOCKS[name]
    (top,) = find_tops(PRESET, [name])
    verilog, declared = to_verilog(top.component(), block.module)
    ports = Ports(block.module, declared, "aclk", "aresetn")
    home = HOME / name
    key = sha256(repr((verilog, block.tests, tuple(seeds))).encode())
    for room in sorted({"sim", "hosts", *(f"verif/{test.split('/')[0]}" for test in block.tests)}):
        for source in sorted((ROOT / room).rglob("*.py")):
            key.update(source.read_bytes())
    paths = []
    for path in record(home / f"recorded-{key.hexdigest()[:12]}", ports, verilog, block.tests, seeds):
        trace = read(path, ports, block.anything, cycles)
        paths.append(path.with_suffix(".bin"))
        trace.write(paths[-1])
    return Campaign(verilog, ports, paths, home)


def write_documents(reports: dict[str, dict]) -> None:
    """Scores and survivors of all blocks tried so far."""
    if not DOCUMENT.exists():
        return
    columns = ("total", "killed", "equivalent", "survived", "timing")
    lines = [f"| block (`{PRESET}`) | mutants | killed | proved equivalent | survived | in cycles only | score |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, report in reports.items():
        counts = " | ".join(str(report[column]) for column in columns)
        lines.append(f"| `{name}` | {counts} | {100 * report['score']:.1f} % |")
    write_between_markers(DOCUMENT, "\n".join(lines), MARKERS)
    lines = ["| block | instance | cell | port | bit | kind | outcome |", "|---|---|---|---|---|---|---|"]
    for name, report in reports.items():
        for one in report["survivors"]:
            words = (one["module"] or "top", one["type"], one["port"])
            place = " | ".join(f"`{word}`" for word in words)
            lines.append(f"| `{name}` | {place} | {one['bit']} | {one['kind']} | {one['outcome']} |")
    write_between_markers(DOCUMENT, "\n".join(lines), SURVIVORS)


def main(
    top: Annotated[list[str] | None, typer.Option(help="Blocks; default: all.")] = None,
    count: Annotated[int, typer.Option(min=1, max=60_000, help="Mutants per block.")] = 200,
    seed: Annotated[int, typer.Option(min=1, help="Of the draw.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of the block's tests that are replayed.")] = 1,
    cycles: Annotated[int, typer.Option(min=1, help="Of each simulation that are replayed, at most.")] = 100_000,
    seconds: Annotated[int, typer.Option(min=1, help="For the solver, per mutant.")] = 20,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
    report: Annotated[Path, typer.Option(help="Where the report goes.")] = REPORT,
) -> None:
    """Mutants of the blocks' netlists, run against the traffic of the blocks' own tests."""
    unknown = [name for name in top or () if name not in BLOCKS]
    if unknown:
        raise ValueError(f"top must be one of {', '.join(BLOCKS)}, not {unknown[0]!r}")
    reports = json.loads(report.read_text()) if report.exists() else {}
    for name in top or BLOCKS:
        campaign = campaign_of(name, range(1, seeds + 1), cycles)
        mutants = campaign.draw(count, seed)
        left = [mutant for mutant in mutants if mutant.id not in campaign.outcomes]
        with progress_bar(f"{name}: replay", len(left)) as advance:
            campaign.simulate(mutants, jobs, advance)
        silent = [mutant for mutant in mutants if campaign.outcomes[mutant.id] == "silent"]
        with progress_bar(f"{name}: solver", len(silent)) as advance:
            campaign.prove(mutants, seconds, advance)
        found = {"top": name, "preset": PRESET, "seed": seed, **campaign.report(mutants)}
        reports[name] = found
        write_file(report, json.dumps(reports, indent=1))
        say(f"{name}: {found['killed']} of {found['total']} killed, {found['equivalent']} proved equivalent, "
            f"{found['survived']} survived ({found['timing']} in cycles only)")  # fmt: skip
    write_documents(reports)
    say(f"report: {report}")


if __name__ == "__main__":
    app = console.application("Mutations on the netlist.")
    console.command(app, main, program="mutation")
    app()

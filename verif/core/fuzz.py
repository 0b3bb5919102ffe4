"""Fuzzing of the accelerator core: ``make fuzz N=10000``, or ``python -m verif.core.fuzz --help``.

A host that draws everything at random (:mod:`verif.core.fuzz_scenarios`) uses a core of preset ``tiny``: jobs of any
shape and datatype, malformed packets, refused starts, accesses while busy, aborts, resets, pauses on every stream. The
core must never hang, every result and every mark must be that of the models, every error must be told, and the job
after each must be exact.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track

from hosts.core import octets, stream_beats
from hw.tops.core import AcceleratorCoreAxi
from shell.output import write_file
from sim.build import Built, build
from sim.design import build_design
from sim.runner import SimulationError, run
from spec.core import CoreConfig
from verif.core.configs import SMALL, small_core
from verif.core.fuzz_scenarios import ABORTED, Host, Scenario

__all__ = ["Outcome", "build_core", "play_batch"]

BATCH = 50
"""Scenarios that share a simulator process, and a state of the core."""
REPORT = Path("build/fuzz/report.json")


@dataclass
class Outcome:
    """What came of some scenarios: counts by name, and a line for each thing that was wrong."""

    counts: Counter = field(default_factory=Counter)
    failures: list[dict] = field(default_factory=list)
    cycles: int = 0

    def add(self, other: "Outcome") -> None:
        """Take another batch's outcome in."""
        self.counts += other.counts
        self.failures += other.failures
        self.cycles += other.cycles


def build_core(config: CoreConfig, verilog: Path | None = None) -> Built:
    """The simulator of a core with its AXI ports, of newly generated Verilog or of a given file."""
    return (
        build(verilog, "accelerator_core_axi")
        if verilog
        else build_design(AcceleratorCoreAxi(config), "accelerator_core_axi")
    )


def replay(config: CoreConfig, seed: int, batch: int) -> str:
    """The command that plays one batch again."""
    name = next((name for name, known in SMALL.items() if known == config), "tiny")
    return f"python -m verif.core.fuzz --preset {name} --seed {seed} --batch {batch}"


def play_batch(built: Built, config: CoreConfig, seed: int, batch: int, count: int = BATCH) -> Outcome:
    """Draw and play ``count`` scenarios one after the other."""
    torch.set_num_threads(1)
    host = Host(config, np.random.default_rng([seed, batch]))
    scenarios = [host.scenario() for _ in range(count)]
    vectors, options = {}, []
    for number, one in enumerate(scenarios):
        for name, packets in (("s_axis_weights", one.weights), ("s_axis_activations", one.activations)):
            vectors |= {f"{number}/{name}/{part}": array for part, array in stream_beats(packets).items()}
        plain = ("kind", "prelude", "refused", "writes", "disturbances", "held", "stop", "idle", "stall", "burst")
        options.append({name: getattr(one, name) for name in plain} | {"results": len(one.results["tlast"])})
    outcome = Outcome()
    try:
        result = run(
            built,
            "verif.core.tb_fuzz",
            vectors=vectors,
            options={"scenarios": options},
            seed=1 + (seed * 7919 + batch) % (2**31 - 1),
            timeout=1800,
        )
    except SimulationError as error:
        outcome.failures.append({"what": str(error)[:2000], "batch": batch, "replay": replay(config, seed, batch)})
        return outcome
    outcome.cycles = result.cycles
    if "halt" in result.data:
        number = int(str(result.data["halt"]).split()[1].rstrip(":"))
        what = f"{result.data['halt']}; {describe(scenarios[number])}"
        outcome.failures.append(
            {"what": what, "batch": batch, "scenario": number, "replay": replay(config, seed, batch)}
        )
        del scenarios[number:]
    for number, one in enumerate(scenarios):
        wrong = check(
            config, one, {k.split("/", 1)[1]: v for k, v in result.data.items() if k.startswith(f"{number}/")}
        )
        count_scenario(outcome.counts, one)
        outcome.failures += [
            {"what": what, "batch": batch, "scenario": number, "replay": replay(config, seed, batch)} for what in wrong
        ]
    return outcome


def count_scenario(counts: Counter, one: Scenario) -> None:
    """What the report tells of a scenario."""
    counts["scenarios"] += 1
    counts[f"kind: {one.kind}"] += 1
    counts["results: fp16" if one.job.fp16 else "results: fp32"] += 1
    counts["packets: defective" if one.defects else "packets: good"] += 1
    counts["results compared"] += one.expected.result.bits.size if one.kind == "run" else 0
    counts["results marked"] += int(one.expected.result.marked.sum()) if one.kind == "run" else 0
    for name, _code, _writes in one.refused:
        counts[f"refused: {name}"] += 1
    for defect in one.defects:
        counts[f"defect: {defect}"] += 1
    for codes in one.expected.errors if one.kind == "run" else ():
        counts[f"error: {min(codes)}"] += 1
    for code in one.disturbed_codes:
        counts[f"error: {code}"] += 1


def check(config: CoreConfig, one: Scenario, data: dict[str, np.ndarray]) -> list[str]:
    """Everything that is not as the models say, in words."""
    lanes, wrong = config.result_lanes, []
    widths = {"tdata": 32 * lanes, "tkeep": 4 * lanes, "tuser": 2 * lanes, "tlast": 1}
    count = len(data["results/tlast"])
    if one.kind == "run" and count != len(one.results["tlast"]):
        return [f"{count} beats of results, not {len(one.results['tlast'])}"]
    for part, width in widths.items():
        found = octets(data[f"results/{part}"], width)
        if part != "tdata":
            found = np.unpackbits(found, axis=1, count=width, bitorder="little")
        wanted = one.results[part][:count].reshape(count, found.shape[1])
        if not np.array_equal(found, wanted):
            beat = int((found != wanted).any(1).argmax())
            wrong.append(f"{part} of beat {beat} of {count} is {found[beat].tolist()}, not {wanted[beat].tolist()}")
    if one.kind != "reset":
        wrong += check_registers(one, data["status"].tolist(), int(data["irq"]))
    return [f"{text}; {describe(one)}" for text in wrong]


def check_registers(one: Scenario, words: list[int], irq: int) -> list[str]:
    """As :func:`check`, of the status words that ``tb_fuzz`` read after the job."""
    status, error, flags, numeric, pending, *counters = (word & 0xFFFFFFFF for word in words)
    cycles, busy, stall, macs = (counters[2 * k] | counters[2 * k + 1] << 32 for k in range(4))
    aborted = bool(flags >> ABORTED - 1 & 1)
    events = [*one.expected.errors, *({code} for code in one.disturbed_codes)]
    wrong = []
    if aborted:
        possible = {ABORTED}.union(*events)
        if status & ~0b10 != 0b100 or error & 0xFF not in possible or not 1 <= error >> 16 <= 1 + len(events):
            wrong.append(f"after an abort, status {status:#b} and error {error:#x}")
        if one.kind != "abort":
            wrong.append("aborted without an abort")
    else:
        possible = set().union(*events)
        certain = {min(codes) for codes in events if len(codes) == 1}
        told = {code for code in range(1, 15) if flags >> code - 1 & 1}
        if status != (0b110 if events else 0b010):
            wrong.append(f"status is {status:#b} after {len(events)} errors")
        if error >> 16 != len(events) or (error & 0xFF not in (possible or {0})):
            wrong.append(
                f"error is code {error & 0xFF}, {error >> 16} times; not one of {possible}, {len(events)} times"
            )
        if not certain <= told <= possible:
            wrong.append(f"error flags are {told}, not between {certain} and {possible}")
        result = one.expected.result
        if numeric != result.fp32_overflow | result.fp16_saturated << 1:
            wrong.append(f"numeric flags are {numeric}, not {(result.fp32_overflow, result.fp16_saturated)}")
        if not one.expected.errors and macs != one.job.tokens * one.job.inputs * one.job.outputs:
            wrong.append(f"{macs} MACs, not {one.job.tokens} x {one.job.inputs} x {one.job.outputs}")
        if pending != 1 | bool(events) << 1:
            wrong.append(f"interrupts pending {pending:#b} after {len(events)} errors")
    if not 0 < busy + stall <= cycles and not aborted:
        wrong.append(f"{busy} cycles busy and {stall} stalled of {cycles}")
    if irq != bool(pending & one.irq_enable):
        wrong.append(f"irq is {irq} with {pending:#b} pending and {one.irq_enable:#b} enabled")
    return wrong


def describe(one: Scenario) -> str:
    job = one.job
    kinds = ", ".join(sorted(d.name for d in job.datatypes))
    return (
        f"{one.kind} of M, K, N = {job.tokens}, {job.inputs}, {job.outputs}, {kinds}, group {job.group_size}, "
        f"{'fp16' if job.fp16 else 'fp32'}, defects {one.defects}, disturbances {one.disturbances}, stop {one.stop}"
    )


def main(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Scenarios.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Everything follows from it.")] = 1,
    batch: Annotated[int | None, typer.Option(min=0, help="Only this batch of 50, as a failure names it.")] = None,
    preset: Annotated[str, typer.Option(help=f"Core: {', '.join(SMALL)}, or a preset.")] = "tiny",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    report: Annotated[Path, typer.Option(help="Where the report goes.")] = REPORT,
) -> None:
    """Fuzz the core; exit status 1 if anything was not as the models say."""
    console = Console(stderr=True)
    started = time.perf_counter()
    config = small_core(preset)
    built = build_core(config)
    batches = [batch] if batch is not None else list(range(-(-count // BATCH)))
    sizes = [BATCH if batch is not None else min(BATCH, count - BATCH * k) for k in range(len(batches))]
    outcome = Outcome()
    with ProcessPoolExecutor(jobs) as pool:
        same = ([value] * len(batches) for value in (built, config, seed))
        parts = pool.map(play_batch, *same, batches, sizes)
        for part in track(parts, total=len(batches), description="fuzz", console=console):
            outcome.add(part)
            for failure in part.failures[:3]:
                console.print(f"batch {failure['batch']}: {failure['what'][:600]}", markup=False)
    seconds = time.perf_counter() - started
    entry = {
        "pass": not outcome.failures and outcome.counts["scenarios"] == sum(sizes),
        "seed": seed,
        "preset": preset,
        "scenarios": outcome.counts["scenarios"],
        "expected": sum(sizes),
        "cycles": outcome.cycles,
        "seconds": round(seconds, 1),
        "counts": dict(sorted(outcome.counts.items())),
        "failures": outcome.failures,
    }
    write_file(report, (json.dumps(entry, indent=2) + "\n").encode())
    verdict = "passed" if entry["pass"] else f"FAILED ({len(outcome.failures)} failures)"
    print(
        f"fuzz {verdict}: {entry['scenarios']:,} scenarios, {outcome.counts['results compared']:,} results compared "
        f"bit for bit, {outcome.cycles:,} cycles, {seconds:.0f} s, seed {seed}. Report: {report}"
    )
    if not entry["pass"]:
        for failure in outcome.failures[:5]:
            print(f"replay: {failure['replay']}", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

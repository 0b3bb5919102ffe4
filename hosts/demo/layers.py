"""Linear layers through a generated accelerator core: jobs, comparison bit for bit, rates. What two sections share."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gen.tops import core_parameters
from gen.verilog import emit
from golden.bitserial.reference import reference
from golden.core import (
    CoreJob,
    CoreResult,
    activation_stream,
    core_layer,
    result_beats,
    result_matrix,
    weight_stream,
)
from golden.weights import QuantizedWeight
from hosts.core import CoreRequest, CoreRun, run_core
from hosts.demo.report import Item, Section
from hw.tops.core import AcceleratorCoreAxi
from sim.build import build
from sim.runner import SimulationError
from spec.core import CoreConfig

__all__ = ["LayerJobs", "run_layers"]


@dataclass(frozen=True)
class LayerJobs:
    """A layer and the jobs that it is run in: an item of a section.

    Attributes
    ----------
    name : str
        As the table calls it.
    datatype : str
    weight : QuantizedWeight
    vectors : sequence of float16 tensors [tokens, in]
        The activations of each job. Rates are the first job's; what a second, longer one adds is the steady state.
    """

    name: str
    datatype: str
    weight: QuantizedWeight
    vectors: Sequence[torch.Tensor]

    def item(self) -> Item:
        """The item before anything is compared."""
        outputs, inputs = self.weight.shape
        tokens = sum(len(rows) for rows in self.vectors)
        item = Item(f"{self.datatype} {self.name}", expected=outputs * tokens)
        item.more = {
            "datatype": self.datatype,
            "layer": f"{self.name} {outputs} x {inputs}",
            "tokens": len(self.vectors[0]),
            "groups": outputs * tokens * self.weight.groups,
            "useful_macs": outputs * inputs * len(self.vectors[0]),
        }
        return item


def run_layers(
    section: Section,
    top: str,
    config: CoreConfig,
    layers: Sequence[LayerJobs],
    out_dir: Path,
    seed: int,
    *,
    verilog: Path | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> list[CoreRun]:
    """Emit the core as ``top``, run all jobs one after the other on it, and fill the section's items.

    Parameters
    ----------
    out_dir : Path
        Where the Verilog goes.
    seed : int
        Start values of registers and memories.
    verilog : Path, optional
        Simulate this file instead of a newly generated one.
    progress : callable
        Told what comes next.

    Returns
    -------
    list of CoreRun
        The first job's of every layer; empty if the simulation broke off, which the first item then tells.
    """
    progress(f"generating {top} ({config.rows} x {config.columns} PEs)")
    emitted = emit(
        AcceleratorCoreAxi(config), top, out_dir / "verilog", parameters=core_parameters(config), latency=None
    )
    source = verilog or emitted.path_v
    progress(f"building the simulator of {top}")
    built = build(source, top)
    section.verilog_sha256[top] = hashlib.sha256(source.read_bytes()).hexdigest()
    section.items = [layer.item() for layer in layers]

    jobs = [
        (item, layer.weight, rows) for item, layer in zip(section.items, layers, strict=True) for rows in layer.vectors
    ]
    expected = [core_layer(weight, rows, datapath=config.datapath) for _, weight, rows in jobs]
    requests = [_request(config, *job[1:], result) for job, result in zip(jobs, expected, strict=True)]
    progress(f"simulating {len(layers)} layers on {top}")
    try:
        runs = run_core(built, config, requests, seed=seed)
    except SimulationError as error:
        section.items[0].more["error"] = str(error).splitlines()[0]
        return []
    for job, result, run in zip(jobs, expected, runs, strict=True):
        _compare(config, *job, result, run)
    firsts = []
    for item, layer in zip(section.items, layers, strict=True):
        mine, runs = runs[: len(layer.vectors)], runs[len(layer.vectors) :]
        mine_requests, requests = requests[: len(layer.vectors)], requests[len(layer.vectors) :]
        _measure(config, item, mine_requests[0], layer.weight, mine)
        firsts.append(mine[0])
    return firsts


def _request(config: CoreConfig, weight: QuantizedWeight, vectors: torch.Tensor, expected: CoreResult) -> CoreRequest:
    return CoreRequest(
        job=CoreJob.of(config, weight, len(vectors)),
        weights=weight_stream(config, weight, len(vectors)),
        activations=activation_stream(config, vectors, weight.shape[0]),
        results=len(result_beats(config, expected, weight.shape[1])["tlast"]),
    )


def _measure(
    config: CoreConfig, item: Item, request: CoreRequest, weight: QuantizedWeight, runs: Sequence[CoreRun]
) -> None:
    """Rates of a layer's first job, and of what the last one adds. Bits per weight are those of one token block."""
    registers, later = runs[0].registers, runs[-1].registers
    blocks = len(config.tiling(item.more["tokens"], 1, 1).tokens)
    item.cycles = registers["CYCLES"]
    item.more |= {
        "busy": registers["BUSY_CYCLES"] / registers["CYCLES"],
        "stalled": registers["STALL_CYCLES"] / registers["CYCLES"],
        "useful_macs_per_cycle": registers["MACS"] / registers["CYCLES"],
        "bits_per_weight": len(request.weights.beats) * config.rows * 64 / blocks / weight.codes.numel(),
        "simulated_cycles_per_second": runs[0].cycles / runs[0].seconds,
    }
    if len(runs) > 1:
        added = {name: later[name] - registers[name] for name in ("CYCLES", "BUSY_CYCLES")}
        item.more["steady_busy"] = added["BUSY_CYCLES"] / added["CYCLES"]


def _compare(
    config: CoreConfig,
    item: Item,
    weight: QuantizedWeight,
    vectors: torch.Tensor,
    expected: CoreResult,
    run: CoreRun,
) -> None:
    """Results, beats and registers of a job; whatever is wrong counts as a mismatch."""
    outputs, inputs = weight.shape
    bits, marked, received = result_matrix(config, run.beats, len(vectors), inputs, outputs)
    wanted = result_beats(config, expected, inputs)
    framing = sum(int((run.beats[part] != wanted[part]).any()) for part in ("tkeep", "tuser", "tlast"))
    registers = run.registers
    told = (registers["STATUS"], registers["ERROR"], registers["MACS"]) == (2, 0, outputs * inputs * len(vectors))
    exact, magnitude = reference(weight, vectors)
    scale = weight.channel_scale.double()
    value = torch.from_numpy(bits.view(np.float32)).double()
    item.compared += int(received.sum())
    item.mismatches += int(((bits != expected.bits) & received).sum()) + framing + (not told)
    error = float(((value - exact * scale).abs() / (magnitude * scale).clamp(min=1e-30)).max())
    item.max_rel_error = max(item.max_rel_error or 0.0, error)
    item.more["marked"] = item.more.get("marked", 0) + int(marked.sum())

"""Section ``core``: the linear layers of a transformer block of SmolLM2 through the generated accelerator core."""

import hashlib
from collections.abc import Callable, Sequence
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
from golden.llm import CHECKPOINT_CAVEAT, MODEL_NAME, capture_activations, layer_weight, text_hash
from golden.weights import QuantizedWeight, quantize
from hosts.core import CoreRequest, CoreRun, run_core
from hosts.demo.report import Column, Item, Section
from hw.tops.core import AcceleratorCoreAxi
from sim.build import build
from sim.runner import SimulationError
from spec.core import CoreConfig
from spec.datatypes import Datatype
from spec.system import core_preset

__all__ = ["BLOCK", "run_core_section"]

TOP = "core"
TEXT_TOKENS = 64
TOKENS = 16
"""The last so many tokens of the text: a token block of preset ``dense``."""
FURTHER = 16
"""Tokens more in a second job of each layer: what they add is the steady state, without a job's first fill and end."""
LAYER = "model.layers.14"
BLOCK = {
    "self_attn.q_proj": Datatype.FP4,
    "self_attn.k_proj": Datatype.INT8,
    "self_attn.v_proj": Datatype.INT8,
    "self_attn.o_proj": Datatype.INT6,
    "mlp.gate_proj": Datatype.FP3,
    "mlp.up_proj": Datatype.FP4,
    "mlp.down_proj": Datatype.INT6,
}
"""The linear layers of a block, and the datatype of each."""

COLUMNS = [
    Column("layer", "layer"),
    Column("datatype", "datatype"),
    Column("outputs", "compared", ","),
    Column("mismatches", "mismatches", ","),
    Column("max error", "max_rel_error", ".1e"),
    Column("cycles", "cycles", ","),
    Column("busy", "busy", ".1%"),
    Column("steady", "steady_busy", ".1%"),
    Column("MACs/cycle", "useful_macs_per_cycle", ".0f"),
    Column("bits/weight", "bits_per_weight", ".2f"),
]


def run_core_section(
    out_dir: Path,
    seed: int,
    *,
    preset: str = "dense",
    layers: Sequence[str] = tuple(BLOCK),
    tokens: int = TOKENS,
    further: int = FURTHER,
    outputs: int | None = None,
    verilog: Path | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Section:
    """Quantize a block's layers, run them job after job on the simulated core, compare every output bit for bit.

    Parameters
    ----------
    out_dir : Path
        Where the Verilog goes.
    seed : int
        Start values of registers and memories.
    preset : str
        Configuration of the core.
    layers : sequence of str
        Some of :data:`BLOCK`.
    tokens : int
        Rows of the activations.
    further : int
        Rows more in the second job of each layer.
    outputs : int, optional
        Only so many output channels of each layer.
    verilog : Path, optional
        Simulate this file instead of a newly generated one.
    progress : callable
        Told what comes next.
    """
    config = core_preset(preset)
    progress(f"generating {TOP} ({config.rows} x {config.columns} PEs)")
    emitted = emit(
        AcceleratorCoreAxi(config), TOP, out_dir / "verilog", parameters=core_parameters(config), latency=None
    )
    source = verilog or emitted.path_v
    progress(f"building the simulator of {TOP}")
    built = build(source, TOP)
    section = Section("core", f"{MODEL_NAME}: {LAYER}, {tokens} tokens through {TOP}, preset {preset}", COLUMNS)
    section.verilog_sha256[TOP] = hashlib.sha256(source.read_bytes()).hexdigest()

    captured = capture_activations([f"{LAYER}.{name}" for name in layers], TEXT_TOKENS)
    size = max(config.group_sizes)
    weights = [quantize(layer_weight(f"{LAYER}.{name}")[:outputs], BLOCK[name], group_size=size) for name in layers]
    # Of each layer two jobs, one after the other.
    vectors = [captured[f"{LAYER}.{name}"][-count:] for name in layers for count in (tokens, tokens + further)]
    weights = [weight for weight in weights for _ in range(2)]
    expected = [
        core_layer(weight, rows, datapath=config.datapath) for weight, rows in zip(weights, vectors, strict=True)
    ]
    requests = [_request(config, *one) for one in zip(weights, vectors, expected, strict=True)]
    progress(f"simulating {len(layers)} layers")
    section.items = [_item(name, weights[2 * k], (tokens, tokens + further)) for k, name in enumerate(layers)]
    try:
        runs = run_core(built, config, requests, seed=seed)
    except SimulationError as error:
        section.items[0].more["error"] = str(error).splitlines()[0]
        return section
    jobs = list(zip(weights, vectors, expected, runs, strict=True))
    for k, item in enumerate(section.items):
        _measure(config, item, requests[2 * k], weights[2 * k], *runs[2 * k : 2 * k + 2])
        for job in jobs[2 * k : 2 * k + 2]:
            _compare(config, item, *job)
    _notes(section, config, runs[::2], further)
    return section


def _request(config: CoreConfig, weight: QuantizedWeight, vectors: torch.Tensor, expected: CoreResult) -> CoreRequest:
    return CoreRequest(
        job=CoreJob.of(config, weight, len(vectors)),
        weights=weight_stream(config, weight, len(vectors)),
        activations=activation_stream(config, vectors, weight.shape[0]),
        results=len(result_beats(config, expected, weight.shape[1])["tlast"]),
    )


def _item(name: str, weight: QuantizedWeight, tokens: tuple[int, int]) -> Item:
    outputs, inputs = weight.shape
    item = Item(f"{BLOCK[name].name} {LAYER}.{name}", expected=outputs * sum(tokens))
    item.more = {
        "datatype": BLOCK[name].name,
        "layer": f"{name} {outputs} x {inputs}",
        "tokens": tokens[0],
        "groups": outputs * sum(tokens) * weight.groups,
        "useful_macs": outputs * inputs * tokens[0],
    }
    return item


def _measure(
    config: CoreConfig, item: Item, request: CoreRequest, weight: QuantizedWeight, run: CoreRun, longer: CoreRun
) -> None:
    """Rates of a layer's jobs. Bits per weight are those of one token block."""
    registers, later = run.registers, longer.registers
    blocks = len(config.tiling(item.more["tokens"], 1, 1).tokens)
    item.cycles = registers["CYCLES"]
    item.more |= {
        "busy": registers["BUSY_CYCLES"] / registers["CYCLES"],
        "steady_busy": (later["BUSY_CYCLES"] - registers["BUSY_CYCLES"]) / (later["CYCLES"] - registers["CYCLES"]),
        "stalled": registers["STALL_CYCLES"] / registers["CYCLES"],
        "useful_macs_per_cycle": registers["MACS"] / registers["CYCLES"],
        "bits_per_weight": len(request.weights.beats) * config.rows * 64 / blocks / weight.codes.numel(),
        "simulated_cycles_per_second": run.cycles / run.seconds,
        "marked": 0,
    }


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
    item.more["marked"] += int(marked.sum())


def _notes(section: Section, config: CoreConfig, runs: Sequence[CoreRun], further: int) -> None:
    """``runs``: the shorter job of each layer."""
    macs, cycles = (sum(run.registers[name] for run in runs) for name in ("MACS", "CYCLES"))
    busy = sum(run.registers["BUSY_CYCLES"] for run in runs)
    peak = config.rows * config.columns * config.datapath.lanes
    section.notes = [
        f"All layers: {macs:,} useful MACs in {cycles:,} cycles, {macs / cycles:.0f} per cycle; {peak:,} multipliers, "
        f"which a weight of INT6 or FP4 takes for two cycles and one of INT8 for three. Busy {busy / cycles:.1%} of "
        f"all cycles, counted from the write of CONTROL.start to the end of the job; steady: of the cycles that "
        f"{further} further tokens add. Outputs are those of both jobs. Simulated at "
        f"{runs[0].cycles / runs[0].seconds:,.0f} cycles per second on one core.",
        f"Text: pydoc_data.topics, SHA-256 {text_hash()[:12]}. {CHECKPOINT_CAVEAT}",
    ]

"""Section ``weights``: real layers of SmolLM2 in every BitMoD datatype through the generated PE column."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gen.synth.liberty import Library
from gen.synth.run import QUICK, synthesize
from gen.verilog import emit
from golden.bitserial.column import dot_products, steps_per_row
from golden.bitserial.reference import reference
from golden.llm import CHECKPOINT_CAVEAT, MODEL_NAME, capture_activations, layer_weight, text_hash
from golden.weights import quantize
from hosts.column import multiply
from hosts.demo.report import Column, Item, Section
from hw.bitserial.column import PEColumn
from hw.bitserial.dequantizer import RescaledPE
from sim.build import build
from sim.runner import SimulationError
from spec.config import ColumnConfig
from spec.datatypes import Datatype

__all__ = ["run_weights", "workload"]

TOP = "pe_column"
TEXT_TOKENS = 64
LAYERS = {  # layer: tokens of the forward pass that are run through it
    "model.layers.0.self_attn.q_proj": (5, 40),
    "model.layers.14.mlp.down_proj": (23,),
}
DATATYPES = (Datatype.FP3, Datatype.FP4, Datatype.INT6, Datatype.INT8)
OTHER_DATATYPES = (Datatype.INT3, Datatype.INT4, Datatype.INT5)

COLUMNS = [
    Column("datatype", "datatype"),
    Column("layer", "layer"),
    Column("outputs", "compared", ","),
    Column("groups", "groups", ","),
    Column("mismatches", "mismatches", ","),
    Column("max error", "max_rel_error", ".1e"),
    Column("cycles", "cycles", ","),
    Column("MACs/cycle", "useful_macs_per_cycle", ".2f"),
    Column("bits/weight", "bits_per_weight", ".2f"),
    Column("GE per PE", "gate_equivalents", ",.0f"),
]


def workload() -> list[tuple[str, Datatype, tuple[int, ...]]]:
    """(layer, datatype, tokens) of every item: the paper's datatypes on all layers, the others on the first."""
    jobs = [(layer, datatype, tokens) for layer, tokens in LAYERS.items() for datatype in DATATYPES]
    first = next(iter(LAYERS))
    return jobs + [(first, datatype, LAYERS[first][:1]) for datatype in OTHER_DATATYPES]


def run_weights(
    config: ColumnConfig,
    out_dir: Path,
    seed: int,
    *,
    library: Library,
    jobs: list[tuple[str, Datatype, tuple[int, ...]]] | None = None,
    verilog: Path | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Section:
    """Quantize layers, run them on the simulated column and compare every output bit for bit.

    Parameters
    ----------
    config : ColumnConfig
        The column.
    out_dir : Path
        Where the Verilog goes.
    seed : int
        Start values of registers and memories.
    library : Library
        Cells for the gate count.
    jobs : list, optional
        As :func:`workload` gives it.
    verilog : Path, optional
        Simulate this file instead of a newly generated one.
    progress : callable
        Told what comes next.
    """
    jobs = workload() if jobs is None else jobs
    emitted = emit(PEColumn(config), TOP, out_dir / "verilog", parameters=vars(config), latency=None)
    source = verilog or emitted.path_v
    progress(f"building the simulator of {TOP} ({config.pes} PEs)")
    built = build(source, TOP)
    section = Section(
        "weights", f"{MODEL_NAME}: linear layers through {TOP}, {config.pes} PEs of {config.lanes} lanes", COLUMNS
    )
    section.verilog_sha256[TOP] = _sha256(source)

    activations = capture_activations(list(LAYERS), TEXT_TOKENS)
    for layer, datatype, tokens in jobs:
        progress(f"{datatype.name} {layer}")
        section.items.append(_run_item(built, config, layer, datatype, activations[layer][list(tokens)], seed))

    progress("estimating gates")
    emit(
        pe := RescaledPE(config.lanes, config.rounding, config.digit_bits, config.accumulator_bits),
        "rescaled_pe",
        out_dir / "verilog",
        parameters=vars(config),
        latency=pe.latency,
    )
    area = synthesize(out_dir / "verilog" / "rescaled_pe.v", "rescaled_pe", library, variants=QUICK)
    for item in section.items:
        item.more["gate_equivalents"] = area.gate_equivalents
    section.notes = [
        f"MACs/cycle counts useful ones, no padding. GE per PE: gate equivalents of a PE with its dequantizer "
        f"({area.flipflops} flip-flops; {library.name} library, {area.variant}), without unpacker, decoder and FP32 "
        f"accumulation.",
        f"Text: pydoc_data.topics, SHA-256 {text_hash()[:12]}. {CHECKPOINT_CAVEAT}",
    ]
    return section


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run_item(
    built, config: ColumnConfig, layer: str, datatype: Datatype, activations: torch.Tensor, seed: int
) -> Item:
    weight = quantize(layer_weight(layer), datatype, group_size=config.group_size)
    expected = dot_products(
        weight, activations, lanes=config.lanes, rounding=config.rounding, accumulator_bits=config.accumulator_bits
    )
    outputs, tokens, inputs = weight.shape[0], activations.shape[0], weight.shape[1]
    macs = outputs * inputs * tokens
    item = Item(f"{datatype.name} {layer}", expected=outputs * tokens)
    item.more = {
        "datatype": datatype.name,
        "layer": f"{layer.removeprefix('model.layers.')} {outputs} x {inputs}",
        "tokens": tokens,
        "groups": outputs * tokens * weight.groups,
        "useful_macs": macs,
    }
    try:
        output = multiply(built, config, weight, activations, seed=seed)
    except SimulationError as error:
        item.more["error"] = str(error).splitlines()[0]
        return item
    exact, magnitude = reference(weight, activations)
    value = torch.from_numpy(output.bits.view(np.float32)).double()
    item.compared = int(output.received.sum())
    item.mismatches = int(((output.bits != expected) & output.received).sum())
    item.cycles = output.cycles
    item.max_rel_error = float(((value - exact).abs() / magnitude.clamp(min=1e-30)).max())
    item.more |= {
        "marked": int(output.marked.sum()),
        "bits_per_weight": output.bits_per_weight,
        "useful_macs_per_cycle": macs / output.cycles,
        "steps_per_row": int(steps_per_row(weight, lanes=config.lanes)[0]),
        "cycles_per_row": output.cycles / (outputs // config.pes * tokens),
        "simulated_cycles_per_second": output.cycles / output.seconds,
    }
    return item

"""Section ``weights``: real layers of SmolLM2 in every BitMoD datatype through a small core of BitMoD's PEs."""

from collections.abc import Callable
from pathlib import Path

from gen.synth.liberty import Library
from gen.synth.run import QUICK, synthesize
from gen.verilog import emit
from golden.llm import CHECKPOINT_CAVEAT, MODEL_NAME, capture_activations, layer_weight, text_hash
from golden.weights import quantize
from hosts.demo.layers import LayerJobs, run_layers
from hosts.demo.report import Column, Section
from hw.bitserial.dequantizer import RescaledPE
from spec.bitserial import BitSerialConfig
from spec.core import CoreConfig
from spec.datatypes import Datatype

__all__ = ["demo_core", "run_weights", "workload"]

TOP = "bit_serial_core"
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


def demo_core(pe: BitSerialConfig, rows: int) -> CoreConfig:
    """A core of one column: ``rows`` PEs, which share each token's activations."""
    return CoreConfig(
        rows=rows,
        columns=1,
        token_sets=1,
        drain_chains=1,
        datapath=pe,
        block_outputs=8 * rows,
        result_lanes=1,
    )


def run_weights(
    config: CoreConfig,
    out_dir: Path,
    seed: int,
    *,
    library: Library,
    jobs: list[tuple[str, Datatype, tuple[int, ...]]] | None = None,
    verilog: Path | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Section:
    """Quantize layers, run them on the simulated core and compare every output bit for bit.

    Parameters
    ----------
    config : CoreConfig
        A core of ``BitSerialPE``s, as :func:`demo_core` gives it.
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
    pe = config.datapath
    pes = config.rows * config.columns
    section = Section("weights", f"{MODEL_NAME}: linear layers through {TOP}, {pes} PEs of {pe.lanes} lanes", COLUMNS)
    activations = capture_activations(list(LAYERS), TEXT_TOKENS)
    layers = [
        LayerJobs(
            layer.removeprefix("model.layers."),
            datatype.name,
            quantize(layer_weight(layer), datatype, group_size=pe.group_size),
            [activations[layer][list(tokens)]],
        )
        for layer, datatype, tokens in (workload() if jobs is None else jobs)
    ]
    run_layers(section, TOP, config, layers, out_dir, seed, verilog=verilog, progress=progress)

    progress("estimating gates")
    options = {"lanes": pe.lanes, "rounding": pe.rounding, "accumulator_bits": pe.accumulator_bits, "digit_bits": 1}
    rescaled = RescaledPE(**options)
    emit(rescaled, "rescaled_pe", out_dir / "verilog", parameters=options, latency=rescaled.latency)
    area = synthesize(out_dir / "verilog" / "rescaled_pe.v", "rescaled_pe", library, variants=QUICK)
    for item in section.items:
        item.more["gate_equivalents"] = area.gate_equivalents
    section.notes = [
        f"MACs/cycle counts useful ones, no padding, from CONTROL.start to the end of a job. GE per PE: gate "
        f"equivalents of a PE with BitMoD's bit-serial dequantizer ({area.flipflops} flip-flops; {library.name} "
        f"library, {area.variant}), without unpacker, decoder and FP32 accumulation.",
        f"Text: pydoc_data.topics, SHA-256 {text_hash()[:12]}. {CHECKPOINT_CAVEAT}",
    ]
    return section

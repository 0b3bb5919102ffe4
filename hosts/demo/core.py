"""Section ``core``: the linear layers of a transformer block of SmolLM2 through the generated accelerator core."""

from collections.abc import Callable, Sequence
from pathlib import Path

from golden.llm import CHECKPOINT_CAVEAT, MODEL_NAME, capture_activations, layer_weight, text_hash
from golden.weights import quantize
from hosts.core import CoreRun
from hosts.demo.layers import LayerJobs, run_layers
from hosts.demo.report import Column, Section
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
    section = Section("core", f"{MODEL_NAME}: {LAYER}, {tokens} tokens through {TOP}, preset {preset}", COLUMNS)
    captured = capture_activations([f"{LAYER}.{name}" for name in layers], TEXT_TOKENS)
    size = max(config.group_sizes)
    jobs = [
        LayerJobs(
            name,
            BLOCK[name].name,
            quantize(layer_weight(f"{LAYER}.{name}")[:outputs], BLOCK[name], group_size=size),
            [captured[f"{LAYER}.{name}"][-count:] for count in (tokens, tokens + further)],
        )
        for name in layers
    ]
    if runs := run_layers(section, TOP, config, jobs, out_dir, seed, verilog=verilog, progress=progress):
        _notes(section, config, runs, further)
    return section


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

"""Throughput density: multiply-accumulates per second and gate equivalent, edge blocks included, beside peers'."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from amaranth.lib.wiring import Component

from gen.synth.liberty import Library
from gen.synth.recipe import VARIANTS
from gen.synth.run import SynthResult, VariantResult, synthesize
from gen.verilog import to_verilog
from hw.bitserial.dequantizer import RescaledPE
from hw.prealigned.accumulator import RunningSums
from hw.prealigned.aligner import ActivationAligner
from hw.prealigned.decoder import DigitDecoder
from hw.prealigned.dequantizer import GroupDequantizer
from hw.prealigned.digits import steps
from hw.prealigned.multiples import OddMultiples
from hw.prealigned.pe import PrealignedPE
from spec.bitserial import BitSerialConfig
from spec.datatypes import Datatype
from spec.prealigned import PrealignedConfig
from spec.system import SYSTEMS

__all__ = ["BIT_SERIAL", "PEERS", "Built", "blocks", "build", "compose", "macs_per_cycle", "report"]

PEERS = Path(__file__).with_name("peers.json")
DATATYPES = {d.name.lower(): d for d in (Datatype.FP3, Datatype.FP4, Datatype.INT4, Datatype.INT6, Datatype.INT8)}
CORE = SYSTEMS["dense"].core
DATAPATHS = {name: SYSTEMS[name].core.datapath for name in ("dense", "dense-fp4", "precise")}
ROWS, COLUMNS, CHAINS = CORE.rows, CORE.columns, CORE.drain_chains
TILE = {
    "pe": ROWS * COLUMNS,
    "aligner": 1,
    "multiples": COLUMNS,
    "decoder": ROWS,
    "dequantizer": COLUMNS * CHAINS,
    "sums": COLUMNS * CHAINS,
}
"""How many of each block the tile of the core's preset ``dense`` has. One aligner: activations stay on the chip,
aligned, for all channels. A dequantizer and running sums for each drain chain of a column."""

BIT_SERIAL = "bit_serial_pe"
BIT_SERIAL_STEPS = {"fp3": 2, "fp4": 2, "int4": 2, "int6": 3, "int8": 4}


@dataclass(frozen=True)
class Built:
    """A tile at one clock: its delay, and what each block takes (gate equivalents, with the variant's name)."""

    delay_ps: float
    gate_equivalents: dict[str, float]
    variants: dict[str, str]

    def edge(self, aligners: int = TILE["aligner"]) -> float:
        """Gate equivalents per PE of all that is not a PE."""
        counts = TILE | {"aligner": aligners}
        return sum(counts[name] * area for name, area in self.gate_equivalents.items() if name != "pe") / TILE["pe"]


def blocks(config: PrealignedConfig) -> dict[str, Callable[[], Component]]:
    """What a tile consists of, by the names of :data:`TILE`."""
    return {
        "pe": lambda: PrealignedPE(config),
        "aligner": lambda: ActivationAligner(config.lanes, config.activation_bits, config.group_size),
        "multiples": lambda: OddMultiples(config),
        "decoder": lambda: DigitDecoder(config),
        "dequantizer": lambda: GroupDequantizer(config),
        "sums": lambda: RunningSums(CORE.token_sets * CORE.block_outputs // CHAINS),
    }


def compose(results: dict[str, Sequence[VariantResult]]) -> Built:
    """The tile at its best product of gate equivalents and delay, each block in its smallest variant that keeps up."""
    built = []
    for clock in sorted({v.delay_ps for found in results.values() for v in found}):
        fast = {name: [v for v in found if v.delay_ps <= clock] for name, found in results.items()}
        if all(fast.values()):
            best = {name: min(found, key=lambda v: v.gate_equivalents) for name, found in fast.items()}
            areas = {name: v.gate_equivalents for name, v in best.items()}
            built.append(Built(clock, areas, {name: v.variant for name, v in best.items()}))
    return min(built, key=lambda b: b.delay_ps * sum(TILE[name] * area for name, area in b.gate_equivalents.items()))


def macs_per_cycle(
    config: PrealignedConfig, datatype: Datatype, group_size: int, token_sets: int = CORE.token_sets
) -> float:
    """Of one PE: a group takes ``steps`` cycles per beat, but no fewer than the drain and the running sums need."""
    cycles = -(-group_size // config.lanes) * steps(datatype, config.digits)
    return group_size / max(cycles, CORE.drain_cycles, -(-RunningSums.interval // token_sets))


def broadcast_wires(config: PrealignedConfig) -> int:
    """Wires into a PE that it shares with others: multiples, digits and control."""
    multiples = sum(config.multiple_bits(odd) for odd in config.digits.odd_multiples)
    return config.lanes * (multiples + len(config.digits.multiples) + 1) + 3


def build(
    config: PrealignedConfig,
    library: Library,
    cache_dir: Path,
    progress: Callable[[str], None] | None = None,
    variants=VARIANTS,
    jobs: int = 2,
) -> tuple[Built, dict[str, SynthResult]]:
    """Synthesize the blocks of a tile, each in every variant of the recipe, and compose them."""
    results = {}
    for name, block in blocks(config).items():
        text, _ports = to_verilog(block(), name)
        results[name] = synthesize(text, name, library, variants=variants, cache_dir=cache_dir, jobs=jobs)
        if progress is not None:
            progress(f"{library.name} {name}")
    return compose({name: result.all_variants for name, result in results.items()}), results


def report(
    libraries: Sequence[Library], cache_dir: Path, progress: Callable[[str], None] | None = None, jobs: int = 2
) -> list[dict]:
    """One entry per library and design: the presets, and the bit-serial PE with its dequantizer.

    Density is in MACs per second and gate equivalent. A ratio to a peer is None unless recipe, library and delay tool
    are those of the peer's figures, or where the peer does not know the datatype.
    """
    peers = json.loads(PEERS.read_text())
    entries = []
    for library in libraries:
        bitmod = BitSerialConfig()
        pe = {name: getattr(bitmod, name) for name in ("lanes", "rounding", "accumulator_bits")}
        text, _ports = to_verilog(RescaledPE(**pe, digit_bits=1), "rescaled_pe")
        serial = synthesize(text, "rescaled_pe", library, cache_dir=cache_dir, jobs=jobs)
        if progress is not None:
            progress(f"{library.name} {BIT_SERIAL}")
        rates = {name: bitmod.lanes / count for name, count in BIT_SERIAL_STEPS.items()}
        baseline = _density(rates, serial.gate_equivalents, serial.delay_ps)
        common = {
            "library": library.name,
            "estimate": library.is_estimate,
            "library_hash": serial.library_hash,
            "recipe_hash": serial.recipe_hash,
            "delay_tool": serial.delay_tool,
            "delay_tool_version": serial.delay_tool_version,
        }

        def ratios(density: dict[str, float], common=common, baseline=baseline) -> dict:
            found = {f"ratio_to_{peer['name']}": _peer_ratio(density, peer, common) for peer in peers}
            return found | {"ratio_to_bitserial_pe": {name: density[name] / baseline[name] for name in density}}

        for preset, config in DATAPATHS.items():
            built, _results = build(config, library, cache_dir, progress, jobs=jobs)
            area = built.gate_equivalents["pe"]
            rates = {n: macs_per_cycle(config, d, config.group_size) for n, d in DATATYPES.items()}
            density = _density(rates, area + built.edge(), built.delay_ps)
            alone = _density(rates, area + built.edge(COLUMNS), built.delay_ps)
            entries.append(
                {"design": preset}
                | common
                | {
                    "gate_equivalents": area,
                    "edge_gate_equivalents": round(built.edge(), 2),
                    "delay_ps": built.delay_ps,
                    "multiples": list(config.digits.multiples),
                    "lanes": config.lanes,
                    "activation_bits": config.activation_bits,
                    "registers": list(config.registers),
                    "broadcast_wires": broadcast_wires(config),
                    "macs_per_cycle": rates,
                    "macs_per_cycle_of_shorter_groups": {
                        str(size): {n: macs_per_cycle(config, d, size) for n, d in DATATYPES.items()}
                        for size in (64, 32)
                    },
                    "density": density,
                }
                | ratios(density)
                | {
                    "aligner_per_token": {"edge_gate_equivalents": round(built.edge(COLUMNS), 2), "density": alone}
                    | ratios(alone),
                    "blocks": {
                        name: {"gate_equivalents": built.gate_equivalents[name], "variant": built.variants[name]}
                        for name in TILE
                    },
                }
            )
        entries.append(
            {"design": BIT_SERIAL}
            | common
            | {
                "gate_equivalents": serial.gate_equivalents,
                "edge_gate_equivalents": 0.0,
                "delay_ps": serial.delay_ps,
                "multiples": None,
                "lanes": bitmod.lanes,
                "broadcast_wires": None,
                "macs_per_cycle": {name: bitmod.lanes / count for name, count in BIT_SERIAL_STEPS.items()},
                "density": baseline,
            }
            | ratios(baseline)
        )
    return entries


def _density(macs: dict[str, float], gate_equivalents: float, delay_ps: float) -> dict[str, float]:
    return {name: rate / (gate_equivalents * delay_ps * 1e-12) for name, rate in macs.items()}


def _peer_ratio(density: dict[str, float], peer: dict, common: dict) -> dict[str, float | None] | None:
    """Our density over the peer's, per datatype; None where they do not compare."""
    keys = ("library_hash", "recipe_hash", "delay_tool")
    found = [r for r in peer["results"] if all(r[key] == common[key] for key in keys)]
    if not found:
        return None
    rates = {name: peer["lanes"] / count for name, count in peer["steps"].items()}
    theirs = _density(rates, found[0]["gate_equivalents"], found[0]["delay_ps"])
    return {name: density[name] / theirs[name] if name in theirs else None for name in density}

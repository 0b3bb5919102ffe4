"""``make attention-cost``: gate-cycles of attention from codes against dequantize-then-multiply.

Gate-cycles of a decoding step are gate equivalents times the cycles for which they are allocated, idle ones included,
per query head and token. Both routes are synthesized by one recipe; each takes the number of lanes that suits it. The
cycles are formulas of `studies.attention.workload`; `verif/studies/test_attention_cost.py` checks them by simulation.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from amaranth.lib.wiring import Component

from gen.synth.liberty import Library, generic_library, load_library
from gen.synth.recipe import QUICK, VARIANTS
from gen.synth.run import SynthResult, synthesize
from gen.verilog import to_verilog
from hw.attention.metadata import MetadataReader
from hw.attention.score.core import ScoreCore
from hw.attention.score.dot import DotArray
from hw.attention.score.fold import FoldUnit
from hw.attention.score.query import QueryUnit
from hw.attention.score.results import ScoreOut
from hw.attention.value.channels import ChannelSums
from hw.attention.value.core import ValueCore
from hw.attention.value.results import ValueOut
from hw.attention.value.weights import WeightAligner
from hw.kv.engine import KvDequantizer
from shell.output import write_file
from spec.attention import BUS_BYTES, AttentionConfig
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat
from studies.attention.baseline import DequantizedDot, DequantizedSum
from studies.attention.baseline_exact import ExactElements, ScaledScore, ScaledWeight
from studies.attention.workload import SCORE_BETWEEN, Workload, array_busy, baseline_cycles, score_cycles, value_cycles

__all__ = ["attention_cost", "cost_report", "ratio_lines"]

REPORT = Path("build/attention/report.json")
BASELINE_LANES = (8, 16, 32)
HEADS = (1, 3)
KEY_FORMATS = frozenset({KvFormat.K1, KvFormat.K2S})
VALUE_FORMATS = frozenset({KvFormat.V158, KvFormat.V2})
"""What the dequantizing route's engines are built for: the default formats, protected tokens among them."""


EXACT = "exact"
"""What the other route's blocks for exact tokens are called."""


def _parts(config: AttentionConfig, lanes: tuple[int, ...], several: bool) -> dict[str, Callable[[], Component]]:
    """Everything that is synthesized, by name; ``several``: what more query heads per KV head need to know."""
    parts = {"score_core": lambda: ScoreCore(config), "value_core": lambda: ValueCore(config)}
    for n in lanes:
        engine = KvEngineConfig(lanes=n, max_channels=config.channels, formats=KEY_FORMATS)
        plain = replace(engine, transforms=frozenset(), formats=VALUE_FORMATS)
        parts |= {
            f"key_dequantizer_{n}": lambda engine=engine: KvDequantizer(engine),
            f"value_dequantizer_{n}": lambda plain=plain: KvDequantizer(plain),
            f"dequantized_dot_{n}": lambda n=n: DequantizedDot(n, config.channels),
            f"dequantized_sum_{n}": lambda n=n: DequantizedSum(n, config.channels),
            f"exact_elements_{n}": lambda n=n: ExactElements(n),
        }
    parts |= {"scaled_score": ScaledScore, "scaled_weight": ScaledWeight}
    if several:
        parts |= {
            "query_unit": lambda: QueryUnit(config),
            "fold_unit": lambda: FoldUnit(config),
            "metadata_reader": lambda: MetadataReader(config.parser),
            "dot_array": lambda: DotArray(config),
            "score_out": lambda: ScoreOut(config),
            "weight_aligner": lambda: WeightAligner(config),
            "channel_sums": lambda: ChannelSums(config),
            "value_out": lambda: ValueOut(config),
        }
    return parts


def _row(name: str, gates: float, memory: float, delay: float, cycles: int, heads: int) -> dict:
    """A block's share: ``gates`` serve one query head, or are shared by ``heads``."""
    return {
        "block": name,
        "gate_equivalents": round(gates, 1),
        "memory_bits": memory,
        "delay_ps": delay,
        "cycles": cycles,
        "query_heads": heads,
        "gate_cycles": round(gates * cycles / heads),
        "gate_cycles_with_memory": round((gates + memory) * cycles / heads),
    }


def _fused(found: Mapping[str, SynthResult], work: Workload, config: AttentionConfig, heads: int) -> list[dict]:
    """What works on codes and queries or weights is wanted once per query head; parsing, rows and codes are shared."""
    own = {
        "score_core": ("query_unit", "fold_unit", "dot_array", "score_out"),
        "value_core": ("weight_aligner", "channel_sums", "value_out"),
    }
    rows = []
    for (name, parts), cycles in zip(
        own.items(), (score_cycles(work, config), value_cycles(work, config)), strict=True
    ):
        core = found[name]
        if heads == 1:
            rows.append(_row(name, core.gate_equivalents, core.memory_bits, core.delay_ps, cycles, 1))
            continue
        gates = sum(found[part].gate_equivalents for part in parts)
        memory = sum(found[part].memory_bits for part in parts)
        if name == "score_core":
            gates -= found["metadata_reader"].gate_equivalents
            memory -= found["metadata_reader"].memory_bits
        shared = max(0.0, core.gate_equivalents - gates), max(0, core.memory_bits - memory)
        rows.append(_row(f"{name}, per query head", gates, memory, core.delay_ps, cycles, 1))
        rows.append(_row(f"{name}, shared", *shared, core.delay_ps, cycles, heads))
    return rows


def _baseline(found: Mapping[str, SynthResult], work: Workload, lanes: int, heads: int) -> list[dict]:
    cycles = baseline_cycles(work, lanes)
    blocks = (
        ("keys dequantized", "key_dequantizer", heads),
        ("q . k", "dequantized_dot", 1),
        ("values dequantized", "value_dequantizer", heads),
        ("P . V", "dequantized_sum", 1),
        (f"{EXACT} keys to FP16", "exact_elements", heads),
        (f"{EXACT} values to FP16", "exact_elements", heads),
    )
    rows = [(f"{name}, {lanes} lanes", found[f"{block}_{lanes}"], share) for name, block, share in blocks]
    rows += [
        (f"{EXACT} keys' scales", found["scaled_score"], 1),
        (f"{EXACT} values' scales", found["scaled_weight"], 1),
    ]
    return [_row(name, r.gate_equivalents, r.memory_bits, r.delay_ps, cycles, share) for name, r, share in rows]


def _compare(found, work, config, heads, lanes) -> dict:
    fused = _fused(found, work, config, heads)
    routes = [_baseline(found, work, n, heads) for n in lanes]

    def total(rows, key="gate_cycles"):
        return sum(row[key] for row in rows)

    def slowest(rows):
        # What exact tokens need there may take as many more registers as it likes.
        return max(row["delay_ps"] for row in rows if not row["block"].startswith(EXACT))

    best = min(routes, key=total)
    return {
        "query_heads": heads,
        "gate_cycle_ratio": round(total(best) / total(fused), 2),
        "gate_cycle_ratio_by_lanes": {n: round(total(r) / total(fused), 2) for n, r in zip(lanes, routes, strict=True)},
        "gate_cycle_ratio_with_memory": round(
            min(total(r, "gate_cycles_with_memory") for r in routes) / total(fused, "gate_cycles_with_memory"), 2
        ),
        "gate_cycle_delay_ratio": round(
            min(total(r) * slowest(r) for r in routes) / (total(fused) * slowest(fused)), 2
        ),
        "fused": fused,
        "baseline": best,
    }


def cost_report(
    library: Library,
    *,
    quick: bool,
    lanes: tuple[int, ...] = BASELINE_LANES,
    heads: tuple[int, ...] = HEADS,
    tell=print,
) -> dict:
    """Synthesizes everything and compares. Results are cached, so a second run is instant."""
    work, config = Workload(), AttentionConfig()
    found = {}
    for name, make in _parts(config, lanes, max(heads) > 1).items():
        component = make()
        top = type(component).__name__.lower()
        verilog, _ports = to_verilog(component, top)
        found[name] = synthesize(verilog, top, library, variants=QUICK if quick else VARIANTS)
        tell(f"{name}: {found[name].gate_equivalents:.0f} GE, {found[name].delay_ps:.0f} ps")
    routes = [_compare(found, work, config, count, lanes) for count in heads]
    first = next(iter(found.values()))
    return {
        "gate_cycle_ratio": routes[0]["gate_cycle_ratio"],
        "gate_cycle_delay_ratio": routes[0]["gate_cycle_delay_ratio"],
        "with_memory_ratio": routes[0]["gate_cycle_ratio_with_memory"],
        "gate_cycle_ratio_three": routes[1]["gate_cycle_ratio"] if len(routes) > 1 else None,
        "array_busy": round(array_busy(work, config), 3),
        "array_busy_packed": round(sum(work.blocks) / sum(rows + SCORE_BETWEEN for rows in work.blocks), 3),
        "workload": asdict(work),
        "config": asdict(config) | {"transforms": sorted(t.name for t in config.transforms)},
        "bus_bytes": BUS_BYTES,
        "library": library.name,
        "variants": "quick" if quick else "all",
        "delay_tool": first.delay_tool,
        "recipe_hash": first.recipe_hash,
        "library_hash": first.library_hash,
        "comparisons": routes,
    }


def ratio_lines(report: dict) -> list[str]:
    """The ratios and what they were measured for, as items of a list."""
    lines = [
        f"- {part['query_heads']} query head(s) per KV head: **{part['gate_cycle_ratio']} x** fewer gate-cycles; "
        f"{part['gate_cycle_ratio_with_memory']} x with memories at a gate equivalent per bit; "
        f"{part['gate_cycle_delay_ratio']} x as gate-cycles times delay."
        for part in report["comparisons"]
    ]
    by_lanes = report["comparisons"][0]["gate_cycle_ratio_by_lanes"]
    if len(by_lanes) > 1:
        tried = ", ".join(f"{ratio} x with {lanes}" for lanes, ratio in by_lanes.items())
        lines.append(f"- Of the dequantizing route's numbers of lanes the best counts; one query head: {tried}.")
    work = report["workload"]
    lines.append(
        f"- {work['tokens']} tokens, D = {work['head_dim']}, library {report['library']}, recipe {report['variants']}. "
        f"The score array steps in {report['array_busy']:.0%} of the cycles, in {report['array_busy_packed']:.0%} of "
        "those of packed blocks."
    )
    return lines


def table(report: dict) -> str:
    """The report as a Markdown table."""
    lines = [
        "| route | block | GE | memory bits | delay, ps | cycles | shared by heads | gate-cycles per head, millions |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for part in report["comparisons"]:
        for route in ("fused", "baseline"):
            lines += [
                f"| {part['query_heads']} query head{'s' * (part['query_heads'] > 1)}: {route} | {r['block']} | "
                f"{r['gate_equivalents']:,.0f} | {r['memory_bits']:,} | {r['delay_ps']:,.0f} | {r['cycles']:,} | "
                f"{r['query_heads']} | {r['gate_cycles'] / 1e6:.1f} |"
                for r in part[route]
            ]
    lines += ["", *ratio_lines(report)]
    return "\n".join(lines)


def attention_cost(
    liberty: Annotated[str, typer.Option(envvar="LIBERTY", help="Cell library; none: generic gates.")] = "",
    quick: Annotated[bool, typer.Option("--quick/--all", help="One variant of the recipe, or all (hours).")] = True,
    out: Annotated[Path, typer.Option(help="The report.")] = REPORT,
    lanes: Annotated[
        list[int] | None, typer.Option(help="Lanes of the dequantizing route, of which the best counts.")
    ] = None,
    single: Annotated[bool, typer.Option(help="One query head per KV head alone, which needs fewer blocks.")] = False,
    docs: Annotated[Path | None, typer.Option(help="Document with the `attention cost` markers.")] = None,
):
    """Synthesize both routes of attention and compare their gate-cycles."""
    library = load_library([Path(p) for p in liberty.replace(":", " ").split()]) if liberty else generic_library()
    report = cost_report(
        library, quick=quick, lanes=tuple(lanes or BASELINE_LANES), heads=HEADS[:1] if single else HEADS
    )
    write_file(out, json.dumps(report, indent=2) + "\n")
    print(table(report))
    if docs is not None:
        marks = "<!-- attention cost: begin (make attention-cost) -->", "<!-- attention cost: end -->"
        text = docs.read_text()
        before, after = text.split(marks[0])[0], text.split(marks[1])[1]
        write_file(docs, f"{before}{marks[0]}\n{table(report)}\n{marks[1]}{after}")

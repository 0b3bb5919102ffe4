"""``make kv-area``: area of the KV dequant engine beside plain alternatives, by one recipe."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from amaranth.lib.wiring import Component

from gen.synth.liberty import generic_library, load_library, named_library
from gen.synth.recipe import QUICK, VARIANTS
from gen.synth.run import CACHE, SynthResult, synthesize
from gen.verilog import to_verilog
from hw.kv.engine import KvDequantizer
from hw.kv.errors import ErrorLog
from hw.kv.packet.front import BlockFront
from hw.kv.packet.records import RecordLoader
from hw.kv.packet.rows import RowWindow
from hw.kv.packet.tokens import TokenIndex
from hw.kv.sequencer import RowSequencer
from hw.kv.values.store import RecordStore
from hw.kv.values.tables import ValueTables
from hw.kv.values.value_unit import ValueUnit
from shell.output import write_file
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat, KvTransform
from studies.kv.plain import PLAIN, PlainDequantizer
from studies.kv.transforms import PREFIX, area_table, transform_designs
from studies.kv.transforms import table as transform_table

__all__ = ["PART_PREFIX", "designs", "table"]

PART_PREFIX = "part_"
"""Of the keys of the engine's parts."""
PARTS = "parts of the engine at 16 lanes"
FEWER = {
    "keys": (KvFormat.K1, KvFormat.K2S),
    "values": (KvFormat.V158, KvFormat.V2),
    "no_ternary": (KvFormat.K1, KvFormat.K2S, KvFormat.K2, KvFormat.V2),
    "no_minima": (KvFormat.K1, KvFormat.K2S, KvFormat.V158),
}
"""Engines for fewer formats: the default keys, the default values, all but ternary digits, all but minima."""


def designs(lanes: tuple[int, ...]) -> dict[str, tuple[str, int, Callable[[], Component]]]:
    """What is measured: key to (name, lanes, what makes the component)."""
    found = {}
    for n in lanes:
        bare = KvEngineConfig(lanes=n, transforms=frozenset())
        wht = KvEngineConfig(lanes=n, transforms={KvTransform.WHT})
        rfft = KvEngineConfig(lanes=n, transforms={KvTransform.RFFT})
        found[f"engine_{n}"] = "engine, no transform", n, partial(KvDequantizer, bare)
        for method in PLAIN:
            key = f"plain_{method.lower().replace('-', '_').replace(' ', '_')}_{n}"
            found[key] = f"plain: {method} per lane", n, partial(PlainDequantizer, bare, method)
        found[f"engine_wht_{n}"] = "engine with wht", n, partial(KvDequantizer, wht)
        ordered = KvEngineConfig(lanes=n, transforms=frozenset(), interleave=True)
        centring = KvEngineConfig(lanes=n, transforms=frozenset(), interleave=True, centre=True)
        found[f"engine_order_{n}"] = "engine, channel order", n, partial(KvDequantizer, ordered)
        found[f"engine_centre_{n}"] = "engine, channel order, centre", n, partial(KvDequantizer, centring)
        for name, kinds in FEWER.items():
            part = KvEngineConfig(lanes=n, transforms=frozenset(), formats=frozenset(kinds))
            title = f"engine for {', '.join(kind.name for kind in kinds)}"
            found[f"engine_{name}_{n}"] = title, n, partial(KvDequantizer, part)
        if n == min(lanes):
            found[f"engine_rfft_{n}"] = "engine with rfft", n, partial(KvDequantizer, rfft)
    bare = KvEngineConfig(transforms=frozenset())
    built_for = (BlockFront, RecordLoader, ValueTables, RecordStore, ValueUnit, RowSequencer, RowWindow)
    for part in (*built_for, TokenIndex, ErrorLog):
        make = partial(part, bare) if part in built_for else part
        found[f"{PART_PREFIX}{part.__name__.lower()}"] = f"{PARTS}: {part.__name__}", bare.lanes, make
    return found


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    return area_table(rows, "D up to 128. The total counts a memory bit as one gate equivalent.", total=True)


def _entry(key: str, name: str, lanes: int, found: SynthResult, quick: bool) -> dict:
    return {
        "key": key,
        "name": name,
        "lanes": lanes,
        "library": found.library,
        "quick": quick,
        "gate_equivalents": found.gate_equivalents,
        "flipflops": found.flipflops,
        "memory_bits": found.memory_bits,
        "total": found.gate_equivalents_with_memory,
        "delay_ps": found.delay_ps,
        "delay_tool": found.delay_tool,
        "variant": found.variant,
        "library_hash": found.library_hash,
        "recipe_hash": found.recipe_hash,
        "verilog_sha256": found.design_hash,
    }


def kv_area(
    lanes: Annotated[str, typer.Option(help="Numbers of lanes, separated by commas.")] = "4,16",
    liberty: Annotated[list[Path] | None, typer.Option(help="Cell library; none: generic gates.")] = None,
    library: Annotated[str | None, typer.Option(help="A library of the data directory: sky130hd or asap7.")] = None,
    quick: Annotated[bool, typer.Option(help="One variant of the recipe instead of all.")] = False,
    transforms_alone: Annotated[bool, typer.Option(help="Measure nothing but the transforms on their own.")] = False,
    only: Annotated[str, typer.Option(help="Designs to measure, by the report's keys, separated by commas.")] = "",
    out: Annotated[Path, typer.Option(help="Report.")] = Path("build/synth/kv.json"),
) -> None:
    """Measure the engine without transform, with wht, with rfft, the plain alternatives, the engine's parts, and the
    inverse transforms on their own."""
    cells = named_library(library) if library else load_library(liberty) if liberty else generic_library()
    rows = []
    chosen = {} if transforms_alone else designs(tuple(int(x) for x in lanes.split(",")))
    chosen |= transform_designs()
    wanted = [key for key in only.split(",") if key] or list(chosen)
    if unknown := [key for key in wanted if key not in chosen]:
        raise typer.BadParameter(f"only must be some of {', '.join(chosen)}, not {unknown[0]}")
    for key in wanted:
        name, n, make = chosen[key]
        verilog, _ports = to_verilog(make(), key)
        found = synthesize(verilog, key, cells, variants=QUICK if quick else VARIANTS, cache_dir=CACHE)
        rows.append(_entry(key, name, n, found, quick))
        typer.echo(f"{key}: {found.gate_equivalents:,.0f} gate equivalents, {found.memory_bits:,} bits", err=True)
        write_file(out, json.dumps(rows, indent=2) + "\n")
    engines = [row for row in rows if not row["key"].startswith(PREFIX)]
    if engines:
        typer.echo(table(engines))
    if len(engines) < len(rows):
        typer.echo(transform_table(rows))

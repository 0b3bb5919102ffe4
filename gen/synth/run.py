"""Synthesis estimates: area, flip-flops, memory bits and delay of a Verilog design in a cell library.

Every step runs in a process of its own and every result is cached by the contents of the design, the recipe, the
library and the versions of the tools, so a second run is instant.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from amaranth.lib import wiring

from gen.synth.liberty import Library, named_library
from gen.synth.recipe import QUICK, VARIANTS, Variant, back_passes, constraints, front_job, recipe_hash
from gen.synth.timing import OPENSTA, abc_delay, delay_tool, opensta_delay
from gen.verilog import to_verilog
from gen.yosys import YosysError, run_python, run_yosys
from shell.output import write_file
from shell.processes import ToolError, parallel
from spec import checks

__all__ = ["SynthResult", "SynthesisError", "VariantResult", "measure", "synthesize"]

CACHE = Path("build/synth/cache")


class SynthesisError(ToolError):
    """The design could not be synthesized. The message names the top and what the tool said."""


@dataclass(frozen=True)
class VariantResult:
    """One variant of the recipe. Areas are in the library's unit; ``delay_ps`` is the shortest clock period."""

    variant: str
    area: float
    gate_equivalents: float
    flipflops: int
    memory_bits: int
    memories: tuple[dict, ...]
    delay_ps: float
    delay_tool: str
    delay_tool_version: str
    path_from: str
    path_to: str


@dataclass(frozen=True)
class SynthResult:
    """A design at the variant with the least gate equivalents x delay.

    Attributes
    ----------
    area_um2 : float or None
        Square micrometres; None for the generic library, which has no process.
    gate_equivalents : float
        Area of gates and flip-flops in 2-input NANDs; memories are not in it.
    flipflops : int
    memory_bits : int
        Bits of writable memories.
    gate_equivalents_with_memory : float
        The same with each memory bit at one gate equivalent.
    delay_ps : float
        Shortest clock period. ``delay_tool`` says what measured it: OpenSTA (everything but wires) or ABC
        (combinational logic alone); the two never compare.
    path_from, path_to : str
        Nets where the worst path starts and ends; empty with ABC.
    all_variants : tuple of VariantResult
    """

    top: str
    library: str
    area_um2: float | None
    gate_equivalents: float
    flipflops: int
    memory_bits: int
    gate_equivalents_with_memory: float
    delay_ps: float
    delay_tool: str
    delay_tool_version: str
    variant: str
    path_from: str
    path_to: str
    memories: tuple[dict, ...]
    library_hash: str
    recipe_hash: str
    design_hash: str
    all_variants: tuple[VariantResult, ...]


def measure(
    component: wiring.Component, library_name: str = "sky130hd", variants: str = "quick", *, cache_dir: Path = CACHE
) -> SynthResult:
    """Synthesize an Amaranth component, for exploring.

    Parameters
    ----------
    library_name : str
        ``sky130hd`` or ``asap7`` (from the data directory), or ``generic``.
    variants : str
        ``quick``: prefix adders and the ``dch`` script alone; ``all``: the whole recipe, the only one fit for quoting.
    """
    chosen = checks.named("variants", variants, {"quick": QUICK, "all": VARIANTS})
    top = type(component).__name__.lower()
    verilog, _ports = to_verilog(component, top)
    return synthesize(verilog, top, named_library(library_name), variants=chosen, cache_dir=cache_dir)


def synthesize(
    design: str | Path | Sequence[Path],
    top: str,
    library: Library,
    *,
    variants: Sequence[Variant] = VARIANTS,
    cache_dir: Path = CACHE,
    jobs: int = 2,
    progress: Callable[[str], None] | None = None,
) -> SynthResult:
    """Run the recipe on a design and return its best variant.

    Parameters
    ----------
    design : str or Path or sequence of Path
        Verilog text, or Verilog (``.v``), SystemVerilog (``.sv``) or RTLIL (``.il``) files.
    top : str
        Name of the top module.
    variants : sequence of Variant
    cache_dir : Path
    jobs : int
        Processes at a time.
    progress : callable, optional
        Called with the name of each variant when it is done.

    Raises
    ------
    SynthesisError
        If a file cannot be read, Yosys refuses the design, or a cell is not in the library.
    """
    sources = _sources(design)
    design_hash = hashlib.sha256("\0".join(text for _suffix, text in sources).encode()).hexdigest()
    tool, tool_version = delay_tool()

    def cached(variant: Variant) -> Path:
        key = [
            [field.name for field in fields(VariantResult)],
            design_hash,
            [suffix for suffix, _text in sources],
            top,
            library.sha256,
            recipe_hash(library, (variant,)),
            tool,
            tool_version,
        ]
        return Path(cache_dir) / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"

    def run(variant: Variant) -> VariantResult:
        path = cached(variant)
        if path.is_file():
            result = VariantResult(**json.loads(path.read_text()))
            result = replace(result, memories=tuple(result.memories))
        else:
            try:
                result = _run_variant(sources, top, library, variant)
            except (YosysError, RuntimeError) as error:
                raise SynthesisError(f"{top}, {variant}: {error}") from error
            write_file(path, json.dumps(asdict(result), indent=1))
        if progress is not None:
            progress(str(variant))
        return result

    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as shelf:
        library = _shelve(library, Path(shelf))
        results = tuple(parallel(run, variants, jobs))
    best = min(results, key=lambda r: r.gate_equivalents * r.delay_ps)
    return SynthResult(
        top=top,
        library=library.name,
        area_um2=None if library.is_estimate else best.area,
        gate_equivalents=best.gate_equivalents,
        flipflops=best.flipflops,
        memory_bits=best.memory_bits,
        gate_equivalents_with_memory=round(best.gate_equivalents + best.memory_bits, 2),
        delay_ps=best.delay_ps,
        delay_tool=best.delay_tool,
        delay_tool_version=best.delay_tool_version,
        variant=best.variant,
        path_from=best.path_from,
        path_to=best.path_to,
        memories=best.memories,
        library_hash=library.sha256,
        recipe_hash=recipe_hash(library, tuple(variants)),
        design_hash=design_hash,
        all_variants=results,
    )


def _sources(design: str | Path | Sequence[Path]) -> list[tuple[str, str]]:
    """The design as (suffix, text) pairs."""
    if isinstance(design, str):
        return [(".v", design)]
    paths = [Path(path) for path in ([design] if isinstance(design, Path) else design)]
    for path in paths:
        if path.suffix not in (".v", ".sv", ".il"):
            raise SynthesisError(f"a design file must end in .v, .sv or .il: {path}")
        if not path.is_file():
            raise SynthesisError(f"no such design file: {path}")
    return [(path.suffix, path.read_text()) for path in paths]


def _shelve(library: Library, directory: Path) -> Library:
    """The library under paths without spaces, which ABC cannot read, and beside a cache of Yosys' of its own."""
    links = []
    for number, path in enumerate(library.paths):
        links.append(directory / f"library{number}.lib")
        links[-1].symlink_to(path)
    return replace(library, paths=tuple(links))


def _run_variant(sources: list[tuple[str, str]], top: str, library: Library, variant: Variant) -> VariantResult:
    read = {".v": "read_verilog", ".sv": "read_verilog -sv", ".il": "read_rtlil"}
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as directory:
        work = Path(directory)
        reads = []
        for number, (suffix, text) in enumerate(sources):
            (work / f"design{number}{suffix}").write_text(text)
            reads.append(f"{read[suffix]} design{number}{suffix}")
        run_python(Path(__file__).with_name("worker.py"), json.dumps(front_job(reads, top, variant.adder)), cwd=work)
        front = json.loads((work / "front.json").read_text())
        (work / "abc.constr").write_text(constraints(library))
        # By default Yosys keeps what it read of a library under its path, and takes an older file there for the same.
        own_cache = f"libcache -scl -dir {library.paths[0].parent / 'scl'}"
        log = run_yosys([own_cache, *back_passes(library, variant.mapper)], cwd=work)
        stat = json.loads((work / "stat.json").read_text())["design"]
        # Left out by Yosys where no cell is left.
        area, counts = stat.get("area", 0.0), stat.get("num_cells_by_type", {})
        unknown = sorted(set(counts) - set(library.cells))
        if unknown:
            raise SynthesisError(f"the library has no cell for {', '.join(unknown)}")
        tool, tool_version = delay_tool()
        delay = opensta_delay(library, top, front["clocks"], work) if tool == OPENSTA else abc_delay(log)
    return VariantResult(
        variant=str(variant),
        area=round(area, 4),
        gate_equivalents=round(area / library.nand2_area, 2),
        flipflops=sum(count for cell, count in counts.items() if library.cells[cell].is_flipflop),
        memory_bits=sum(memory["depth"] * memory["width"] for memory in front["memories"]),
        memories=tuple(front["memories"]),
        delay_ps=round(delay.ps, 1),
        delay_tool=tool,
        delay_tool_version=tool_version,
        path_from=delay.start,
        path_to=delay.end,
    )

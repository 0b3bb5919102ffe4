"""``python -m studies arithmetic``: every floating-point block beside the others that do its job, by one recipe."""

from pathlib import Path
from typing import Annotated

import typer
from amaranth.lib.wiring import Component

from gen.synth.liberty import generic_library, load_library
from gen.synth.recipe import QUICK, VARIANTS
from gen.synth.run import CACHE, SynthResult, synthesize
from gen.verilog import to_verilog
from golden.document import write_between_markers
from hw.arith.fp16 import IntegerToFp16
from hw.arith.fp16_adder import Fp16Adder
from hw.arith.fp32_adder import Fp32Adder
from hw.arith.fp32_multiplier import Fp32ToFp16
from hw.arith.fp32_normal import FiniteAdder, SignedToFp32
from hw.arith.fp32_pipeline import IntegerToFp32, NormalFp32Adder
from shell.console import progress_bar, say

__all__ = ["BLOCKS", "table"]

MARKERS = "<!-- arithmetic: python -m studies arithmetic -->", "<!-- end of arithmetic -->"
BLOCKS: dict[str, tuple[type[Component], tuple[int, ...], str, str]] = {
    "Fp32Adder": (Fp32Adder, (), "sum of any two FP32 numbers", "core of bit-serial PEs; results of the score core"),
    "FiniteAdder": (FiniteAdder, (), "sum, normal numbers and zero", "running sums of the value core"),
    "NormalFp32Adder": (NormalFp32Adder, (), "sum, normal numbers and zero, short cycles", "running sums of the core"),
    "SignedToFp32": (SignedToFp32, (40,), "40-bit integer to FP32", "results of the attention cores"),
    "IntegerToFp32": (IntegerToFp32, (40, 28), "the same, short cycles", "dequantizers of the core"),
    "Fp32ToFp16": (Fp32ToFp16, (), "FP32 to FP16", "results in FP16"),
    "Fp16Adder": (Fp16Adder, (), "sum of two finite FP16 numbers", "centre of the KV engine"),
    "IntegerToFp16": (IntegerToFp16, (20,), "20-bit integer to FP16", "transforms of the KV engine"),
}
"""Name: component, its parameters, what it does, who uses it. Not `Fp32Multiplier`: its array takes ABC too long."""


def table(results: dict[str, SynthResult]) -> str:
    """Markdown: a row per block."""
    lines = ["| block | does | used by | cycles | flip-flops | gate equivalents | period, ps |"]
    lines.append("|---|---|---|---:|---:|---:|---:|")
    for name, result in results.items():
        block, _, does, users = BLOCKS[name]
        cycles = getattr(block, "latency", 1 if result.flipflops else 0)
        figures = f"{cycles} | {result.flipflops} | {result.gate_equivalents:,.0f} | {result.delay_ps:,.0f}"
        lines.append(f"| `{name}` | {does} | {users} | {figures} |")
    return "\n".join(lines) + "\n"


def arithmetic(
    liberty: Annotated[
        list[Path] | None, typer.Option(envvar="LIBERTY", help="Liberty files of one library; none: generic gates.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="One variant of the recipe instead of all.")] = False,
    document: Annotated[Path | None, typer.Option(help="Document whose table between markers to replace.")] = None,
    cache: Annotated[Path, typer.Option(help="Where synthesis results are kept.")] = CACHE,
) -> None:
    """Measure every floating-point block."""
    library = load_library(liberty) if liberty else generic_library()
    variants, results = QUICK if quick else VARIANTS, {}
    with progress_bar("arithmetic", len(BLOCKS)) as advance:
        for name, (block, arguments, _does, _users) in BLOCKS.items():
            text, _ports = to_verilog(block(*arguments), name.lower())
            results[name] = synthesize(text, name.lower(), library, variants=variants, cache_dir=cache)
            advance(name)
    found = table(results)
    result = next(iter(results.values()))
    kind = "quick variant" if quick else "best of the recipe's variants"
    found += f"\nLibrary {library.name}, {kind}, period by {result.delay_tool}.\n"
    if document is not None:
        write_between_markers(document, found, MARKERS)
    say(found)

"""The synthesis recipe: one for every design, ours or a peer's, so that their numbers can be compared.

The stock flow of Yosys and ABC turns wide adders into something close to ripple carry, which flatters whoever has few
of them. So each design gets every variant here, prefix adders and a delay-driven mapping among them, and is quoted at
its best product of gate equivalents and delay.
"""

import hashlib
import json
from dataclasses import dataclass, replace

from gen.synth.liberty import Library
from gen.yosys import yosys_version
from spec import checks

__all__ = ["QUICK", "VARIANTS", "Variant", "back_passes", "front_job", "recipe_hash"]

ADDERS = {
    "none": "",
    "kogge-stone": "-extra-map +/choices/kogge-stone.v",
    "han-carlson": "-extra-map +/choices/han-carlson.v",
}
# None is ABC's default script for a Liberty library with constraints. `stime` only prints the delay.
MAPPERS = {"default": None, "dch": "strash;dch;map,-B,0.9;topo;buffer,-c;topo;upsize;dnsize;stime,-p"}
OUTPUT_LOAD_FF = 5.0


@dataclass(frozen=True, order=True)
class Variant:
    """One way through the flow: how adders are built, and how ABC maps."""

    adder: str
    mapper: str

    def __post_init__(self) -> None:
        checks.named("adder", self.adder, ADDERS)
        checks.named("mapper", self.mapper, MAPPERS)

    def __str__(self) -> str:
        return f"{self.adder}/{self.mapper}"


VARIANTS = tuple(Variant(adder, mapper) for adder in ADDERS for mapper in MAPPERS)
# The variant that usually wins, alone: for exploring, never for a comparison.
QUICK = (Variant("kogge-stone", "dch"),)


def front_job(reads: list[str], top: str, adder: str) -> dict:
    """Passes up to generic gates, before and after the memories are taken out (see `gen.synth.worker`)."""
    synth = " ".join(["synth", "-flatten", "-top", top, *ADDERS[adder].split()])
    return {"before": [*reads, f"{synth} -run begin:fine"], "after": [f"{synth} -run fine:"]}


def constraints(library: Library) -> str:
    """ABC's constraint file; without one ABC ignores the delay target."""
    return f"set_driving_cell {library.driving_cell}\nset_load {OUTPUT_LOAD_FF}\n"


def back_passes(library: Library, mapper: str) -> list[str]:
    """Passes from generic gates to mapped cells, ``netlist.v`` and ``stat.json``."""
    files = " ".join(f'-liberty "{path}"' for path in library.paths)
    dont_use = "".join(f" -dont_use {pattern}" for pattern in library.dont_use)
    script = f" -script +{MAPPERS[mapper]}" if MAPPERS[mapper] else ""
    return [
        "read_rtlil front.il",
        f"dfflibmap {files}{dont_use}",
        f"abc {files}{dont_use} -D {library.target_ps} -constr abc.constr{script}",
        "splitnets -ports",
        "opt_clean -purge",
        f"tee -q -o stat.json stat {files} -json",
        "write_verilog -noattr netlist.v",
    ]


def recipe_hash(library: Library, variants: tuple[Variant, ...]) -> str:
    """Hash of every choice that shapes the result except the design and the library's contents, and of Yosys' version.

    Numbers compare only when this, the library's hash and the delay tool agree.
    """
    recipe = {
        "front": {str(v.adder): front_job(["read"], "top", v.adder) for v in variants},
        "back": {str(v.mapper): back_passes(replace(library, paths=()), v.mapper) for v in variants},
        "variants": sorted(map(str, variants)),
        "memories": "each memory with a write port becomes ports of the top",
        "constraints": constraints(library),
        "yosys": yosys_version(),
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

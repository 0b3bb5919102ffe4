"""``python -m verif.weights.mutations``: break the design in many small ways and see that the tests notice each.

Every mutation is made in a copy of the tree, where the tests named with it are run until the first failure. A mutation
that no test notices is reported as alive, and the command ends with status 1. Takes a quarter of an hour on two cores;
not a part of `make test`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from golden.document import write_between_markers
from sim.build import ROOT

MARKERS = "<!-- mutations: python -m verif.weights.mutations -->", "<!-- end of mutations -->"
PACKAGES = ("hw", "golden", "gen", "sim", "verif")


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in ``hw/<file>``; ``tests`` are arguments of pytest, below verif/weights."""

    what: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = [
    Mutation("subnormals count as exponent 0", "pe.py", "act.exponent[0] | ~normal", "act.exponent[0]", "test_pe.py"),
    Mutation("zero weights join the largest exponent", "pe.py", "term.man & (normal", "(normal", "test_pe.py"),
    Mutation(
        "far lanes wrap instead of vanishing", "pe.py", "gap[:4] | gap[4:].any().replicate(4)", "gap[:4]", "test_pe.py"
    ),
    Mutation(
        "floor instead of rounding toward zero", "pe.py", "carry.eq(sign & (far |", "carry.eq(0 & (far |", "test_pe.py"
    ),
    Mutation(
        "pending carry forgotten", "pe.py", "old_carry = old_carry | acc.carry", "old_carry = old_carry", "test_pe.py"
    ),
    Mutation("nearest, ties up", "pe.py", "guard & (sticky | mantissa[0])", "guard", "test_pe.py"),
    Mutation(
        "accumulator kept across groups",
        "pe.py",
        "acc.eq(Mux(last_now, 0, updated.as_value()))",
        "acc.eq(updated)",
        "test_pe.py",
    ),
    Mutation(
        "scaling factor's digits reversed",
        "dequantizer.py",
        "low.eq(self.scale)",
        "low.eq(self.scale[::-1])",
        "test_dequantizer.py",
    ),
    Mutation("special value's sign lost", "decoder.py", "sign.eq(special.sign)", "sign.eq(0)", "test_decoder.py"),
    Mutation(
        "ternary 0b10 accepted", "decoder.py", "reserved.eq(code[:2] == 0b10)", "reserved.eq(0)", "test_decoder.py"
    ),
    Mutation(
        "refused special value stored",
        "special_values.py",
        "self.i.valid & allowed)",
        "self.i.valid)",
        "test_special_values.py",
    ),
    Mutation("parity not checked", "unpacker.py", "group_last & parity_now", "group_last & 0", "test_unpacker.py"),
    Mutation(
        "packet cut at a beat's end goes on",
        "unpacker.py",
        "complete & (end == here) & ~row_last",
        "0",
        "test_unpacker.py",
    ),
    Mutation("short flag not checked", "unpacker.py", "current.short != is_short", "0", "test_unpacker.py"),
    Mutation(
        "lanes past the row used", "unpacker.py", "mask[lane].eq(left > lane)", "mask[lane].eq(1)", "test_unpacker.py"
    ),
    Mutation(
        "sticky bit lost in FP32 addition", "fp32.py", "two.eq(aligned | sticky)", "two.eq(aligned)", "test_fp32.py"
    ),
    Mutation("negative zero", "fp32.py", "sign & total.any()", "sign", "test_fp32.py"),
    Mutation(
        "new row adds to the old",
        "accumulator.py",
        "Mux(first, 0, read.data.as_value())",
        "read.data.as_value()",
        "test_accumulator.py",
    ),
    Mutation(
        "marked result keeps its sum",
        "accumulator.py",
        "Mux(done.error, C(CANONICAL_NAN, 32), adder.o.as_value())",
        "adder.o.as_value()",
        "test_accumulator.py",
    ),
    Mutation(
        "Inf and NaN pass",
        "column_pe.py",
        "lane.exponent.all() for",
        "0 & lane.exponent.all() for",
        "test_column.py -k tiny",
    ),
    Mutation(
        "Inf in unused lanes poisons",
        "column_pe.py",
        "for lane in self.activation.lanes) & mask",
        "for lane in self.activation.lanes)",
        "test_column.py -k tiny",
    ),
    Mutation(
        "activation length not checked",
        "column_pe.py",
        "self.activation.last != beat.row_last, WeightError",
        "0, WeightError",
        "test_column.py -k tiny",
    ),
    Mutation(
        "errors leak into the next row",
        "column_pe.py",
        "            m.d.sync += row_errors.eq(0)",
        "            m.d.sync += row_errors.eq(row_errors)",
        "test_column.py -k tiny",
    ),
    Mutation(
        "groups end too close together",
        "column_pe.py",
        "distance.eq(config.group_interval - 1)",
        "distance.eq(0)",
        "test_column.py -k odd",
    ),
    Mutation(
        "special values written within a packet",
        "column.py",
        "self.special.valid & ~within",
        "self.special.valid",
        "test_column.py -k tiny",
    ),
    Mutation(
        "an idle cycle after every activation beat",
        "column.py",
        "(~held | advance) & ~hold_back",
        "~held & ~hold_back",
        "test_column.py -k tiny",
    ),
    Mutation(
        "counter wraps", "column.py", "Mux(total[-1], 0xFFFF, total[:16])", "total[:16]", "test_column.py -k tiny"
    ),
    Mutation(
        "results without room",
        "accumulator.py",
        "self.room.eq(rows <= pes)",
        "self.room.eq(1)",
        "test_column.py -k odd",
    ),
]


def run(mutation: Mutation, tree: Path) -> str:
    """``caught`` or ``alive``.

    Raises
    ------
    ValueError
        The mutation does not apply.
    RuntimeError
        The mutated design does not build, or its tests do not run: nothing is shown by that.
    """
    path = tree / "hw" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.what}: {mutation.old!r} must stand once in hw/{mutation.file}")
    path.write_text(text.replace(mutation.old, mutation.new))
    file, *options = mutation.tests.split()
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", f"verif/weights/{file}", *options]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    path.write_text(text)
    failed = " failed" in done.stdout and done.returncode in (1, 2)  # 2: pytest-xdist was stopped by -x
    if "BuildError" in done.stdout or not (failed or done.returncode == 0):
        raise RuntimeError(f"{mutation.what}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return "caught" if failed else "alive"


def main() -> int:
    results = {}
    with tempfile.TemporaryDirectory(prefix="bitmosaic-mutations-") as scratch:
        tree = Path(scratch)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for mutation in track(MUTATIONS, "mutations"):
            results[mutation.what] = run(mutation, tree)
            print(f"{results[mutation.what]}: {mutation.what}", flush=True)
    report = ROOT / "build" / "verif" / "mutations.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(results, indent=2) + "\n")
    lines = ["| block | mutation | tests | outcome |", "|---|---|---|---|"]
    lines += [f"| `{m.file}` | {m.what} | `{m.tests}` | {results[m.what]} |" for m in MUTATIONS]
    write_between_markers(ROOT / "docs" / "verification.md", "\n".join(lines), MARKERS)
    return int("alive" in results.values())


if __name__ == "__main__":
    sys.exit(main())

"""Breaking the design in many small ways to see that the tests notice each.

Every mutation is made in a copy of the tree, where the tests named with it are run until the first failure. A mutation
that no test notices is reported as alive. Outcomes are kept under ``build/verif/mutations`` for as long as neither the
design's packages, the models nor the tests change, so a run that was interrupted goes on. Takes about half a minute
each on two cores; not a part of ``make test``.
"""

import hashlib
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from rich.progress import track

from golden.document import write_between_markers
from sim.build import ROOT

__all__ = ["Mutation", "run_all"]

PACKAGES = ("hw", "golden", "gen", "sim", "verif")
KEPT = ROOT / "build" / "verif" / "mutations"
LEFT = "not tried"


@dataclass(frozen=True)
class Mutation:
    """``old``, which must stand once in ``hw/<file>``, becomes ``new``; ``tests``: pytest's arguments, below verif."""

    what: str
    file: str
    old: str
    new: str
    tests: str


def _key(mutation: Mutation) -> str:
    """Of the mutation, the file that it changes and the directory of its tests."""
    tests = (ROOT / "verif" / mutation.tests.split()[0]).parent
    digest = hashlib.sha256(repr(astuple(mutation)).encode())
    for path in [ROOT / "hw" / mutation.file, *sorted(tests.glob("*.py"))]:
        if path.name != "mutations.py":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:24]


def _run(mutation: Mutation, tree: Path) -> str:
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
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", f"verif/{file}", *options]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    path.write_text(text)
    failed = " failed" in done.stdout and done.returncode in (1, 2)  # 2: pytest-xdist was stopped by -x
    if "BuildError" in done.stdout or not (failed or done.returncode == 0):
        raise RuntimeError(f"{mutation.what}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return "caught" if failed else "alive"


def run_all(
    mutations: Sequence[Mutation],
    markers: tuple[str, str],
    document: str = "docs/verification.md",
    minutes: float = math.inf,
) -> int:
    """Try every mutation, write a table of the outcomes between ``markers`` of ``document``.

    None is begun after ``minutes``: below the table stands how many are left, and another run goes on from there.

    One that cannot be tried (it does not apply, or does not build) is said and passed over.

    Returns the exit status: 1 if any is alive or could not be tried.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    outcomes, wrong = [], []
    with tempfile.TemporaryDirectory(prefix="bitmosaic-mutations-") as scratch:
        tree = Path(scratch)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for mutation in track(mutations, "mutations"):
            kept = KEPT / _key(mutation)
            if not kept.exists():
                if time.monotonic() > end:
                    outcomes.append(LEFT)
                    continue
                try:
                    kept.write_text(_run(mutation, tree))
                except (RuntimeError, ValueError) as error:
                    wrong.append(str(error))
                    outcomes.append(LEFT)
                    print(f"not tried: {mutation.what}", flush=True)
                    continue
            outcomes.append(kept.read_text())
            print(f"{outcomes[-1]}: {mutation.what}", flush=True)
    for error in wrong:
        print(error, file=sys.stderr)
    lines = ["| block | mutation | tests | outcome |", "|---|---|---|---|"]
    tried = [(m, o) for m, o in zip(mutations, outcomes, strict=True) if o != LEFT]
    lines += [f"| `{m.file}` | {m.what} | `{m.tests}` | {o} |" for m, o in tried]
    if len(tried) < len(mutations):
        lines += ["", f"{len(tried)} of {len(mutations)}; the others were not tried on this design yet."]
    write_between_markers(ROOT / document, "\n".join(lines), markers)
    return int(bool(wrong) or "alive" in outcomes)

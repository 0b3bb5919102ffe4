"""``python -m verif.bitserial.report``: testplans and coverage of the last run into docs/verification.md."""

import json
import tomllib
from pathlib import Path

from golden.document import write_between_markers
from sim.build import ROOT
from verif.bitserial.coverage import REPORTS

MARKERS = "<!-- verification: python -m verif.bitserial.report -->", "<!-- end of verification -->"


def plans() -> list[str]:
    lines = ["| block | testpoint | what it shows |", "|---|---|---|"]
    for path in sorted((Path(__file__).parent / "testplans").glob("*.toml")):
        plan = tomllib.loads(path.read_text())
        lines += [f"| {plan['block']} | {point['name']} | {point['description']} |" for point in plan["testpoint"]]
    return lines


def coverage() -> list[str]:
    lines = ["| coverage | points | bins | hit |", "|---|---:|---:|---:|"]
    for path in sorted(path for path in REPORTS.glob("*.json") if not path.stem.startswith("kv-")):
        points = json.loads(path.read_text())["points"].values()
        bins, hit = (sum(point[name] for point in points) for name in ("bins", "hit"))
        lines.append(f"| {path.stem} | {len(points)} | {bins:,} | {hit:,} |")
    return lines


def main() -> None:
    """Needs the reports of a whole run (``make sim``) in build/verif."""
    if not any(REPORTS.glob("*.json")):
        raise SystemExit(f"no reports in {REPORTS.parent}: run `make sim` first")
    parts = [["## Testplans", "", *plans()], ["## Coverage", "", *coverage()]]
    table = "\n\n".join("\n".join(part) for part in parts) + "\n"
    write_between_markers(ROOT / "docs" / "verification.md", table, MARKERS)


if __name__ == "__main__":
    main()

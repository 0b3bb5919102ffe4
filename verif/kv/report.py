"""``python -m verif.kv.report``: testplan, coverage and rates of the last run into docs/kv-verification.md."""

import json
import tomllib
from pathlib import Path

from golden.document import write_between_markers
from sim.build import ROOT
from verif.bitserial.coverage import REPORTS
from verif.kv.test_rates import RATES

MARKERS = "<!-- verification: python -m verif.kv.report -->", "<!-- end of verification -->"


def plan() -> list[str]:
    lines = ["| testpoint | what it shows |", "|---|---|"]
    found = tomllib.loads(Path(__file__).with_name("testplan.toml").read_text())
    return lines + [f"| {point['name']} | {point['description']} |" for point in found["testpoint"]]


def coverage() -> list[str]:
    lines = ["| coverage | points | bins | hit |", "|---|---:|---:|---:|"]
    for path in sorted(REPORTS.glob("kv-*.json")):
        points = json.loads(path.read_text())["points"].values()
        bins, hit = (sum(point[name] for point in points) for name in ("bins", "hit"))
        lines.append(f"| {path.stem} | {len(points)} | {bins:,} | {hit:,} |")
    return lines


def rates() -> list[str]:
    lines = [
        "| lanes | format | tokens per block | blocks | elements per cycle | of the promised | 128 tokens | 32 tokens |"
    ]
    lines.append("|---:|---|---:|---:|---:|---:|---:|---:|")
    for path in sorted(RATES.glob("*.json"), key=lambda path: int(path.stem)):
        for name, row in json.loads(path.read_text()).items():
            lines.append(
                f"| {path.stem} | {name} | {row['tokens']} | {row['blocks']} | {row['rate']:.2f} | "
                f"{row['rate'] / row['promised']:.1%} | {row['rate_128']:.2f} | {row['rate_smallest_group']:.2f} |"
            )
    return lines


def main() -> None:
    """Needs the reports of a run of this package's tests (``make sim ARGS="verif/kv"``) in build/verif."""
    if not any(REPORTS.glob("kv-*.json")) or not any(RATES.glob("*.json")):
        raise SystemExit(f"no reports in {REPORTS.parent}: run `make sim` first")
    parts = [["## Testplan", "", *plan()], ["## Coverage", "", *coverage()], ["## Rates", "", *rates()]]
    table = "\n\n".join("\n".join(part) for part in parts) + "\n"
    write_between_markers(ROOT / "docs" / "kv-verification.md", table, MARKERS)


if __name__ == "__main__":
    main()

"""``python -m verif.kv.area``: the table of docs/kv-engine.md, section 9, from the report of ``make kv-area``."""

import json

from gen.kv_report import table
from golden.document import write_between_markers
from sim.build import ROOT

MARKERS = ("<!-- kv area: make kv-area, python -m verif.kv.area -->", "<!-- end of kv area -->")


def main() -> None:
    rows = json.loads((ROOT / "build/synth/kv.json").read_text())
    write_between_markers(ROOT / "docs/kv-engine.md", table(rows), MARKERS)


if __name__ == "__main__":
    main()

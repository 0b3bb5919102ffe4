"""``python -m studies.kv.docs``: the tables of docs/kv-engine.md, section 9, from the report of ``make kv-area``."""

import json

from golden.document import write_between_markers
from sim.build import ROOT
from studies.kv import transforms as kv_transforms
from studies.kv.area import table

MARKERS = ("<!-- kv area: make kv-area, python -m studies.kv.docs -->", "<!-- end of kv area -->")
TRANSFORM_MARKERS = (
    "<!-- kv transforms: make kv-area, python -m studies.kv.docs -->",
    "<!-- end of kv transforms -->",
)


def main() -> None:
    document = ROOT / "docs/kv-engine.md"
    rows = json.loads((ROOT / "build/synth/kv.json").read_text())
    engines = [row for row in rows if not row["key"].startswith(kv_transforms.PREFIX)]
    if engines:
        write_between_markers(document, table(engines), MARKERS)
    if len(engines) < len(rows):
        write_between_markers(document, kv_transforms.table(rows), TRANSFORM_MARKERS)


if __name__ == "__main__":
    main()

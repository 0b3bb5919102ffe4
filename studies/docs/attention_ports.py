"""The tables of ports in docs/attention.md: ``python -m studies.docs.attention_ports`` writes them from the cores."""

from pathlib import Path

from gen.tops import ATTENTION_CORES
from golden.document import write_between_markers
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi

__all__ = ["MARKERS", "PAGE", "table"]

PAGE = Path("docs/attention.md")
MARKERS = "<!-- ports: written by python -m studies.docs.attention_ports -->", "<!-- end of ports -->"


def table() -> str:
    """Markdown: ports of both cores but those of AXI4-Lite; their widths are the same in every build."""
    lines = ["| core | port | direction | bits |", "|---|---|---|---:|"]
    for component in (ScoreCoreAxi, ValueCoreAxi):
        found = [
            [
                (path[0], "in" if member.flow.name == "In" else "out", len(value))
                for path, member, value in core.signature.flatten(core)
                if not path[0].startswith("s_axil")
            ]
            for core in map(component, ATTENTION_CORES.values())
        ]
        if any(rows != found[0] for rows in found):
            raise ValueError(f"{component.__name__}: ports differ between builds")
        lines += [f"| `{component.__name__}` | `{name}` | {way} | {bits} |" for name, way, bits in found[0]]
    return "\n".join(lines)


if __name__ == "__main__":
    write_between_markers(PAGE, table(), MARKERS)

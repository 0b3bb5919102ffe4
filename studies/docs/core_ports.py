"""The table of ports in docs/integration.md: ``python -m studies.docs.core_ports`` writes it."""

from pathlib import Path

from golden.document import write_between_markers
from hw.tops.core import AcceleratorCoreAxi
from spec.core import CORE_PRESETS, core_preset

__all__ = ["MARKERS", "PAGE", "ports", "table"]

PAGE = Path("docs/integration.md")
MARKERS = "<!-- ports: written by python -m studies.docs.core_ports -->", "<!-- end of ports -->"


def ports(preset: str) -> list[tuple[str, str, int]]:
    """Name, ``in`` or ``out``, and width of every port, in the order of the Verilog."""
    core = AcceleratorCoreAxi(core_preset(preset))
    return [
        (path[0], "in" if member.flow.name == "In" else "out", len(value))
        for path, member, value in core.signature.flatten(core)
    ]


def table() -> str:
    """Markdown: widths of each preset."""
    found = {preset: ports(preset) for preset in CORE_PRESETS}
    lines = ["| port | direction | " + " | ".join(f"bits: `{preset}`" for preset in found) + " |"]
    lines.append("|---|---" + "|---:" * len(found) + "|")
    for rows in zip(*found.values(), strict=True):
        name, direction, _ = rows[0]
        lines.append(f"| `{name}` | {direction} | " + " | ".join(str(width) for *_, width in rows) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_between_markers(PAGE, table(), MARKERS)

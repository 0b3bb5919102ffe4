"""docs/ports.md: every port of every AXI top in every preset. ``python -m studies.docs.ports`` writes it."""

from collections.abc import Iterator
from pathlib import Path

from amaranth.lib.wiring import Component

from gen.tops import tops
from golden.document import write_between_markers
from spec.system import SYSTEMS

__all__ = ["MARKERS", "PAGE", "axi_tops", "markdown", "ports"]

PAGE = Path("docs/ports.md")
MARKERS = "<!-- ports: python -m studies.docs.ports -->", "<!-- end of ports -->"
LITE = "s_axil_"


def ports(component: Component) -> dict[str, tuple[str, int]]:
    """Name -> (``in`` or ``out``, width) of every port, in the order of the Verilog."""
    return {
        path[0]: (member.flow.name.lower(), len(value))
        for path, member, value in component.signature.flatten(component)
    }


def axi_tops() -> Iterator[tuple[str, str, Component]]:
    """Preset, name and component of every top with AXI ports."""
    for preset in SYSTEMS:
        for top in tops(preset):
            if "aclk" in (component := top.component()).signature.members:
                yield preset, top.name, component


def markdown() -> str:
    """A table for each kind of top with a column for each build; AXI4-Lite, which is the same everywhere, once."""
    kinds: dict[str, dict[str, dict]] = {}
    for preset, name, component in axi_tops():
        found = kinds.setdefault(type(component).__name__, {})
        base = next(iter(found), (preset, name))[1]
        found[preset, name] = ports(component)
        assert base == name or name.startswith(base.removesuffix("_axi")), "a kind of top under two names"
    parts, lite = [], {}
    for kind, builds in kinds.items():
        base = next(iter(builds))[1]
        labels = [f"`{preset}`" + (f", `{name}`" if name != base else "") for preset, name in builds]
        names = list(dict.fromkeys(name for found in builds.values() for name in found))
        own = {name: [found.get(name) for found in builds.values()] for name in names if not name.startswith(LITE)}
        lite |= {name: [port] for found in builds.values() for name, port in found.items() if name.startswith(LITE)}
        note = ["", "And AXI4-Lite, below."] if any(name.startswith(LITE) for name in names) else []
        parts += [f"## `{base}`: {kind}", "", *_table(labels, own), *note, ""]
    parts += [
        "## AXI4-Lite",
        "",
        "Use: [registers-use.md](registers-use.md); registers: [registers.md](registers.md).",
        "",
    ]
    return "\n".join([*parts, *_table(["bits"], lite)]) + "\n"


def _table(labels: list[str], rows: dict[str, list]) -> list[str]:
    lines = [f"| port | direction | {' | '.join(labels)} |", "|---|---" + "|---:" * len(labels) + "|"]
    for name, found in rows.items():
        way = next(port for port in found if port)[0]
        lines.append(f"| `{name}` | {way} | {' | '.join(str(port[1]) if port else '-' for port in found)} |")
    return lines


if __name__ == "__main__":
    write_between_markers(PAGE, markdown(), MARKERS)

"""docs/picture.svg: the AXI tops, who feeds whom, and how wide. ``python -m studies.docs.picture`` writes it.

Readable on light and on dark pages: the colours follow ``prefers-color-scheme``.
"""

from dataclasses import dataclass
from pathlib import Path

from studies.docs.ports import axi_tops, ports

__all__ = ["PAGE", "picture"]

PAGE = Path("docs/picture.svg")
PRESETS = {"core": "dense"}
"""Top -> the preset whose widths are shown, if not ``paper``."""


@dataclass(frozen=True)
class Row:
    """A top, what it is for, and its streams to the memory (left) and to the host (right): label -> port without
    ``_tdata``. Ports of ``s_axis`` are arrows into the top."""

    top: str
    purpose: tuple[str, str]
    left: dict[str, str]
    right: dict[str, str]


ROWS = (
    Row(
        "core",
        ("linear layers: FP16 activations times", "packed weights of 3 to 8 bits"),
        {"weights": "s_axis_weights"},
        {"activations": "s_axis_activations", "results": "m_axis_results"},
    ),
    Row(
        "score_core_axi",
        ("q · k from packed keys", "of 1 and 2 bits"),
        {"key blocks": "s_axis_packets"},
        {"query": "s_axis_queries", "scores": "m_axis_scores"},
    ),
    Row(
        "value_core_axi",
        ("p · v from packed values", "of 1.58 and 2 bits"),
        {"value blocks": "s_axis_packets"},
        {"probabilities": "s_axis_weights", "outputs": "m_axis_results"},
    ),
    Row(
        "kv_dequantizer_axi",
        ("packed blocks back to FP16,", "for attention that wants them"),
        {"blocks": "s_axis"},
        {"keys, values": "m_axis"},
    ),
    Row(
        "kv_address_generator_axi",
        ("where every token of full and", "window heads lies"),
        {"reads, writes": "m_axis_commands"},
        {"operations": "s_axis_operations"},
    ),
)
WIDTH, ROW, TOP, LEFT, RIGHT = 900, 92, 20, 140, 760
BLOCK = (310, 590)
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.name { font: 600 14px ui-monospace, monospace }
.small { font-size: 12px; fill: #59636e }
.side { fill: #eef1f4; stroke: #818b98 }
.block { fill: #ddf4ff; stroke: #0969da }
.wire { stroke: #59636e; stroke-width: 1.5; fill: none }
.head { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .side { fill: #21262d; stroke: #6e7681 }
  .block { fill: #12293f; stroke: #4493f8 }
  .wire { stroke: #9198a1 }
  .head { fill: #9198a1 }
}"""


def picture() -> str:
    """The SVG."""
    found = {name: ports(made) for preset, name, made in axi_tops() if preset == PRESETS.get(name, "paper")}
    height = TOP + ROW * len(ROWS) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The AXI tops, between memory and host</title>",
        f"<style>\n{STYLE}\n</style>",
        *_side(20, LEFT - 20, ("memory", "", "packed weights,", "KV blocks,", "exact tokens")),
        *_side(RIGHT, WIDTH - 20 - RIGHT, ("host", "", "softmax, norms,", "RoPE, sampling;", "DMA")),
    ]
    for place, row in enumerate(ROWS):
        y = TOP + ROW * place
        parts.append(
            f'<rect class="block" x="{BLOCK[0]}" y="{y + 8}" width="{BLOCK[1] - BLOCK[0]}" height="{ROW - 16}" rx="6"/>'
        )
        parts.append(_text(row.top, sum(BLOCK) / 2, y + 32, "name"))
        parts += [_text(line, sum(BLOCK) / 2, y + 52 + 16 * k, "small") for k, line in enumerate(row.purpose)]
        for streams, edge, side in ((row.left, BLOCK[0], LEFT), (row.right, BLOCK[1], RIGHT)):
            for k, (label, port) in enumerate(streams.items()):
                at = y + ROW * (k + 1) / (len(streams) + 1) + 4
                bits = found[row.top][f"{port}_tdata"][1]
                ends = (side, edge) if port.startswith("s_") else (edge, side)
                parts += [*_arrow(*ends, at), _text(f"{label}, {bits}", (edge + side) / 2, at - 6, "small")]
    presets = ", ".join(["paper", *(f"{preset} ({top})" for top, preset in PRESETS.items())])
    note = f"Streams with the bits of their TDATA; presets {presets}"
    return "\n".join([*parts, _text(note, WIDTH / 2, height - 10, "small"), "</svg>"]) + "\n"


def _side(x: float, width: float, lines: tuple[str, ...]) -> list[str]:
    height = ROW * len(ROWS) - 16
    box = f'<rect class="side" x="{x}" y="{TOP + 8}" width="{width}" height="{height}" rx="6"/>'
    first = TOP + 8 + height / 2 - 9 * len(lines)
    return [
        box,
        *(_text(line, x + width / 2, first + 18 * k, "small" if k else "name") for k, line in enumerate(lines)),
    ]


def _text(text: str, x: float, y: float, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="middle">{text}</text>'


def _arrow(start: float, end: float, y: float) -> list[str]:
    back = 8 if start < end else -8
    return [
        f'<path class="wire" d="M{start} {y:g}H{end - back}"/>',
        f'<path class="head" d="M{end} {y:g}l{-back} -4v8z"/>',
    ]


if __name__ == "__main__":
    PAGE.write_text(picture())

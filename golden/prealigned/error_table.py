"""Measured errors of the pre-aligned PE beside those of ``BitSerialPE``: ``python -m golden.prealigned.error_table``.

Writes the tables in docs/prealigned-error.md, between their markers, and every figure to build/prealigned_error.json.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from golden.bitserial.error_table import OUTLIERS, draw
from golden.bitserial.error_table import relative_errors as bit_serial_errors
from golden.document import write_between_markers
from golden.llm.checkpoint import CheckpointNotFoundError, layer_weight
from golden.prealigned.aligner import align
from golden.prealigned.bound import group_deviation
from golden.weights.quantized import QuantizedWeight
from golden.weights.quantizer import quantize
from shell.output import write_file
from spec.bitserial import ROUNDINGS
from spec.datatypes import WEIGHT_DATATYPES, Datatype

__all__ = ["REAL", "WIDTHS", "ErrorFigures", "batch", "measure", "relative_errors", "tables", "winners"]

WIDTHS = range(12, 25)
REAL = "SmolLM2"
"""Activations by name: those of :data:`golden.bitserial.error_table.OUTLIERS`, and those that reach real layers."""
LAYERS = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.o_proj",
    "model.layers.0.mlp.down_proj",
    "model.layers.14.mlp.gate_proj",
    "model.layers.14.mlp.down_proj",
    "model.layers.29.self_attn.v_proj",
    "model.layers.29.mlp.down_proj",
)
_TOKENS, _ROWS = 4, 12  # of each layer and batch
DETAIL = Datatype.FP4
"""The datatype whose table shows every width."""
REQUIRED_WIDTH = 16
REQUIRED = ("normal", "1% x 100", REAL)

MARKERS = (
    "<!-- error tables: written by python -m golden.prealigned.error_table -->",
    "<!-- end of error tables -->",
)
Batch = Sequence[tuple[QuantizedWeight, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class ErrorFigures:
    """|error| / sum |a*v| over all groups of several batches: median and largest."""

    datatype: str
    activations: str
    method: str
    """``trunc`` or ``rne``, the roundings of ``BitSerialPE`` (15 bits of accumulator), or ``W = 16`` and so on."""
    groups: int
    median: float
    max: float
    batch_max: tuple[float, ...]

    def beats(self, other: "ErrorFigures") -> bool:
        """Neither median nor maximum is above the other's."""
        return self.median <= other.median and self.max <= other.max


def relative_errors(weight: QuantizedWeight, activations: torch.Tensor, activation_bits: int) -> torch.Tensor:
    """(group sum - exact sum) / sum |a*v| of every group, float64 [tokens * out * groups]; 0 where the sum is 0."""
    aligned = align(activations, group_size=weight.group_size, activation_bits=activation_bits)
    deviation, size = group_deviation(weight, activations, aligned)
    return (deviation / torch.where(size > 0, size, 1)).flatten()


def batch(datatype: Datatype, activations: str, seed: int, captured: Mapping[str, torch.Tensor]) -> Batch:
    """Rows of quantized weights and the tokens that they meet.

    Normal weights, each row with one token of its own; for ``REAL`` random rows and tokens of real layers, whose
    activations (layer -> float16 [tokens, in]) are ``captured``.
    """
    if activations != REAL:
        return draw(datatype, OUTLIERS[activations], seed)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for layer in LAYERS:
        weight = layer_weight(layer)
        chosen = torch.randperm(weight.shape[0], generator=generator)[:_ROWS]
        tokens = torch.randperm(captured[layer].shape[0], generator=generator)[:_TOKENS]
        rows.append((quantize(weight[chosen], datatype), captured[layer][tokens]))
    return rows


def measure(
    datatype: Datatype, activations: str, seeds: Sequence[int], captured: Mapping[str, torch.Tensor]
) -> Iterator[ErrorFigures]:
    """Figures of one datatype for both PEs, all on the same batches, one per seed."""
    batches = [batch(datatype, activations, seed, captured) for seed in seeds]
    methods = {rounding: lambda *row, r=rounding: bit_serial_errors(*row, rounding=r) for rounding in ROUNDINGS}
    methods |= {f"W = {bits}": lambda *row, b=bits: relative_errors(*row, b) for bits in WIDTHS}
    for method, errors_of in methods.items():
        errors = torch.stack([torch.cat([errors_of(*row) for row in rows]) for rows in batches]).abs()
        yield ErrorFigures(
            datatype=datatype.name,
            activations=activations,
            method=method,
            groups=errors.numel(),
            median=errors.median().item(),
            max=errors.max().item(),
            batch_max=tuple(errors.amax(1).tolist()),
        )


Figures = Mapping[tuple[str, str, str], ErrorFigures]
"""By datatype, activations and method."""


def winners(figures: Figures, datatype: str, activations: str, rounding: str) -> int | None:
    """Smallest W from which on every wider one beats ``BitSerialPE`` with this rounding; None if there is none."""
    smallest = None
    for bits in reversed(WIDTHS):
        if not figures[datatype, activations, f"W = {bits}"].beats(figures[datatype, activations, rounding]):
            break
        smallest = bits
    return smallest


def tables(found: Sequence[ErrorFigures], batches: int) -> str:
    """Markdown: every width for one datatype, the smallest that wins for all, and whether W = 16 is enough."""
    figures = {(f.datatype, f.activations, f.method): f for f in found}
    kinds = list(dict.fromkeys(f.activations for f in found))
    datatypes = list(dict.fromkeys(f.datatype for f in found))
    groups = {kind: next(f.groups for f in found if f.activations == kind) for kind in kinds}
    counted = ", ".join(f"{groups[kind]:,} ({kind})" for kind in kinds)
    detail = DETAIL.name if DETAIL.name in datatypes else datatypes[0]
    lines = [f"{batches} batches; groups of 128 per entry: {counted}.", ""]
    if REAL not in kinds:
        lines += [f"Without {REAL}: the checkpoint was not installed.", ""]

    lines += [f"## {detail}, every width: median / largest", "", "| | " + " | ".join(kinds) + " |"]
    lines.append("|---" * (len(kinds) + 1) + "|")
    for method in dict.fromkeys(f.method for f in found):
        cells = [figures[detail, kind, method] for kind in kinds]
        name = f"`BitSerialPE`, `{method}`" if method in ROUNDINGS else method
        lines.append(f"| {name} | " + " | ".join(f"{c.median:.1e} / {c.max:.1e}" for c in cells) + " |")

    lines += ["", "## The smallest W that beats `BitSerialPE`: `trunc` / `rne`", ""]
    lines += ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for datatype in datatypes:
        pairs = [[winners(figures, datatype, kind, rounding) or "none" for rounding in ROUNDINGS] for kind in kinds]
        lines.append(f"| {datatype} | " + " | ".join(f"{trunc} / {rne}" for trunc, rne in pairs) + " |")

    asked = [kind for kind in REQUIRED if kind in kinds]
    width = f"W = {REQUIRED_WIDTH}"
    lines += ["", f"## {width} against `trunc`: largest of one / of the other, and of the medians", ""]
    lines += ["| | " + " | ".join(asked) + " |", "|---" * (len(asked) + 1) + "|"]
    misses = []
    for datatype in datatypes:
        cells = []
        for kind in asked:
            ours, theirs = figures[datatype, kind, width], figures[datatype, kind, ROUNDINGS[0]]
            cells.append(
                f"{ours.max:.1e} / {theirs.max:.1e}, {ours.median:.1e} / {theirs.median:.1e}"
                + ("" if ours.beats(theirs) else " **above**")
            )
            if not ours.beats(theirs):
                needed = winners(figures, datatype, kind, ROUNDINGS[0])
                misses.append(f"{datatype} with {kind} (needs {f'W = {needed}' if needed else 'more than 24'})")
        lines.append(f"| {datatype} | " + " | ".join(cells) + " |")
    verdict = f"does not hold for {', '.join(misses)}" if misses else "holds everywhere"
    return "\n".join([*lines, "", f"That {width} is nowhere worse than `trunc` in these columns {verdict}.", ""])


def captured_activations() -> dict[str, torch.Tensor]:
    """Layer -> FP16 [tokens, in] of :data:`LAYERS`; empty where the checkpoint is not installed."""
    try:
        from golden.llm.capture import capture_activations

        return capture_activations(list(LAYERS), 256)
    except (CheckpointNotFoundError, ModuleNotFoundError):
        return {}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then replace both files."""
    parser = argparse.ArgumentParser(prog="python -m golden.prealigned.error_table", description=__doc__)
    parser.add_argument("--batches", type=int, default=3, help="batches per entry (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first batch; the next ones follow (default 1)")
    parser.add_argument("--page", type=Path, default=Path("docs/prealigned-error.md"), help="page with the markers")
    parser.add_argument("--report", type=Path, default=Path("build/prealigned_error.json"), help="the figures' file")
    options = parser.parse_args(arguments)
    if options.batches < 1:
        parser.error(f"argument --batches: must be at least 1, not {options.batches}")
    write_between_markers(options.page, "(being measured)", MARKERS)  # fails before minutes of measuring

    captured = captured_activations()
    kinds = [*OUTLIERS, REAL] if captured else list(OUTLIERS)
    seeds = range(options.seed, options.seed + options.batches)
    found = []
    cases = [(datatype, kind) for kind in kinds for datatype in WEIGHT_DATATYPES]
    for datatype, kind in track(cases, description="errors", console=Console(stderr=True)):
        found += measure(datatype, kind, seeds, captured)
    report = {"group_size": 128, "seeds": list(seeds), "layers": list(LAYERS), "figures": [asdict(f) for f in found]}
    write_file(options.report, (json.dumps(report, indent=2) + "\n").encode())
    text = tables(found, options.batches)
    write_between_markers(options.page, text, MARKERS)
    print(text)


if __name__ == "__main__":
    main()

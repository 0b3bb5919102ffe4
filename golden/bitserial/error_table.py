"""Measured errors of ``BitSerialPE`` against exact sums: ``python -m golden.bitserial.error_table``.

Writes the table in docs/pe-error.md, between its markers, and every figure to build/pe_error.json.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from golden.bitserial.dot import group_sums
from golden.bitserial.pe import group_value
from golden.bitserial.reference import exact_group_sums
from golden.weights.quantized import QuantizedWeight
from golden.weights.quantizer import quantize
from shell.output import write_file
from spec.bitserial import ACCUMULATOR_BITS, ROUNDINGS
from spec.datatypes import WEIGHT_DATATYPES, Datatype

__all__ = ["OUTLIERS", "ErrorFigures", "batch_errors", "measure", "relative_errors"]

GROUP_SIZE = 128
BATCH = 2000
"""Groups per batch, each with its own weights and activations."""
_ROWS, _ROW_GROUPS = 16, 125  # that many groups in rows that the models take

OUTLIERS = {"normal": 1, "1% x 100": 100, "1% x 1000": 1000}
"""Activations by name: standard normal, one in a hundred of them multiplied by this factor."""

BEGIN, END = "<!-- error table: written by python -m golden.bitserial.error_table -->", "<!-- end of error table -->"


@dataclass(frozen=True, kw_only=True)
class ErrorFigures:
    """|error| / sum |a*v| over all groups of several batches: median, largest, and mean of the signed error."""

    datatype: str
    rounding: str
    accumulator_bits: int
    activations: str
    median: float
    max: float
    mean_signed: float
    batch_max: tuple[float, ...]
    """Largest of each batch: how far a maximum over 2,000 groups depends on the draw."""


def relative_errors(weight: QuantizedWeight, activations: torch.Tensor, **config) -> torch.Tensor:
    """(partial sum - exact sum) / sum |a*v| of every group, float64 [tokens * out * groups]; 0 where the sum is 0.

    ``config`` is lanes, rounding and accumulator_bits, as for ``group_sums``.
    """
    mantissa, exponent = group_sums(weight, activations, **config)
    exact, size = exact_group_sums(weight, activations)
    error = group_value(mantissa, exponent) * 2**24 - exact.double()
    return (error / size.clamp(min=1).double()).flatten()


def draw(datatype: Datatype, outlier: int, seed: int) -> list[tuple[QuantizedWeight, torch.Tensor]]:
    """One batch: rows of quantized normal weights, each with one token of activations; every group independent."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, _ROW_GROUPS * GROUP_SIZE)
    rows = []
    for _ in range(_ROWS):
        weight = quantize(torch.randn(shape, generator=generator), datatype, group_size=GROUP_SIZE)
        activations = torch.randn(shape, generator=generator)
        factor = 1 + (outlier - 1) * (torch.rand(shape, generator=generator) < 0.01)
        rows.append((weight, (activations * factor).half()))
    return rows


def batch_errors(rows: Sequence[tuple[QuantizedWeight, torch.Tensor]], **config) -> torch.Tensor:
    """Relative errors of a batch, float64 [BATCH]."""
    return torch.cat([relative_errors(weight, activations, **config) for weight, activations in rows])


def measure(datatype: Datatype, activations: str, seeds: Sequence[int]) -> Iterator[ErrorFigures]:
    """Figures of one datatype for every rounding and accumulator width, all on the same batches, one per seed."""
    batches = [draw(datatype, OUTLIERS[activations], seed) for seed in seeds]
    for rounding in ROUNDINGS:
        for accumulator_bits in ACCUMULATOR_BITS:
            config = {"rounding": rounding, "accumulator_bits": accumulator_bits}
            errors = torch.stack([batch_errors(rows, **config) for rows in batches])
            yield ErrorFigures(
                datatype=datatype.name,
                activations=activations,
                median=errors.abs().median().item(),
                max=errors.abs().max().item(),
                mean_signed=errors.mean().item(),
                batch_max=tuple(errors.abs().amax(1).tolist()),
                **config,
            )


def markdown(figures: Sequence[ErrorFigures], batches: int) -> str:
    """One table per kind of activations: datatypes down, roundings and widths across."""
    columns = [(rounding, bits) for rounding in ROUNDINGS for bits in ACCUMULATOR_BITS]
    found = {(f.activations, f.datatype, f.rounding, f.accumulator_bits): f for f in figures}
    lines = [f"{batches} batches of {BATCH:,} groups of {GROUP_SIZE} per entry: median / largest / mean signed.", ""]
    for activations in OUTLIERS:
        heads = [f"`{rounding}`, {bits} bits" for rounding, bits in columns]
        lines += [f"| {activations} | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
        for datatype in WEIGHT_DATATYPES:
            cells = [found[activations, datatype.name, *column] for column in columns]
            text = [f"{cell.median:.1e} / {cell.max:.1e} / {cell.mean_signed:+.0e}" for cell in cells]
            lines.append(f"| {datatype.name} | {' | '.join(text)} |")
        lines.append("")
    return "\n".join(lines)


def insert(page: str, table: str) -> str:
    """The page with ``table`` between its markers. Raises ValueError if the markers are not there once, in order."""
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    if page.count(BEGIN) != 1 or page.count(END) != 1 or not pattern.search(page):
        raise ValueError(f"the page must hold {BEGIN!r} and then {END!r}, once each")
    return pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then replace both files."""
    parser = argparse.ArgumentParser(prog="python -m golden.bitserial.error_table", description=__doc__)
    parser.add_argument("--batches", type=int, default=5, help="batches of 2,000 groups per entry (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first batch; the next ones follow (default 1)")
    parser.add_argument("--page", type=Path, default=Path("docs/pe-error.md"), help="page with the markers")
    parser.add_argument("--report", type=Path, default=Path("build/pe_error.json"), help="where the figures go")
    options = parser.parse_args(arguments)
    if options.batches < 1:
        parser.error(f"argument --batches: must be at least 1, not {options.batches}")
    page = options.page.read_text()
    insert(page, "")  # before minutes of measuring

    cases = [(datatype, activations) for activations in OUTLIERS for datatype in WEIGHT_DATATYPES]
    seeds = range(options.seed, options.seed + options.batches)
    figures = []
    for datatype, activations in track(cases, description="PE errors", console=Console(stderr=True)):
        figures += measure(datatype, activations, seeds)
    report = {
        "groups_per_batch": BATCH,
        "group_size": GROUP_SIZE,
        "seeds": list(seeds),
        "figures": [asdict(entry) for entry in figures],
    }
    write_file(options.report, (json.dumps(report, indent=2) + "\n").encode())
    table = markdown(figures, options.batches)
    write_file(options.page, insert(page, table).encode())
    print(table)


if __name__ == "__main__":
    main()

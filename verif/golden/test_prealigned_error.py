"""The table of the pre-aligned PE's errors: what is measured, and the command that writes it."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.bitserial import error_table as bit_serial
from golden.prealigned import align, group_sums
from golden.prealigned import error_table as table
from spec.bitserial import ROUNDINGS
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from verif.golden import weights_oracle as oracle
from verif.golden.weights_helpers import random_activations, random_weight


def test_relative_errors_in_rationals(rng):
    weight, activations = random_weight(rng, 3, 70, 32), random_activations(rng, 4, 70)
    for bits in (12, 16, 24):
        aligned = align(activations, group_size=32, activation_bits=bits)
        sums, errors = group_sums(weight, aligned), table.relative_errors(weight, activations, bits).view(4, 3, 3)
        for token, row, group in np.ndindex(4, 3, 3):
            part = slice(32 * group, min(70, 32 * group + 32))
            exact, size = oracle.exact_group(weight.integers()[row, part].tolist(), activations[token, part].tolist())
            value = int(sums[token, row, group]) * Fraction(2) ** (int(aligned.exponent[token, group]) - 13 - bits)
            expected = float((value - exact) / size) if size else 0.0
            assert errors[token, row, group].item() == pytest.approx(expected, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
def test_a_wider_window_is_more_exact(datatype):
    """Normal groups: from W = 14 on far below the worst case, and every bit more helps until all is exact."""
    rows = table.batch(datatype, "normal", 3, {})
    figures = {bits: torch.cat([table.relative_errors(*row, bits) for row in rows]).abs() for bits in table.WIDTHS}
    assert all(len(errors) == bit_serial.BATCH for errors in figures.values())
    medians = [figures[bits].median().item() for bits in table.WIDTHS]
    assert all(wide < 0.8 * narrow or narrow == 0 for narrow, wide in itertools.pairwise(medians))
    assert figures[16].max() < 6e-4 / 8
    assert figures[24].max() < 1e-6


def figures_of(**methods):
    return {
        ("FP3", "normal", method.replace("W", "W = ")): table.ErrorFigures(
            datatype="FP3", activations="normal", method=method, groups=1, median=median, max=largest, batch_max=()
        )
        for method, (median, largest) in methods.items()
    }


def test_winner_needs_median_and_maximum_at_every_larger_width():
    falling = {f"W{bits}": (2.0**-bits, 2.0**-bits) for bits in table.WIDTHS}
    trunc = {"trunc": (2.0**-15, 2.0**-14)}
    assert table.winners(figures_of(**falling, **trunc), "FP3", "normal", "trunc") == 15
    assert table.winners(figures_of(**falling | {"W17": (0, 1)}, **trunc), "FP3", "normal", "trunc") == 18
    assert table.winners(figures_of(**falling | {"W24": (1, 0)}, **trunc), "FP3", "normal", "trunc") is None


@pytest.fixture
def small(monkeypatch):
    """Two datatypes over tiny batches, and made-up layers in place of the checkpoint."""
    monkeypatch.setattr(table, "WEIGHT_DATATYPES", (Datatype.FP3, Datatype.FP4))
    for name, value in {"_ROWS": 1, "_ROW_GROUPS": 2, "BATCH": 2}.items():
        monkeypatch.setattr(bit_serial, name, value)
    generator = torch.Generator().manual_seed(1)
    monkeypatch.setattr(table, "layer_weight", lambda _layer: torch.randn(16, 200, generator=generator))
    captured = {layer: torch.randn(8, 200, generator=generator).half() for layer in table.LAYERS}
    monkeypatch.setattr(table, "captured_activations", lambda: captured)
    return captured


def test_command_writes_page_and_report(small, tmp_path, capsys, monkeypatch):
    page, report = tmp_path / "page.md", tmp_path / "new" / "report.json"
    page.write_text("before\n{}\nstale figures\n{}\nafter\n".format(*table.MARKERS))
    arguments = ["--batches", "2", "--seed", "5", "--page", str(page), "--report", str(report)]
    table.main(arguments)
    written = json.loads(report.read_text())
    assert written["seeds"] == [5, 6]
    kinds = [*bit_serial.OUTLIERS, table.REAL]
    methods = [*ROUNDINGS, *(f"W = {bits}" for bits in table.WIDTHS)]
    assert [(f["datatype"], f["activations"], f["method"]) for f in written["figures"]] == [
        (datatype, kind, method) for kind in kinds for datatype in ("FP3", "FP4") for method in methods
    ]
    entry = written["figures"][5]
    errors = [
        torch.cat([table.relative_errors(*row, 15) for row in bit_serial.draw(Datatype.FP3, 1, seed)]).abs()
        for seed in (5, 6)
    ]
    assert entry["batch_max"] == [error.max().item() for error in errors]
    assert entry["median"] == torch.cat(errors).median().item()
    trunc = [torch.cat([bit_serial.relative_errors(*row) for row in bit_serial.draw(Datatype.FP3, 1, 5)]).abs()]
    assert written["figures"][0]["batch_max"][0] == trunc[0].max().item()
    text = page.read_text()
    assert text == f"before\n{table.MARKERS[0]}\n{capsys.readouterr().out.rstrip()}\n{table.MARKERS[1]}\nafter\n"
    fp4 = next(f for f in written["figures"] if (f["datatype"], f["method"]) == ("FP4", "W = 16"))
    assert f"| W = 16 | {fp4['median']:.1e} / {fp4['max']:.1e} | " in text

    monkeypatch.setattr(table, "captured_activations", dict)
    table.main(arguments)
    assert f"Without {table.REAL}" in page.read_text()
    assert {f["activations"] for f in json.loads(report.read_text())["figures"]} == set(bit_serial.OUTLIERS)


def test_real_batches_hold_rows_and_tokens_of_the_layers(small):
    rows = table.batch(Datatype.FP3, table.REAL, 1, small)
    assert [weight.shape for weight, _ in rows] == [(12, 200)] * len(table.LAYERS)
    for layer, (_, tokens) in zip(table.LAYERS, rows, strict=True):
        assert all(any(torch.equal(token, known) for known in small[layer]) for token in tokens)


def test_command_refuses_a_page_without_markers(small, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must contain the lines"):
        table.main(["--page", str(page), "--report", str(tmp_path / "report.json")])
    assert not (tmp_path / "report.json").exists()
    with pytest.raises(SystemExit):
        table.main(["--batches", "0", "--page", str(page)])


def test_the_page_in_the_docs_has_its_markers():
    from sim.build import ROOT

    text = (ROOT / "docs" / "prealigned-error.md").read_text()
    assert [text.count(marker) for marker in table.MARKERS] == [1, 1]

"""Errors of the PE model against exact sums: the proven bound, the measured figures, the table that states them."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.bitserial import error_table as table
from golden.bitserial.dot import group_sums
from golden.bitserial.reference import exact_group_sums, relative_error_bound
from golden.weights import quantize
from spec.bitserial import ACCUMULATOR_BITS, ROUNDINGS
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from verif.golden import weights_oracle as oracle
from verif.golden.weights_helpers import random_activations, random_weight, real_layer


def test_exact_sums_are_exact(rng):
    weight = random_weight(rng, 4, 70, 32)
    activations = random_activations(rng, 3, 70)
    sums, sizes = exact_group_sums(weight, activations)
    for token, row, group in np.ndindex(3, 4, 3):
        part = slice(32 * group, min(70, 32 * group + 32))
        values, inputs = weight.integers()[row, part].tolist(), activations[token, part].tolist()
        assert (sums[token, row, group].item(), sizes[token, row, group].item()) == tuple(
            x * 2**24 for x in oracle.exact_group(values, inputs)
        )


def test_relative_errors_in_rationals(rng):
    weight, activations = random_weight(rng, 2, 70, 32), random_activations(rng, 2, 70)
    errors = table.relative_errors(weight, activations, rounding="rne", accumulator_bits=16).view(2, 2, 3)
    mantissa, exponent = group_sums(weight, activations, rounding="rne", accumulator_bits=16)
    for token, row, group in np.ndindex(2, 2, 3):
        part = slice(32 * group, min(70, 32 * group + 32))
        exact, size = oracle.exact_group(weight.integers()[row, part].tolist(), activations[token, part].tolist())
        value = Fraction(int(mantissa[token, row, group])) * Fraction(2) ** (int(exponent[token, row, group]) - 28)
        expected = float((value - exact) / size) if size else 0.0
        assert errors[token, row, group].item() == pytest.approx(expected, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
def test_figures_of_normal_groups(datatype):
    """Several independent batches of 2,000 groups of 128: far inside the proven bound, and without drift."""
    figures = {(f.rounding, f.accumulator_bits): f for f in table.measure(datatype, "normal", seeds=range(3))}
    assert set(figures) == {(rounding, bits) for rounding in ROUNDINGS for bits in ACCUMULATOR_BITS}
    for (rounding, bits), found in figures.items():
        assert 0 < found.median < found.max == max(found.batch_max)
        assert found.max <= relative_error_bound(datatype, 128, rounding=rounding, accumulator_bits=bits)
        assert abs(found.mean_signed) < 1e-5
        # A wider accumulator never needs a looser limit.
        assert found.median <= (5e-5 if rounding == "trunc" else 3e-5)
        assert found.max <= (6e-4 if rounding == "trunc" else 4e-4)
    for bits in (16, 17):
        assert figures["rne", bits].max <= 2e-4
    # With 15 bits an integer datatype's largest exceeds 2e-4 in some batches, and FP4's in very few (not in these).
    if datatype in (Datatype.FP3, Datatype.FP4):
        assert figures["rne", 15].max <= 2e-4
    # The figures tell the roundings and the widths apart.
    for bits in ACCUMULATOR_BITS:
        assert figures["rne", bits].median < 0.9 * figures["trunc", bits].median
    for rounding in ROUNDINGS:
        assert figures[rounding, 17].median < 0.8 * figures[rounding, 16].median < 0.5 * figures[rounding, 15].median


@pytest.mark.parametrize("accumulator_bits", ACCUMULATOR_BITS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("datatype", [Datatype.FP3, Datatype.INT8], ids=lambda d: d.name)
def test_error_bound_on_real_weights_and_wide_activations(rng, datatype, rounding, accumulator_bits):
    weight = quantize(real_layer("model.layers.0.self_attn.q_proj")[:40], datatype)
    config = {"rounding": rounding, "accumulator_bits": accumulator_bits}
    errors = table.relative_errors(weight, random_activations(rng, 4, 576), **config)
    assert errors.abs().max().item() <= relative_error_bound(datatype, 128, **config)


@pytest.mark.parametrize(("bits", "units"), [(15, 64), (16, 48), (17, 40)])
def test_bound_worked_by_hand(bits, units):
    """128 ternary weights on 4 lanes are 32 steps: 64, 48 or 40 roundings' worth of R2 and R3, and 3 of R1."""
    trunc, rne = (
        relative_error_bound(Datatype.TERNARY, 128, rounding=rounding, accumulator_bits=bits) for rounding in ROUNDINGS
    )
    assert trunc == (units + 3) / 2**13
    assert rne == (units + 3) / (2**14 - units)


def test_batches_are_independent_and_hold_outliers():
    first, again, other = (table.draw(Datatype.FP3, 100, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0][0].codes, again[0][0].codes)
    assert not torch.equal(first[0][0].codes, other[0][0].codes)
    assert not torch.equal(first[0][0].codes, first[1][0].codes)
    assert sum(weight.groups for weight, _ in first) == table.BATCH
    activations = torch.cat([one for _, one in first])
    assert 0.005 < (activations.abs() > 6).float().mean() < 0.01
    assert activations[activations.abs() < 6].std() == pytest.approx(1, abs=0.02)


@pytest.fixture
def small(monkeypatch):
    """A table of one datatype over tiny batches."""
    for name, value in {"WEIGHT_DATATYPES": (Datatype.FP3,), "_ROWS": 1, "_ROW_GROUPS": 2, "BATCH": 2}.items():
        monkeypatch.setattr(table, name, value)


def test_command_writes_page_and_report(small, tmp_path, capsys):
    page, report = tmp_path / "page.md", tmp_path / "new" / "report.json"
    page.write_text(f"before\n{table.BEGIN}\nstale figures\n{table.END}\nafter\n")
    arguments = ["--batches", "3", "--seed", "5", "--page", str(page), "--report", str(report)]
    table.main(arguments)
    written = json.loads(report.read_text())
    assert written["seeds"] == [5, 6, 7]
    assert len(written["figures"]) == len(table.OUTLIERS) * len(ROUNDINGS) * len(ACCUMULATOR_BITS)
    entry = written["figures"][0]
    assert (entry["datatype"], entry["activations"], entry["rounding"]) == ("FP3", "normal", "trunc")
    errors = [table.batch_errors(table.draw(Datatype.FP3, 1, seed)) for seed in (5, 6, 7)]
    assert entry["batch_max"] == [error.abs().max().item() for error in errors]
    assert entry["mean_signed"] == torch.cat(errors).mean().item()
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n3 batches")
    assert text.endswith(f"{table.END}\nafter\n")
    assert f"| FP3 | {entry['median']:.1e} / {entry['max']:.1e} / " in text
    assert "stale" not in text
    assert text == f"before\n{table.BEGIN}\n{capsys.readouterr().out}{table.END}\nafter\n"
    table.main(arguments)
    assert page.read_text() == text


def test_command_refuses_a_page_without_markers(small, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(table.END + table.BEGIN)
    with pytest.raises(ValueError, match=r"the page must hold '<!-- error table: .* and then '<!-- end"):
        table.main(["--page", str(page), "--report", str(tmp_path / "report.json")])
    assert not (tmp_path / "report.json").exists()
    with pytest.raises(SystemExit):
        table.main(["--batches", "0", "--page", str(page)])


def test_the_page_in_the_docs_has_its_markers():
    from sim.build import ROOT

    table.insert((ROOT / "docs" / "pe-error.md").read_text(), "")

"""``make eval``: entries, table and plot; a small run on the real model."""

import json
import math

import pytest
import torch

from golden.llm import CheckpointNotFoundError, load_model
from studies.kv import quality
from verif.golden.test_alloc_plan import moments

TEXTS = ("docs", "code")


def test_entries_are_shares_of_what_dropping_loses():
    row = quality.Row("ours", 1.5, "in-domain", None)
    lost = {
        "FP16 cache": {"docs": [1.0, 1.0], "code": [2.0, 2.0]},
        "old tokens dropped": {"docs": [2.0, 2.0], "code": [3.0, 3.0]},
        "ours": {"docs": [1.0, 1.0], "code": [3.0, 3.0]},
    }
    docs, code, mean = quality._entries(row, lost, TEXTS)
    assert (docs["kept"], code["kept"], mean["kept"]) == (1.0, 0.0, 0.5)
    assert (docs["text"], code["text"], mean["text"]) == ("docs", "code", "mean")
    assert docs["perplexity"] == math.exp(1.0)
    assert (docs["format"], docs["bits_effective"], docs["calibration"]) == ("ours", 1.5, "in-domain")
    assert docs["kept_error"] == mean["kept_error"] == 0.0


def test_table_and_plot(tmp_path):
    lost = {"FP16 cache": {"docs": [1.0], "code": [1.0]}, "old tokens dropped": {"docs": [2.0], "code": [2.0]}}
    entries = []
    for name, bits, own in (("FP16 cache", 16.0, 1.0), ("old tokens dropped", 0.0, 2.0),
                            ("planes, 1 bits, plan scales", 1.0, 1.2), ("planes, 2 bits, plan scales", 2.0, 1.1),
                            ("KIVI-like", 3.06, 1.4)):  # fmt: skip
        lost[name] = {"docs": [own], "code": [own]}
        entries += quality._entries(quality.Row(name, bits, None, None), lost, TEXTS)
    lines = quality.table(entries, TEXTS).splitlines()
    assert lines[0] == "| format | bits per element | docs | code | mean kept |"
    assert lines[2] == f"| FP16 cache | 16.00 | {math.e:.2f} | {math.e:.2f} | perplexities |"
    share = (math.exp(2) - math.exp(1.4)) / (math.exp(2) - math.e)
    assert lines[-1] == f"| KIVI-like | 3.06 | {100 * share:.0f}% | {100 * share:.0f}% | {100 * share:.0f}% ± 0 |"
    for name in ("one.svg", "two.svg"):
        quality.plot(entries, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert b"<svg" in (tmp_path / "one.svg").read_bytes()


def test_heads_alike_have_equal_bits(rng):
    given = moments(rng)
    plan = quality.make_plan(given, 1.5, scales="group", identity="", texts={})
    same = quality.alike(plan, given, 1.5)
    assert set(same.widths.double().mean(-1).flatten().tolist()) == {1.5}
    assert len(set(plan.widths.double().mean(-1).flatten().tolist())) > 1
    assert torch.equal(same.forward, plan.forward)


def test_a_small_run(tmp_path, monkeypatch):
    """Three rows on two texts of the real model: exact, dropped, and 3 bits, which keep nearly everything."""
    try:
        load_model()
    except CheckpointNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(quality, "TOKENS", 300)
    every = quality.rows
    chosen = ("FP16 cache", "old tokens dropped", "planes, 3 bits, group scales")
    monkeypatch.setattr(quality, "rows", lambda *given: [row for row in every(*given) if row.name in chosen])
    entries = quality.evaluate(TEXTS, 1, tmp_path)
    kept = {(entry["format"], entry["text"]): entry["kept"] for entry in entries}
    assert len(entries) == 9
    for text in (*TEXTS, "mean"):
        assert kept["FP16 cache", text] == 1.0
        assert kept["old tokens dropped", text] == 0.0
        assert 0.8 < kept["planes, 3 bits, group scales", text] < 1.2
    remembered = json.loads((tmp_path / "losses.json").read_text())
    assert len(remembered) == 6
    with pytest.raises(ValueError, match="texts must be at least two, not docs"):
        quality.evaluate(["docs"], 1, tmp_path)

"""The figures in docs/results.md of area and density: where they go, and what they are taken from."""

from sim.build import ROOT
from studies.docs.summary import REPORTS, attention_markdown, density_markdown


def test_results_have_a_place_for_each_section():
    text = (ROOT / "docs" / "results.md").read_text()
    for name in REPORTS:
        begin, end = f"<!-- {name} in short: python -m studies.docs.summary -->", f"<!-- end of {name} in short -->"
        assert text.count(begin) == text.count(end) == 1
        assert text.partition(begin)[2].partition(end)[0].strip(), name


def test_density_without_peers_is_left_out():
    datatypes = dict.fromkeys(("fp3", "fp4", "int6", "int8"), 2.0)
    entry = {
        "design": "dense",
        "library": "sky130hd",
        "gate_equivalents": 1000.0,
        "edge_gate_equivalents": 50.0,
        "delay_ps": 900.0,
        "ratio_to_bitmod_authors": datatypes,
        "ratio_to_bit_parallel": datatypes | {"fp3": None},
        "ratio_to_bitserial_pe": datatypes,
    }
    lines = density_markdown([entry, entry | {"library": "generic", "ratio_to_bitmod_authors": None}]).splitlines()
    equal = "2.0 / 2.0 / 2.0 / 2.0"
    assert lines[2:] == [f"| `dense` | sky130hd | 1,000 + 50 | 900 | {equal} | - / 2.0 / 2.0 / 2.0 | {equal} |"]


def test_attention_says_every_ratio():
    part = {
        "query_heads": 1,
        "gate_cycle_ratio": 8.5,
        "gate_cycle_ratio_with_memory": 6.5,
        "gate_cycle_delay_ratio": 7.5,
        "gate_cycle_ratio_by_lanes": {"8": 9.5, "16": 8.5},
    }
    report = {
        "comparisons": [part],
        "workload": {"tokens": 1024, "head_dim": 64},
        "library": "sky130hd",
        "variants": "quick",
        "array_busy": 0.96,
        "array_busy_packed": 0.98,
    }
    text = attention_markdown(report)
    assert all(figure in text for figure in ("8.5 x", "6.5 x", "7.5 x", "9.5 x with 8", "96%", "98%"))

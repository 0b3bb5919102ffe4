"""The demo's verdict: it passes on the generated Verilog, and one wrong bit makes it fail."""

import json
import re

import pytest

from gen.synth.liberty import generic_library
from gen.verilog import emit
from golden.llm import CheckpointNotFoundError, layer_weight
from hosts.demo.report import Item, Section, write_report
from hosts.demo.weights import COLUMNS, LAYERS, demo_core, run_weights, workload
from hw.tops.core import AcceleratorCoreAxi
from spec.datatypes import Datatype
from spec.system import SYSTEMS

LAYER = next(iter(LAYERS))
RESULT = re.compile(r"(assign m_axis_results_tdata = )(.*?);")


@pytest.fixture
def checkpoint():
    try:
        layer_weight(LAYER)
    except CheckpointNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.sim
@pytest.mark.parametrize("wrong", [False, True], ids=["as generated", "one bit wrong"])
def test_verdict(checkpoint, tmp_path, wrong):
    config = demo_core(SYSTEMS["tiny"].bit_serial, rows=2)
    verilog = emit(AcceleratorCoreAxi(config), "bit_serial_core", tmp_path, parameters={}, latency=None).path_v
    if wrong:
        text, count = RESULT.subn(r"\1\2 ^ 32'h00000001;", verilog.read_text(), count=1)
        assert count == 1, "the results' port was not found"
        verilog.write_text(text)
    section = run_weights(
        config,
        tmp_path / "demo",
        seed=1,
        library=generic_library(),
        jobs=[(LAYER, Datatype.FP4, (5,))],
        verilog=verilog,
    )
    assert write_report([section], 1, tmp_path / "demo") is not wrong
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    item = report["sections"][0]["items"][0]
    assert report["pass"] is not wrong
    assert item["compared"] == item["expected"] == 576
    assert item["groups"] == 576 * 18
    assert item["mismatches"] == (576 if wrong else 0)
    assert set(report["verilog_sha256"]) == {"bit_serial_core"}


def test_the_demo_covers_enough_groups():
    """At least 20,000 group dot products, four datatypes on a layer that 128 does not divide."""
    group = SYSTEMS["paper"].bit_serial.group_size
    columns = {"q_proj": 576, "down_proj": 1536}
    groups = 0
    on_ragged = set()
    for layer, datatype, tokens in workload():
        inputs = columns[layer.rsplit(".", 1)[1]]
        groups += 576 * len(tokens) * -(-inputs // group)
        on_ragged |= {datatype} if inputs % group else set()
    assert groups >= 20_000
    assert on_ragged >= {Datatype.FP3, Datatype.FP4, Datatype.INT6, Datatype.INT8}


@pytest.mark.parametrize(
    ("item", "verdict"),
    [
        (Item("good", expected=3, compared=3), True),
        (Item("different", expected=3, compared=3, mismatches=1), False),
        (Item("incomplete", expected=3, compared=2), False),
        (Item("empty", expected=0, compared=0), False),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_report_passes_only_if_all_was_compared_and_matches(tmp_path, item, verdict):
    good = Item("good", expected=1, compared=1)
    for items in ([item], [good, item], [item, good]):
        section = Section("weights", "", COLUMNS, items)
        assert write_report([section], 7, tmp_path) is verdict
        assert json.loads((tmp_path / "report.json").read_text())["pass"] is verdict
    assert write_report([], 7, tmp_path) is False
    assert write_report([Section("weights", "", COLUMNS)], 7, tmp_path) is False

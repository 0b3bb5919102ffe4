"""The demo's section `core`: it passes on the generated Verilog, and one wrong bit makes it fail."""

import json
import re

import pytest

from gen.verilog import emit
from golden.llm import CheckpointNotFoundError, layer_weight
from hosts.demo import core
from hosts.demo.report import write_report
from hw.tops.core import AcceleratorCoreAxi
from spec.datatypes import Datatype
from spec.system import core_preset

RESULT = re.compile(r"(assign m_axis_results_tdata = )(.*?);")


@pytest.fixture
def checkpoint():
    """Skips the test where the model is not installed."""
    try:
        layer_weight(f"{core.LAYER}.self_attn.k_proj")
    except CheckpointNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.sim
@pytest.mark.parametrize("wrong", [False, True], ids=["as generated", "one bit wrong"])
def test_verdict(checkpoint, tmp_path, seed, wrong):
    config = core_preset("tiny")
    path = emit(AcceleratorCoreAxi(config), "core", tmp_path / "source", parameters={}, latency=None).path_v
    if wrong:
        text, count = RESULT.subn(r"\1\2 ^ 32'h00000001;", path.read_text(), count=1)
        assert count == 1, "the results' port was not found"
        path.write_text(text)
    options = {"preset": "tiny", "layers": ("self_attn.k_proj", "mlp.gate_proj"), "outputs": 11}
    options |= {"tokens": 5, "further": 3}
    section = core.run_core_section(tmp_path, seed, **options, verilog=path)
    assert write_report([section], seed, tmp_path) is not wrong
    report = json.loads((tmp_path / "report.json").read_text())
    first, second = report["sections"][0]["items"]
    assert first["compared"] == first["expected"] == second["compared"] == (5 + 8) * 11
    assert first["mismatches"] == second["mismatches"] == (13 * 11 if wrong else 0)
    assert first["useful_macs"] == 5 * 11 * 576
    assert first["max_rel_error"] < 1e-3
    assert 0 < first["busy"] < 1
    assert 0 < first["steady_busy"] < 1
    assert second["datatype"] == "FP3"
    assert set(report["verilog_sha256"]) == {"core"}


def test_the_demo_covers_a_whole_block_in_four_datatypes():
    assert len(core.BLOCK) == 7
    assert set(core.BLOCK.values()) == {Datatype.FP3, Datatype.FP4, Datatype.INT6, Datatype.INT8}

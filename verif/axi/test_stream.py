"""AXI4-Stream ports: flat names, register slices, and mistakes in a request."""

import numpy as np
import pytest

from gen.verilog import to_verilog
from hw.axi.lite import AxiLiteSubordinate
from hw.axi.registers import AxiLiteRegisters
from hw.axi.special_values import SpecialValueFile
from hw.axi.stream import AxiStreamPort
from hw.tops.core import AcceleratorCoreAxi
from sim.design import build_design
from sim.job import run_job
from spec.system import core_preset
from verif.axi.tops import Loopback


@pytest.mark.sim
def test_beats_pass_with_all_their_signals(rng, seed):
    widths = {"tdata": 32, "tkeep": 4, "tlast": 1, "tuser": 3, "tdest": 2}
    beats = {name: rng.integers(0, 1 << width, 1500) for name, width in widths.items()}
    bare = {"tdata": rng.integers(0, 256, 1500)}
    result = run_job(
        build_design(Loopback(), "loopback"),
        {"s_axis": beats, "s_axis_bare": bare},
        {"m_axis": 1500, "m_axis_bare": 1500},
        idle={"s_axis": 0.4, "s_axis_bare": 0.0},
        stall={"m_axis": 0.4, "m_axis_bare": 0.0},
        resets=[3, 50],
        seed=seed,
    )
    for name in widths:
        np.testing.assert_array_equal(result.outputs["m_axis"][name], beats[name])
    bare_out = result.outputs["m_axis_bare"]
    np.testing.assert_array_equal(bare_out["tdata"] if isinstance(bare_out, dict) else bare_out, bare["tdata"])
    assert result.output_cycles["m_axis_bare"][-1] <= 1500 + 4, "a beat per cycle"


def test_ports_have_the_names_that_tools_look_for():
    _, ports = to_verilog(AcceleratorCoreAxi(core_preset("tiny")), "top")
    found = {port["name"]: (port["direction"], port["width"]) for port in ports}
    assert found["aclk"] == found["aresetn"] == ("input", 1)
    for name, port in {
        "s_axis_weights_tdata": ("input", 128),
        "s_axis_weights_tready": ("output", 1),
        "s_axis_activations_tlast": ("input", 1),
        "m_axis_results_tdata": ("output", 32),
        "m_axis_results_tuser": ("output", 2),
        "m_axis_results_tkeep": ("output", 4),
        "m_axis_results_tready": ("input", 1),
        "s_axil_awaddr": ("input", 12),
        "s_axil_wstrb": ("input", 4),
        "s_axil_rresp": ("output", 2),
        "irq": ("output", 1),
    }.items():
        assert found[name] == port
    assert not {"clk", "rst"} & set(found)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("x", "a", 8), ValueError, "direction must be one of s, m, not 'x'"),
        (("s", "a", 12), ValueError, "data_bits must be at least 8 and a multiple of 8, not 12"),
        (("s", "a", 0), ValueError, "data_bits must be at least 8 and a multiple of 8, not 0"),
        (("s", "a", 8.0), TypeError, r"data_bits must be an int, not 8\.0"),
    ],
)
def test_impossible_streams_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        AxiStreamPort(*arguments)


def test_directions_are_kept():
    with pytest.raises(ValueError, match="m_axis_a sends beats"):
        AxiStreamPort("m", "a", 8).source(None, None)
    with pytest.raises(ValueError, match="s_axis receives beats"):
        AxiStreamPort("s", "", 8).sink(None, None)


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match=r"address_bits must be in 3\.\.32, not 33"):
        AxiLiteSubordinate(33)
    with pytest.raises(TypeError, match="address_bits must be an int, not True"):
        AxiLiteSubordinate(True)
    with pytest.raises(TypeError, match="registers must be a RegisterMap, not 'core'"):
        AxiLiteRegisters("core")
    with pytest.raises(ValueError, match=r"each of allowed must be in -16\.\.16, not 17"):
        SpecialValueFile([1, 17])
    with pytest.raises(TypeError, match="config must be a CoreConfig, not 3"):
        AcceleratorCoreAxi(3)

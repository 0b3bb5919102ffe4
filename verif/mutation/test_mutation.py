"""The tool on a toy: mutants that are killed, in each way, that are equivalent, and that its traffic cannot tell."""

import numpy as np
import pytest

from verif.mutation.campaign import Campaign
from verif.mutation.mutants import Mutant, draw
from verif.mutation.netlist import Netlist, flatten
from verif.mutation.traces import Ports, Trace

TOY = """
module toy(input aclk, input aresetn, input [7:0] s_axis_tdata, input s_axis_tvalid, output s_axis_tready,
           output [7:0] m_axis_tdata, output m_axis_tvalid, input m_axis_tready, output late);
  reg full;
  reg [7:0] data;
  reg [15:0] beats;
  assign s_axis_tready = ~full | m_axis_tready;
  assign m_axis_tvalid = full;
  assign m_axis_tdata = data;
  assign late = beats == 16'd40000;
  wire [7:0] sum = s_axis_tdata + 8'd3;
  // The sum itself, whatever the second operand of the or.
  wire [7:0] same = sum & (sum | ~s_axis_tdata);
  wire move = s_axis_tvalid & s_axis_tready;
  always @(posedge aclk)
    if (!aresetn) begin
      full <= 0;
      beats <= 0;
    end else begin
      if (s_axis_tready) full <= s_axis_tvalid;
      if (move) beats <= beats + 1;
      if (move) data <= same;
    end
endmodule
"""
WIDTHS = {"aclk": 1, "aresetn": 1, "s_axis_tdata": 8, "s_axis_tvalid": 1, "s_axis_tready": -1, "m_axis_tdata": -8,
          "m_axis_tvalid": -1, "m_axis_tready": 1, "late": -1}  # fmt: skip
PORTS = Ports(
    "toy",
    [
        {"name": name, "direction": "input" if width > 0 else "output", "width": abs(width)}
        for name, width in WIDTHS.items()
    ],
    "aclk",
    "aresetn",
)


def recorded(rng, cycles: int = 1500) -> Trace:
    """What a good toy does."""
    inputs, outputs = (np.zeros((cycles, PORTS.width[way]), np.uint8) for way in ("input", "output"))
    full, data, offer = 0, 0, None
    for t in range(cycles):
        reset = t < 3 or 700 <= t < 702
        if offer is None and rng.random() < 0.7:
            offer = int(rng.integers(256))
        ready = int(rng.random() < 0.7)
        values = {"aresetn": not reset, "s_axis_tdata": offer or 0, "s_axis_tvalid": offer is not None,
                  "m_axis_tready": ready, "s_axis_tready": not full or ready, "m_axis_tdata": data,
                  "m_axis_tvalid": full, "late": 0}  # fmt: skip
        for name, value in values.items():
            array = inputs if PORTS.place[name][0] == "input" else outputs
            column = PORTS.column(array, name)
            column[t] = [int(value) >> bit & 1 for bit in range(column.shape[1])]
        move = offer is not None and (not full or ready)
        full, data = (0, data) if reset else (int(offer is not None), data) if not full or ready else (full, data)
        if move:
            data, offer = (data if reset else offer + 3 & 255), offer if reset else None
    care = np.ones_like(outputs)
    care[:3] = care[700:702] = 0
    PORTS.column(care, "m_axis_tdata")[PORTS.column(outputs, "m_axis_tvalid")[:, 0] == 0] = 0
    return Trace("toy", inputs, outputs, care)


def cell_of(netlist: Netlist, output: str):
    """The cell that makes a signal."""
    (bit, *_) = netlist.sources(output)
    return next(c for c in netlist.cells.values() for port in c.outputs if bit in netlist.bits(c.ports[port]))


def mutant(netlist: Netlist, kind: str, output: str, port: str, bit: int = 0) -> Mutant:
    cell = cell_of(netlist, output)
    return Mutant(netlist.room(cell), cell.name, cell.kind, port, bit, kind)


@pytest.fixture(scope="module")
def netlist():
    return flatten(TOY, "toy")


def test_text_of_a_netlist_is_read_back(netlist):
    assert Netlist.parse(netlist.text()) == netlist
    assert netlist.bits("{ \\data [1:0] 3'01x \\move }") == [("\\move", 0), "x", "1", "0", ("\\data", 0), ("\\data", 1)]


def test_draw_follows_from_the_seed(netlist):
    assert draw(netlist, 50, 3) == draw(netlist, 50, 3) != draw(netlist, 50, 4)
    found = draw(netlist, 200, 1)
    assert len(set(found)) == len(found) > 100
    assert {"invert", "stuck0", "stuck1", "constant", "enable", "reset"} == {one.kind for one in found}


@pytest.mark.sim
def test_every_outcome(netlist, rng, tmp_path):
    path = tmp_path / "toy.bin"
    recorded(rng).write(path)
    either = next(c for c in netlist.cells.values() if c.kind == "$or" and len(netlist.bits(c.ports["\\Y"])) == 8)
    wanted = {
        mutant(netlist, "constant", "\\sum", "B", 1): "value",
        mutant(netlist, "invert", "\\sum", "A", 7): "value",
        mutant(netlist, "enable", "\\data", "EN"): "value",
        mutant(netlist, "stuck0", "\\full", "D"): "hang",
        mutant(netlist, "stuck0", "\\s_axis_tready", "A"): "slow",
        Mutant("", either.name, "$or", "B", 5, "stuck1"): "equivalent",
        mutant(netlist, "stuck0", "\\late", "A", 15): "survived",
        mutant(netlist, "invert", "\\late", "B", 14): "survived",
    }
    campaign = Campaign(TOY, PORTS, [path], tmp_path / "work")
    campaign.simulate(list(wanted), jobs=1)
    campaign.prove(list(wanted), seconds=20)
    assert {one: campaign.outcomes[one.id] for one in wanted} == wanted
    report = campaign.report(list(wanted))
    assert (report["total"], report["killed"], report["equivalent"], report["survived"]) == (8, 5, 1, 2)
    assert report["score"] == round(5 / 7, 4)
    assert {(one["port"], one["bit"]) for one in report["survivors"]} == {("A", 15), ("B", 14)}

    again = Campaign(TOY, PORTS, [path], tmp_path / "work")
    told = []
    again.simulate(list(wanted), 1, told.append)
    again.prove(list(wanted), 20, told.append)
    assert again.outcomes == campaign.outcomes
    assert not told, "what is known is not done again"


@pytest.mark.sim
def test_traffic_of_another_design_is_refused(rng, tmp_path):
    trace = recorded(rng)
    PORTS.column(trace.outputs, "m_axis_tdata")[400:] ^= 1
    path = tmp_path / "toy.bin"
    trace.write(path)
    campaign = Campaign(TOY, PORTS, [path], tmp_path / "work")
    with pytest.raises(RuntimeError, match="the design itself differs in cycle 4"):
        campaign.simulate(campaign.draw(3, 1), jobs=1)

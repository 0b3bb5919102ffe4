"""Every address of every AXI4-Lite window, through the ports of the whole top: what answers, what a write leaves."""

from functools import partial

import numpy as np
import pytest

from gen.cli import find_tops
from hosts.core import LITE
from sim.build import ROOT
from sim.design import build_design
from sim.job import Job, run_jobs
from spec.rlkv import rlkv_preset
from verif.axi.model import RegisterModel
from verif.axi.rdl import promises

TOPS = {
    "core": ("accelerator_core_axi", ["s_axis_weights", "s_axis_activations"], "m_axis_results"),
    "score_core": ("score_core_axi", ["s_axis_queries", "s_axis_packets"], "m_axis_scores"),
    "value_core": ("value_core_axi", ["s_axis_weights", "s_axis_packets"], "m_axis_results"),
    "address_generator": ("kv_address_generator_axi", ["s_axis_operations"], "m_axis_commands"),
}
WINDOW = range(0, 4096, 4)


def job(signals, output: str, inputs: dict, count: int, traffic: dict) -> Job:
    return Job(
        inputs=inputs,
        outputs={output: count},
        wires={name: LITE[name] for name in (*inputs, output)},
        signals=signals,
        reset=False,
        **traffic,
    )


def reads(signals, addresses, **traffic) -> Job:
    ask = np.array(addresses, np.uint64)
    inputs = {"s_axil_ar": {"s_axil_araddr": ask, "s_axil_arprot": np.zeros(len(ask), np.uint64)}}
    idle = {name: 0 for name in ("s_axil_awvalid", "s_axil_wvalid", "s_axil_bready")}
    return job(signals | idle, "s_axil_r", inputs, len(ask), traffic)


def writes(signals, rows, **traffic) -> Job:
    addresses, data, strobes = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    inputs = {
        "s_axil_aw": {"s_axil_awaddr": addresses, "s_axil_awprot": np.zeros(len(rows), np.uint64)},
        "s_axil_w": {"s_axil_wdata": data, "s_axil_wstrb": strobes},
    }
    idle = {name: 0 for name in ("s_axil_arvalid", "s_axil_rready")}
    return job(signals | idle, "s_axil_b", inputs, len(rows), traffic)


def driven(model: RegisterModel, address: int) -> int:
    """Bits of a word that the hardware makes, or counts."""
    if address not in model.words:
        return 0
    register, shift = model.words[address]
    if register["external"]:
        return 0xFFFFFFFF
    fields = [f for f in register["fields"] if f["readable"] and (f["driven"] or f["counter"] or f["sticky"])]
    return sum((1 << f["width"]) - 1 << f["low"] for f in fields) >> shift & 0xFFFFFFFF


@pytest.mark.sim
@pytest.mark.parametrize("name", TOPS)
def test_every_address(name, rng, seed):
    """Mapped words answer OKAY with what the map promises, all others SLVERR; a random write of random bytes to every
    address but those that start something leaves the map's model's state and nothing else."""
    module, streams, output = TOPS[name]
    (top,) = find_tops("tiny", ["core" if name == "core" else module])
    model = RegisterModel(promises(ROOT / "hw" / "tops" / f"{name}.rdl"))
    signals = {f"{stream}_tvalid": 0 for stream in streams} | {f"{output}_tready": 0}
    acting = {r["name"] for r, _ in model.of_kind("pulse")} | {r["name"] for r in model.registers if r["external"]}
    avoided = {address for address, (register, _) in model.words.items() if register["name"] in acting}
    askew = [int(a) for a in rng.integers(0, 4096, 64) if a % 4]
    targets = [int(a) for a in rng.permutation([a for a in WINDOW if a not in avoided])]
    # A high word is what it was when its low word was read, so low words come in order.
    ask = [*sorted(model.words), *(int(a) for a in rng.permutation(WINDOW) if a not in model.words), *askew]
    mapped = [a for a in model.words if a not in avoided]
    rounds = [[(a, int(rng.integers(1 << 32)), int(rng.integers(16))) for a in [*targets, *askew]]]
    rounds += [[(int(a), int(rng.integers(1 << 32)), 15) for a in rng.permutation(mapped)] for _ in range(6)]
    jobs, traffic = [reads(signals, ask)], {"idle": 0.3, "stall": 0.3}
    for rows in rounds:
        jobs += [writes(signals, rows, **traffic), reads(signals, ask if rows is rounds[0] else sorted(model.words))]
    first, *results = run_jobs(build_design(top.component(), module), jobs, seed=seed)
    check_reads(model, ask, first, first)
    for rows, written, after in zip(rounds, results[::2], results[1::2], strict=True):
        wanted = [model.write(*row)[0] for row in rows]
        assert written.outputs["s_axil_b"]["s_axil_bresp"].tolist() == wanted
        check_reads(model, ask, after, first)
    if name == "address_generator":
        check_build(model, partial(dict(zip(ask, first.outputs["s_axil_r"]["s_axil_rdata"], strict=True)).get))


def check_reads(model: RegisterModel, ask: list[int], result, first) -> None:
    """Data and response of the first words of ``ask``; what the hardware makes is as in the ``first`` reads."""
    got, before = (r.outputs["s_axil_r"] for r in (result, first))
    for number, address in enumerate(ask[: len(got["s_axil_rdata"])]):
        value, response = model.read(address)
        assert got["s_axil_rresp"][number] == response, f"{address:#x}"
        data, known = int(got["s_axil_rdata"][number]), 0xFFFFFFFF & ~driven(model, address)
        assert data & known == value & known, f"{address:#x}: {data:#x}, not {value:#x}"
        assert data & ~known == int(before["s_axil_rdata"][number]) & ~known, f"{address:#x} changed"


def check_build(model: RegisterModel, word) -> None:
    """What the BUILD registers say of the build."""
    config = rlkv_preset("tiny")
    seen = 0
    for register in model.registers:
        for field in register["fields"] if register["name"].startswith("build") else ():
            wanted = getattr(config, field["name"]) - (field["name"] == "layers")
            value = int(word(register["address"])) >> field["low"] & (1 << field["width"]) - 1
            assert value == wanted, f"{register['name']}.{field['name']}"
            seen += 1
    assert seen == 12

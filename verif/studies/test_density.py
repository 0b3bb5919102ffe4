"""Throughput density: how a tile is composed, what limits its rate, and when a ratio to a peer is given."""

import json
from dataclasses import fields, replace

import pytest

from gen.synth.liberty import generic_library
from gen.synth.run import SynthResult, VariantResult
from hw.prealigned.accumulator import RunningSums
from spec.datatypes import Datatype
from spec.prealigned import PrealignedConfig
from studies.density import density
from studies.density.command import density_markdown, load_libraries
from studies.density.density import PEERS, TILE, compose, macs_per_cycle
from verif.gen.test_liberty import library_or_skip

FAST = VariantResult("fast", 0.0, 200.0, 0, 0, (), 500.0, "OpenSTA", "", "", "")
SLOW = replace(FAST, variant="slow", gate_equivalents=100.0, delay_ps=1000.0)


def test_every_block_keeps_up_with_the_clock():
    edges = {name: [FAST, SLOW] for name in TILE}
    built = compose(edges | {"pe": [replace(FAST, gate_equivalents=150.0), SLOW]})
    assert built.delay_ps == 500.0
    assert set(built.variants.values()) == {"fast"}
    built = compose(edges | {"aligner": [SLOW], "pe": [replace(FAST, gate_equivalents=90.0)]})
    assert built.delay_ps == 1000.0
    assert (built.variants["decoder"], built.variants["pe"]) == ("slow", "fast")
    assert built.edge() == pytest.approx(100.0 * (1 + 8 * 6) / 64)
    assert built.edge(aligners=8) == pytest.approx(100.0 * (8 + 8 * 6) / 64)


def test_rate_is_bounded_by_drain_and_running_sums():
    config = PrealignedConfig()
    assert macs_per_cycle(config, Datatype.FP3, 128) == 16
    assert macs_per_cycle(config, Datatype.FP4, 128) == 8
    assert macs_per_cycle(config, Datatype.INT8, 128) == pytest.approx(16 / 3)
    assert macs_per_cycle(config, Datatype.FP3, 32) == 4  # two sets of tokens: a sum's groups are 16 cycles apart
    assert macs_per_cycle(config, Datatype.FP3, 128, token_sets=1) == 128 / RunningSums.interval


@pytest.mark.parametrize("key", ["library_hash", "recipe_hash", "delay_tool"])
def test_no_ratio_where_figures_do_not_compare(key):
    peer = json.loads(PEERS.read_text())[0]
    common = {name: peer["results"][0][name] for name in ("library_hash", "recipe_hash", "delay_tool")}
    ours = {"fp3": 2.0, "fp4": 1.0}
    theirs = peer["lanes"] / peer["steps"]["fp3"] / (5860 * 5998e-12)
    assert density._peer_ratio(ours, peer, common)["fp3"] == pytest.approx(2.0 / theirs)
    assert density._peer_ratio(ours, peer, common | {key: "other"}) is None


def test_peers_lack_datatypes():
    peer = json.loads(PEERS.read_text())[1]
    assert density._peer_ratio({"fp3": 1.0, "fp4": 1.0}, peer, peer["results"][0])["fp3"] is None


def test_files_are_grouped_by_library():
    sky, asap = library_or_skip("sky130hd"), library_or_skip("asap7")
    mixed = [asap.paths[0], *sky.paths, *asap.paths[1:]]
    assert {library.name: library.sha256 for library in load_libraries(mixed)} == {
        "asap7": asap.sha256,
        "sky130hd": sky.sha256,
    }
    assert [library.name for library in load_libraries([])] == ["generic"]


def test_report(tmp_path, monkeypatch):
    """One entry per preset and one for the bit-serial PE, from what synthesis says; no ratio to a peer otherwise."""

    def synthesize(text, top, library, **options):
        assert f"module {top}" in text
        values = dict.fromkeys((field.name for field in fields(SynthResult)), "")
        return SynthResult(**values | {"all_variants": (FAST,), "gate_equivalents": 300.0, "delay_ps": 900.0})

    config = PrealignedConfig(lanes=4, group_size=32, activation_bits=10)
    monkeypatch.setattr(density, "DATAPATHS", {"small": config})
    monkeypatch.setattr(density, "synthesize", synthesize)
    small, serial = density.report([generic_library()], tmp_path)
    assert (small["design"], serial["design"]) == ("small", density.BIT_SERIAL)
    assert small["ratio_to_bitmod_authors"] is small["ratio_to_bit_parallel"] is None
    total = 200.0 + 200.0 * (1 + 6 * 8) / 64
    assert small["density"]["fp4"] == pytest.approx(macs_per_cycle(config, Datatype.FP4, 32) / (total * 500e-12))
    assert serial["density"]["fp4"] == pytest.approx(2 / (300 * 900e-12))
    assert small["ratio_to_bitserial_pe"]["fp4"] == pytest.approx(small["density"]["fp4"] / serial["density"]["fp4"])
    assert "| `small` | generic |" in density_markdown([small, serial])

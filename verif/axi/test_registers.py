"""Register blocks against what their SystemRDL files promise."""

from pathlib import Path

import pytest

from hw.axi.definitions import load_map
from hw.axi.registers import AxiLiteRegisters
from sim.build import ROOT
from sim.design import build_design
from sim.runner import run
from verif.axi.rdl import promises
from verif.axi.tops import BehindAxiLite

FILES = {
    "core": ROOT / "hw" / "tops" / "core.rdl",
    "address_generator": ROOT / "hw" / "tops" / "address_generator.rdl",
    "score_core": ROOT / "hw" / "tops" / "score_core.rdl",
    "value_core": ROOT / "hw" / "tops" / "value_core.rdl",
    "toy": Path(__file__).with_name("toy.rdl"),
}


@pytest.mark.sim
@pytest.mark.parametrize("name", FILES)
def test_registers_keep_their_promises(name, seed):
    built = build_design(BehindAxiLite(AxiLiteRegisters(load_map(FILES[name]))), f"{name}_registers")
    options = {"registers": promises(FILES[name]), "accesses": 150}
    run(built, "verif.axi.tb_registers", options=options, seed=seed)

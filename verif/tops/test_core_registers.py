"""The core's registers: what a driver can do, and cannot."""

import pytest

from hw.tops.core_registers import CoreRegisters
from sim.design import build_design
from sim.runner import run
from spec.datatypes import Datatype
from verif.axi.tops import BUILD, BehindAxiLite, CoreBuild


@pytest.mark.sim
def test_jobs_errors_and_counters(seed):
    built = build_design(BehindAxiLite(CoreRegisters(BUILD)), "core_registers")
    run(built, "verif.tops.tb_core", seed=seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, r"rows must be in 1\.\.255, not 0"),
        ({"lanes": 256}, r"lanes must be in 1\.\.255, not 256"),
        ({"window": 256}, r"window must be in 0\.\.255, not 256"),
        ({"max_inputs": 65536}, r"max_inputs must be in 1\.\.65535, not 65536"),
        ({"datatypes": ()}, "datatypes must be some of .*, not none"),
        ({"group_sizes": (48,)}, "group_sizes must be some of 32, 64, 128, not 48"),
        ({"special_values": (17,)}, "special_values must be some of .*, not 17"),
        ({"rows": 255, "columns": 255}, r"rows \* columns \* lanes must be below 65536"),
    ],
)
def test_impossible_builds_are_named(changes, message):
    good = {"rows": 2, "columns": 2, "lanes": 4, "window": 16, "datatypes": (Datatype.FP4,)}
    good |= {"chunk": 128, "block_outputs": 16, "token_sets": 1, "special_values": (5,), "fp4_special_values": (5,)}
    CoreBuild(**good)
    with pytest.raises(ValueError, match=message):
        CoreBuild(**{**good, **changes})

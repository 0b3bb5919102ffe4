"""SpecialValueRegisters: every value into every register, refused ones without effect."""

import numpy as np
import pytest
from amaranth.lib import data

from hw.bitserial.special_values import SPECIAL_VALUES, Special, SpecialValueRegisters, SpecialWrite
from sim.design import build_design
from sim.layout import pack, unpack
from verif.bitserial.coverage import Coverage, cross
from verif.bitserial.player import play
from verif.bitserial.typed import SPECIALS, allowed_specials

DEFAULTS = SPECIALS["FP3"] + SPECIALS["FP4"]


@pytest.mark.sim
@pytest.mark.parametrize("signed", [False, True], ids=["sums", "sums and differences"])
def test_every_value_in_every_register(signed, rng, seed):
    """All 256 values x 8 registers in random order, with idle cycles and resets; the contents after every cycle."""
    allowed = allowed_specials(signed)
    index, value = (axis.ravel() for axis in np.meshgrid(range(SPECIAL_VALUES), range(-128, 128), indexing="ij"))
    everything = len(value)
    # Allowed values are few: as often again, so that refused ones meet every register's contents. Then idle and resets.
    again = rng.choice(np.flatnonzero(np.isin(value, allowed)), everything)
    order = rng.permutation(3 * everything)
    chosen = np.concatenate([np.arange(everything), again, rng.integers(0, everything, everything)])[order]
    index, value = index[chosen], value[chosen]
    rst = (order >= 2 * everything) & (rng.random(len(order)) < 0.05)
    valid = (order < 2 * everything) | (rst & (rng.random(len(order)) < 0.5))
    inputs = {
        "i__payload": pack(SpecialWrite, {"value": value, "index": index}),
        "i__valid": valid,
        "rst": rst,
    }
    built = build_design(SpecialValueRegisters(signed), "special_value_registers")
    got = play(built, inputs, ["i__ready", "refused", "o"], seed=seed)

    assert got["i__ready"].all()
    good = np.isin(value, allowed)
    np.testing.assert_array_equal(got["refused"].astype(bool), valid & ~good)
    contents = unpack(data.ArrayLayout(Special, SPECIAL_VALUES), got["o"])
    registers = list(DEFAULTS)
    coverage = Coverage(
        f"special-values-{'signed' if signed else 'sums'}",
        {
            "written": cross(range(SPECIAL_VALUES), allowed),
            "refused": cross(range(SPECIAL_VALUES), sorted(set(range(-128, 128)) - set(allowed))),
            "reset": (True,),
        },
    )
    for cycle in range(len(order)):
        shown = [
            int(contents[k]["magnitude"][cycle]) * (-1 if contents[k]["sign"][cycle] else 1)
            for k in range(SPECIAL_VALUES)
        ]
        assert shown == registers, f"cycle {cycle}"
        if rst[cycle]:
            registers = list(DEFAULTS)
            coverage.hit("reset", True)
        elif valid[cycle] and good[cycle]:
            registers[index[cycle]] = int(value[cycle])
        pair = (int(index[cycle]), int(value[cycle]))
        if not rst[cycle] and valid[cycle]:
            coverage.hit("written" if good[cycle] else "refused", pair)
    coverage.close()

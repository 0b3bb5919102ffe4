"""The exploration of the pre-aligned tile: what it varies, and that entries compare with the base of their library."""

import pytest

from gen.synth.liberty import generic_library
from spec.system import SYSTEMS
from studies.density import exploration
from studies.density.density import TILE, Built

BASE = SYSTEMS["dense"].core.datapath


def test_points_change_one_parameter_of_the_base():
    found = list(exploration.points())
    assert len({(parameter, value) for parameter, value, _ in found}) == len(found)
    by_parameter = {}
    for parameter, _value, config in found:
        by_parameter.setdefault(parameter, []).append(config)
    fields = {"digit set": "digits", "lanes": "lanes", "W": "activation_bits", "registers": "registers",
              "accumulator": "segment_bits"}  # fmt: skip
    assert set(by_parameter) == set(fields)
    for parameter, configs in by_parameter.items():
        assert configs.count(BASE) == 1
        for config in configs:
            changed = {name for name in fields.values() if getattr(config, name) != getattr(BASE, name)}
            # With other lanes the default registers follow.
            assert changed <= {fields[parameter]} | ({"registers"} if parameter == "lanes" else set())
    assert {config.digits.plane_bits for config in by_parameter["digit set"]} >= {2, 3, 4}


def test_density_is_relative_to_the_base(monkeypatch):
    def build(config, *_args, **_options):
        area = 100.0 if config == BASE else 200.0
        return Built(1000.0, dict.fromkeys(TILE, area), dict.fromkeys(TILE, "quick")), {}

    monkeypatch.setattr(exploration, "build", build)
    entries = exploration.exploration([generic_library()], None)
    base = [entry for entry in entries if entry["is_base"]]
    assert len(base) == len({entry["parameter"] for entry in entries}) == 5
    assert all(set(entry["density_to_base"].values()) == {1.0} for entry in base)
    (radix16,) = [entry for entry in entries if entry["value"] == "radix16-fp4"]
    # Twice the area; INT8 takes 2 steps instead of 3, FP4 1 instead of 2.
    assert radix16["density_to_base"] == pytest.approx({"fp3": 0.5, "fp4": 1.0, "int6": 0.5, "int8": 0.75})
    (wide,) = [entry for entry in entries if entry["parameter"] == "lanes" and entry["value"] == "32"]
    # Twice the area and twice the lanes, but running sums take a group every 8 cycles, where FP3 would need 4.
    assert wide["density_to_base"] == pytest.approx({"fp3": 0.5, "fp4": 1.0, "int6": 1.0, "int8": 1.0})
    lines = exploration.exploration_markdown(entries).splitlines()
    assert sum("(`dense`)" in line for line in lines) == 5
    assert len([line for line in lines if line.startswith("| ")]) == len(entries) + 1

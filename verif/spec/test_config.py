"""spec.config: presets, and every check with its message."""

import dataclasses

import pytest

from spec.config import PRESETS, ColumnConfig, preset


def test_presets():
    assert preset("paper") == ColumnConfig(pes=8, lanes=4, rounding="trunc", digit_bits=1, group_size=128)
    assert preset("tiny").pes == 2
    assert preset("paper", rounding="rne") == ColumnConfig(rounding="rne")
    for name in PRESETS:
        assert preset(name) is not None
    with pytest.raises(ValueError, match="preset must be one of paper, tiny, not 'papier'"):
        preset("papier")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("pes", 0, r"in 1\.\.8"),
        ("pes", 9, r"in 1\.\.8"),
        ("lanes", 3, "2, 4, 8"),
        ("rounding", "floor", "trunc, rne"),
        ("digit_bits", 3, "1, 2, 4, 8"),
        ("group_size", 48, "32, 64, 128"),
    ],
)
def test_values_that_are_not_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=f"{name} must be .*{allowed}.* not {value!r}"):
        ColumnConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("pes", 8.0), ("pes", True), ("lanes", "4"), ("rounding", 1), ("digit_bits", None), ("signed_special_terms", 1)],
)
def test_types_that_are_not_allowed(name, value):
    with pytest.raises(TypeError, match=f"{name} must be an? .*, not {value!r}"):
        ColumnConfig(**{name: value})


def test_columns_that_cannot_keep_up():
    """A group of one-term codes lasts group_size / lanes cycles; PEs share an accumulator, each rescales its groups."""
    with pytest.raises(ValueError, match=r"pes=8 allow one group per 11 cycles"):
        ColumnConfig(pes=8, lanes=8, group_size=32, digit_bits=2)
    with pytest.raises(ValueError, match=r"lasts 4 cycles at group_size=32, lanes=8, but digit_bits=1"):
        ColumnConfig(pes=4, lanes=8, group_size=32)
    assert ColumnConfig(pes=1, lanes=8, group_size=32, digit_bits=2).lanes == 8


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        preset("paper").lanes = 8

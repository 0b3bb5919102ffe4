"""spec.bitserial: every check with its message."""

import dataclasses

import pytest

from spec.bitserial import BitSerialConfig
from spec.datatypes import Datatype


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("lanes", 3, "2, 4, 8"),
        ("rounding", "floor", "trunc, rne"),
        ("accumulator_bits", 14, "15, 16, 17"),
        ("group_size", 48, "32, 64, 128"),
    ],
)
def test_values_that_are_not_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=f"{name} must be .*{allowed}.* not {value!r}"):
        BitSerialConfig(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("lanes", "4"), ("rounding", 1), ("signed_special_terms", 1)])
def test_types_that_are_not_allowed(name, value):
    with pytest.raises(TypeError, match=f"{name} must be an? .*, not {value!r}"):
        BitSerialConfig(**{name: value})


def test_datatypes():
    assert BitSerialConfig(datatypes=(Datatype.FP4,)).datatypes == (Datatype.FP4,)
    with pytest.raises((TypeError, ValueError), match="datatypes"):
        BitSerialConfig(datatypes=())


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BitSerialConfig().lanes = 8

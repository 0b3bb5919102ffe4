"""spec.datatypes against values typed a second time, from BitMoD's Table IV and the KV code definitions."""

import pytest

from spec.datatypes import WEIGHT_DATATYPES, Datatype, default_special_values, special_value_allowed

S = "special"
VALUES = {
    "INT8": [*range(128), *range(-128, 0)],
    "INT6": [*range(32), *range(-32, 0)],
    "INT5": [*range(16), *range(-16, 0)],
    "INT4": [0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1],
    "INT3": [0, 1, 2, 3, -4, -3, -2, -1],
    # In half-units: 0, .5, 1, 1.5, 2, 3, 4, 6, then the special value and the negatives.
    "FP4": [0, 1, 2, 3, 4, 6, 8, 12, S, -1, -2, -3, -4, -6, -8, -12],
    "FP3": [0, 1, 2, 4, S, -1, -2, -4],
    "TERNARY": [0, 1, None, -1],
    "BINARY": [-1, 1],
    "U2": [0, 1, 2, 3],
    "S2": [-3, -1, 1, 3],
}
FIELDS = {
    "INT8": 1,
    "INT6": 2,
    "INT5": 3,
    "INT4": 4,
    "INT3": 5,
    "FP4": 6,
    "FP3": 7,
    "TERNARY": 8,
    "BINARY": 9,
    "U2": 10,
    "S2": 11,
}
TERMS = {
    "INT8": 4,
    "INT6": 3,
    "INT5": 3,
    "INT4": 2,
    "INT3": 2,
    "FP4": 2,
    "FP3": 2,
    "TERNARY": 1,
    "BINARY": 1,
    "U2": 2,
    "S2": 2,
}


def test_fields_and_rates():
    assert {datatype.name: datatype.value for datatype in Datatype} == FIELDS
    assert {datatype.name: datatype.terms for datatype in Datatype} == TERMS
    assert [datatype.name for datatype in WEIGHT_DATATYPES] == ["INT8", "INT6", "INT5", "INT4", "INT3", "FP4", "FP3"]


@pytest.mark.parametrize("name", VALUES)
def test_value_of_every_code(name):
    datatype, values = Datatype[name], VALUES[name]
    assert 1 << datatype.bits == len(values)
    for special in (3, -6, 16):
        expected = [special if value == S else value for value in values]
        assert [datatype.value_of(code, special) for code in range(len(values))] == expected


def test_default_special_values():
    assert default_special_values() == {Datatype.FP3: (3, -3, 6, -6), Datatype.FP4: (10, -10, 16, -16)}
    assert all(special_value_allowed(value) for values in default_special_values().values() for value in values)


def test_special_values_that_the_terms_can_make():
    sums = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 16]
    differences = [7, 14, 15]  # 8 - 1, 16 - 2, 16 - 1
    allowed = sorted({*sums, *(-value for value in sums)})
    widened = sorted({*allowed, *differences, *(-value for value in differences)})
    assert [value for value in range(-40, 41) if special_value_allowed(value)] == allowed
    assert [value for value in range(-40, 41) if special_value_allowed(value, signed_terms=True)] == widened


@pytest.mark.parametrize(("name", "code"), [("INT8", 256), ("FP3", 8), ("BINARY", 2), ("FP4", -1)])
def test_code_out_of_range(name, code):
    with pytest.raises(ValueError, match=rf"code of {name} must be in 0\.\.\d+, not {code}"):
        Datatype[name].value_of(code)


@pytest.mark.parametrize("field", [0, 12, 13, 14, 15])
def test_reserved_fields(field):
    with pytest.raises(ValueError, match=str(field)):
        Datatype(field)

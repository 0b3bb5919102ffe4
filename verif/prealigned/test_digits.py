"""Digit sets: every code's digits add up to its value, in as few planes as documented."""

import pytest

from hw.prealigned.digits import allowed_specials, code_digits, derive_digit_set, steps
from spec.datatypes import Datatype
from spec.digits import DIGIT_SETS, DigitSet, digit_set
from spec.prealigned import PrealignedConfig

D = Datatype


@pytest.mark.parametrize("name", DIGIT_SETS)
@pytest.mark.parametrize("datatype", Datatype)
def test_digits_add_up(name, datatype):
    digits = digit_set(name)
    for special in datatype.special_values or (0,):
        assert not special or special in allowed_specials(datatype, digits)
        for code in range(1 << datatype.bits):
            found = code_digits(datatype, code, digits, special)
            assert all(abs(d) in (0, *digits.multiples) for d in found)
            assert len(found) == steps(datatype, digits)
            total = sum(d << digits.plane_bits * plane for plane, d in enumerate(found))
            assert total == (datatype.value_of(code, special) or 0)


@pytest.mark.parametrize(
    ("name", "expected"),  # FP3, FP4, INT4, INT6, INT8
    [
        ("radix4", (2, 3, 2, 3, 4)),
        ("radix4+", (2, 2, 2, 3, 4)),
        ("radix8+", (1, 2, 2, 2, 3)),
        ("radix8-fp4", (1, 1, 2, 2, 3)),
        ("radix16", (1, 2, 1, 2, 2)),
        ("radix16-fp4", (1, 1, 1, 2, 2)),
    ],
)
def test_steps(name, expected):
    assert tuple(steps(d, digit_set(name)) for d in (D.FP3, D.FP4, D.INT4, D.INT6, D.INT8)) == expected


def test_derived_sets():
    assert derive_digit_set({D.FP3: 1, D.FP4: 2, D.INT8: 3}) == digit_set("radix8+")
    assert derive_digit_set({D.FP4: 1, D.INT8: 3}) == digit_set("radix8-fp4")
    assert derive_digit_set({D.FP4: 2, D.INT8: 4}) == digit_set("radix4+")
    with pytest.raises(ValueError, match="INT8 must be at least 2"):
        derive_digit_set({D.INT8: 1})


@pytest.mark.parametrize("multiples", [(2, 1), (1,), (1, 2, 17), (1, 2, 2), [1, 2]])
def test_bad_multiples(multiples):
    with pytest.raises((TypeError, ValueError), match="multiples must"):
        DigitSet(multiples)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"lanes": 5}, ValueError),
        ({"activation_bits": 9}, ValueError),
        ({"lanes": "4"}, TypeError),
        ({"registers": (99,)}, ValueError),
    ],
)
def test_bad_configuration(change, error):
    with pytest.raises(error, match=next(iter(change))):
        PrealignedConfig(**change)

"""The models of decoder, PE and dequantizer, against exact arithmetic."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.bitserial.decoder import terms
from golden.bitserial.dot import dot_products, group_sums
from golden.bitserial.reference import reference, relative_error_bound
from golden.weights import QuantizedWeight
from spec.bitserial import ACCUMULATOR_BITS, ROUNDINGS
from spec.datatypes import Datatype, special_value_allowed
from verif.golden import weights_oracle as oracle
from verif.golden.weights_helpers import random_activations, random_weight
from verif.spec.test_datatypes import VALUES

SPECIALS = [value for value in range(-16, 17) if special_value_allowed(value, signed_terms=True)]


def possible_values(datatype: Datatype) -> list[int]:
    values = {value for value in VALUES[datatype.name] if isinstance(value, int)}
    return sorted(values | set(SPECIALS) if datatype in (Datatype.FP3, Datatype.FP4) else values)


@pytest.mark.parametrize("datatype", Datatype, ids=lambda d: d.name)
def test_terms_sum_to_the_value_and_fit_their_fields(datatype):
    values = possible_values(datatype)
    decoded = terms(datatype, torch.tensor(values))
    assert decoded.sign.shape == (datatype.terms, len(values))
    assert decoded.values().sum(0).tolist() == values
    assert set(decoded.man.unique().tolist()) <= {0, 1}
    assert decoded.x.min() >= 0
    assert decoded.x.max() <= 3
    for column, value in enumerate(values):
        ours = [int(term) for term in decoded.values()[:, column]]
        assert ours == [digit << bsig for digit, bsig in oracle.term_list(datatype.name, value)], value


def test_terms_refuse_other_values():
    for datatype, value in ((Datatype.FP4, 11), (Datatype.INT4, 8), (Datatype.TERNARY, 2), (Datatype.INT5, 33)):
        with pytest.raises(
            ValueError, match=rf"values must be sums of \d terms of {datatype.name}, which {value} is not"
        ):
            terms(datatype, torch.tensor([0, value]))


def test_gain_of_the_terms():
    """The factors M / S of the error bound: 3 for Booth digits, 9/7 for differences, 1 otherwise."""
    for datatype in Datatype:
        values = torch.tensor([value for value in possible_values(datatype) if value])
        gain = (terms(datatype, values).values().abs().sum(0) / values.abs()).max().item()
        limit = 3 if datatype.name.startswith("INT") else 9 / 7 if datatype in (Datatype.FP3, Datatype.FP4) else 1
        assert gain == pytest.approx(limit)


@pytest.mark.parametrize("accumulator_bits", ACCUMULATOR_BITS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_pe_and_row_against_unbounded_integers(rng, lanes, rounding, accumulator_bits):
    """A and X of every group, then the FP32 row, as docs/weights.md says, computed one lane at a time."""
    config = {"lanes": lanes, "rounding": rounding, "accumulator_bits": accumulator_bits}
    for group_size, length in ((32, 75), (64, 128), (128, 131)):
        specials = {Datatype.FP3: (3, -7, 15, -6), Datatype.FP4: (7, -10, 14, -16)}
        weight = random_weight(rng, 6, length, group_size, special_values=specials)
        activations = random_activations(rng, 2, length)
        mantissa, exponent = group_sums(weight, activations, **config)
        bits = dot_products(weight, activations, **config)
        values = weight.integers()
        for token, row in np.ndindex(2, 6):
            total = np.float32(0)
            for group in range(weight.groups):
                part = slice(group * group_size, min(length, (group + 1) * group_size))
                kind = Datatype(int(weight.datatype[row, group]))
                numbers, inputs = values[row, part].tolist(), activations[token, part].tolist()
                expected = oracle.pe_group(kind.name, numbers, inputs, **config)
                got = (int(mantissa[token, row, group]), int(exponent[token, row, group]))
                assert got == expected, (token, row, group, kind)
                exact, size = oracle.exact_group(numbers, inputs)
                error = abs(Fraction(got[0]) * Fraction(2) ** (got[1] - 28) - exact)
                assert error <= Fraction(relative_error_bound(kind, len(numbers), **config)) * size
                scaled = Fraction(got[0] * int(weight.scale8[row, group])) * Fraction(2) ** (got[1] - 28)
                assert Fraction(float(np.float32(float(scaled)))) == scaled  # G2 is exact
                total = np.float32(total + np.float32(float(scaled)))
            assert bits[token, row] == total.view(np.uint32)


@pytest.mark.parametrize("datatype", Datatype, ids=lambda d: d.name)
def test_rows_are_close_to_float64(rng, datatype):
    weight = random_weight(rng, 20, 576, 128, datatypes=[datatype])
    activations = torch.from_numpy(rng.standard_normal((5, 576)).astype(np.float16))
    result = dot_products(weight, activations).view(np.float32)
    exact, size = reference(weight, activations)
    assert np.abs(result - exact.numpy()).max() > 0 or datatype.name in ("BINARY", "TERNARY")
    assert (np.abs(result - exact.numpy()) <= 1e-3 * size.numpy()).all()


def one_group(datatype, values, **options) -> QuantizedWeight:
    table = VALUES[datatype.name]
    codes = torch.tensor([[table.index(value) for value in values]], dtype=torch.uint8)
    return QuantizedWeight.from_codes(datatype, codes, group_size=32, **options)


def as_float(bits: np.ndarray) -> float:
    return float(bits.view(np.float32)[0, 0])


def test_corners_worked_by_hand():
    half = torch.float16
    # Cancellation to +0, whatever the signs.
    weight = one_group(Datatype.INT4, [1, 1, -3, 0])
    assert dot_products(weight, torch.tensor([[-3.0, 6.0, 1.0, 9.0]], dtype=half))[0, 0] == 0
    # A zero weight beside the largest activation takes no part in the alignment: the 1 survives.
    weight = one_group(Datatype.INT4, [0, 1, 1, 1])
    assert as_float(dot_products(weight, torch.tensor([[60000.0, 1.0, 2**-24, 0.0]], dtype=half))) == 1.0
    # Subnormals are exact: 3 * 2^-24 * scale8 255.
    weight = one_group(Datatype.FP3, [1, 2], scale8=255)
    assert as_float(dot_products(weight, torch.tensor([[2**-24, 2**-24]], dtype=half))) == 3 * 255 * 2**-24
    # 4 * 65504 * 127 by Booth digits 128 - 1: 14 bits below 65504 * 2 ^ 1.
    weight = one_group(Datatype.INT8, [127, 127, 127, 127])
    assert as_float(dot_products(weight, torch.full((1, 4), 65504.0, dtype=half))) == pytest.approx(
        4 * 65504 * 127, rel=2**-13
    )


def test_rounding_modes_worked_by_hand():
    """1024 + 1025/2^12: p differ by 10 or more, so u = R(8 * 1025 / 2^10) = R(8.0078) and so on."""
    weight = one_group(Datatype.BINARY, [1, 1])
    for small, trunc, rne in ((1.75 * 2**-13, 1, 1 + 2**-12), (1.25 * 2**-13, 1, 1 + 2**-13), (2**-14, 1, 1)):
        activations = torch.tensor([[1.0, small]], dtype=torch.float16)
        expected = {"trunc": trunc if small < 2**-13 else 1 + 2**-13, "rne": rne}
        for rounding in ROUNDINGS:
            assert as_float(dot_products(weight, activations, rounding=rounding)) == expected[rounding], (
                small,
                rounding,
            )


def test_accumulator_widths_worked_by_hand():
    """In units of 2^-13: 2 + 2^-13 is 16385, which 15 bits cannot hold; 4 is 32768, and so takes 17 for one more."""
    weight = one_group(Datatype.BINARY, [1] * 8)
    low = 2**-13
    for head, fits in (([1.0, 1.0, low, 0.0], 16), ([1.0, 1.0, 1.0, 1.0, low], 17)):
        activations = torch.tensor([head + [0.0] * (8 - len(head))], dtype=torch.float16)
        for rounding, bits in itertools.product(ROUNDINGS, ACCUMULATOR_BITS):
            result = as_float(dot_products(weight, activations, rounding=rounding, accumulator_bits=bits))
            assert result == round(sum(head)) + (low if bits >= fits else 0), (head, rounding, bits)


@pytest.mark.parametrize("bits", ACCUMULATOR_BITS)
def test_carry_of_rounding_to_even(bits):
    """A sum of 2^bits - 1 units of 2^-13 halves to 2^(bits - 1) - 1/2, and the even neighbour has one bit too many."""
    unit, largest = 2**-13, 2047 / 1024  # the largest significand is 16376 units at exponent 15
    beats = {
        15: [[largest] * 2 + [15 * unit]],
        16: [[largest] * 4 + [31 * unit]],
        17: [[largest] * 4 + [31 * unit], [largest] * 4 + [32 * unit]],
    }[bits]
    row = [a for beat in beats for a in beat + [0.0] * (8 - len(beat))]
    assert sum(row) == (2**bits - 1) * unit
    weight = one_group(Datatype.BINARY, [1] * len(row))
    activations = torch.tensor([row], dtype=torch.float16)
    for rounding, expected in (("rne", (1 << bits - 2, 17)), ("trunc", ((1 << bits - 1) - 1, 16))):
        sums = group_sums(weight, activations, lanes=8, rounding=rounding, accumulator_bits=bits)
        assert tuple(int(part) for part in sums) == expected

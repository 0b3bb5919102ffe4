"""The pre-aligned models against exact rationals: equations A, P3, Q and the bound of docs/prealigned.md."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.bitserial.dot import MARKED_BITS
from golden.prealigned import (
    align,
    deviation_bound,
    dot_products,
    group_deviation,
    group_sums,
    group_values,
    running_sums,
)
from golden.weights import QuantizedWeight, quantize
from spec.datatypes import Datatype
from spec.prealigned import ACTIVATION_BITS
from verif.golden.weights_helpers import random_activations, random_weight, real_layer
from verif.prealigned import reference as oracle

LENGTH, GROUP = 70, 32  # the last group has 6


def halves(activations: torch.Tensor) -> list[list[int]]:
    return (activations.contiguous().view(torch.int16).int() & 0xFFFF).tolist()


def from_halves(*patterns: int) -> torch.Tensor:
    return torch.from_numpy(np.array([patterns], np.uint16).view(np.float16))


def groups(row: list) -> list[list]:
    return [row[first : first + GROUP] for first in range(0, len(row), GROUP)]


@pytest.mark.parametrize("bits", ACTIVATION_BITS)
def test_aligner(rng, bits):
    """Every field of wide, subnormal, zero and non-finite groups."""
    activations = random_activations(rng, 12, LENGTH)
    activations[3, 5], activations[4, 40], activations[5, 69] = float("inf"), float("nan"), float("-inf")
    activations[6] = 0
    activations[7, :GROUP] = float("inf")
    found = align(activations, group_size=GROUP, activation_bits=bits)
    for token, row in enumerate(halves(activations)):
        for group, part in enumerate(groups(row)):
            exponent, poison, integers = oracle.align(part, bits)
            assert found.exponent[token, group] == exponent
            assert found.poison[token, group] == poison
            assert found.integers[token, GROUP * group : GROUP * group + len(part)].tolist() == integers
    assert found.poison.sum() == 4


@pytest.mark.parametrize(
    ("bits", "patterns", "exponent", "integers"),
    [
        # 1.0 has m = 1024, e = 15; with W = 12 exact, and ties of its neighbours' half units go to even.
        (12, (0x3C00, 0x3801, 0x3803, 0xB803), 15, [1024, 512, 514, -514]),
        # 2047/1024: W = 11 rounds 1023.5 to 1024 and clamps to 1023; W = 10 rounds 511.75 and clamps to 511.
        (11, (0x3FFF, 0xBFFF, 0x3FFE), 15, [1023, -1023, 1023]),
        (10, (0x3FFF, 0x3FFA, 0xBFF9), 15, [511, 510, -510]),
        # W = 24 sees 12 bits below the largest exponent's unit: e = 15 over e = 1 leaves 2^-2 of a subnormal.
        (24, (0x3C00, 0x0003, 0x0002, 0x0006, 0x8000), 15, [1024 << 12, 1, 0, 2, 0]),
        # Subnormals alone: E = 1, exact from W = 12 on.
        (12, (0x0001, 0x83FF), 1, [1, -1023]),
        (16, (0x0001, 0x83FF), 1, [16, -16368]),
        (10, (0x0002, 0x0006, 0x83FF), 1, [0, 2, -256]),
        (16, (0x0000, 0x8000), 1, [0, 0]),
        # The largest finite one beside an Inf, which takes no part.
        (16, (0x7C00, 0x7BFF, 0xFBFF), 30, [0, 32752, -32752]),
    ],
)
def test_aligner_worked_by_hand(bits, patterns, exponent, integers):
    found = align(from_halves(*patterns), group_size=32, activation_bits=bits)
    assert (found.exponent.item(), found.integers[0].tolist()) == (exponent, integers)
    assert found.values()[0].tolist() == [q * 2.0 ** (exponent - 13 - bits) for q in integers]


@pytest.mark.parametrize("bits", [10, 16, 24])
def test_results(rng, bits):
    """Sums, scaled sums and running sums of every datatype, in rationals; the largest products among them."""
    weight, activations = random_weight(rng, 7, LENGTH, GROUP), random_activations(rng, 5, LENGTH)
    activations[0] = -65504
    aligned = align(activations, group_size=GROUP, activation_bits=bits)
    sums, values = group_sums(weight, aligned), group_values(weight, aligned)
    results = dot_products(weight, activations, activation_bits=bits)
    v = weight.integers().tolist()
    for token, row in enumerate(halves(activations)):
        for out in range(7):
            total = Fraction(0)
            for group, (part, numbers) in enumerate(zip(groups(row), groups(v[out]), strict=True)):
                exponent, _poison, integers = oracle.align(part, bits)
                exact = sum(a * b for a, b in zip(integers, numbers, strict=True))
                assert sums[token, out, group] == exact
                scaled = exact * int(weight.scale8[out, group]) * Fraction(2) ** (exponent - 13 - bits)
                rounded = oracle.fp32(scaled)
                assert values[token, out, group].view(torch.int32) & 0xFFFFFFFF == rounded
                total = oracle.fp32_value(oracle.fp32(total + oracle.fp32_value(rounded)))
            assert results[token, out] == oracle.fp32(total)


def test_extreme_sums():
    """128 x INT8's -128 times the largest q of W = 24, scaled by 255: exact until the one rounding."""
    codes = torch.full((1, 128), 0x80, dtype=torch.uint8)
    weight = QuantizedWeight.from_codes(Datatype.INT8, codes, scale8=255)
    activations = torch.full((1, 128), 65504.0).half()
    aligned = align(activations, activation_bits=24)
    q = 2047 << 12
    assert group_sums(weight, aligned).item() == -128 * 128 * q
    assert group_values(weight, aligned).item() == -128 * 128 * 255 * 65504.0


def test_cancellation_gives_plus_zero():
    weight = QuantizedWeight.from_codes(
        Datatype.INT4, torch.tensor([[1] * 32 + [15] * 32], dtype=torch.uint8), group_size=32
    )
    activations = torch.full((1, 64), -0.3).half()
    assert dot_products(weight, activations).tolist() == [[0]]
    assert dot_products(weight, -0 * activations).tolist() == [[0]]


def test_running_sums_go_on(rng):
    """Any cut into chunks of groups gives the same bits."""
    values = torch.from_numpy(rng.standard_normal((3, 4, 9)).astype(np.float32))
    whole = running_sums(values)
    for cut in range(10):
        assert torch.equal(running_sums(values[:, :, cut:], running_sums(values[:, :, :cut])), whole)


def test_marks(rng):
    weight = random_weight(rng, 3, LENGTH, GROUP)
    weight.scale8[:] = 0
    activations = torch.zeros(4, LENGTH, dtype=torch.float16)
    activations[1, 69], activations[2, 0], activations[3, 40] = float("inf"), float("nan"), float("-inf")
    assert dot_products(weight, activations).tolist() == [[0] * 3] + [[MARKED_BITS] * 3] * 3


def exact_bound(weight, row, out, group, bits):
    """2^-(W-1) * max|a| * sum|v| of one group, and the exact sum of products, in rationals."""
    part = slice(GROUP * group, GROUP * group + GROUP)
    v = weight.integers()[out, part].tolist()
    a = [Fraction(x) for x in row[part].tolist()]
    bound = Fraction(2) ** (1 - bits) * max(map(abs, a)) * sum(map(abs, v))
    return bound, sum(x * y for x, y in zip(a, v, strict=True)), sum(map(abs, v))


@pytest.mark.parametrize("bits", ACTIVATION_BITS)
def test_bound_in_rationals(rng, bits):
    """On every group: wide exponents, outliers, subnormals; the vectorised bound and deviation agree."""
    weight, activations = random_weight(rng, 4, LENGTH, GROUP), random_activations(rng, 8, LENGTH)
    activations[6:] = torch.from_numpy(rng.integers(0, 1024, (2, LENGTH)).astype(np.uint16).view(np.float16))
    aligned = align(activations, group_size=GROUP, activation_bits=bits)
    sums = group_sums(weight, aligned)
    deviation, size = group_deviation(weight, activations, aligned)
    bounds = deviation_bound(weight, activations, aligned)
    for token, out, group in np.ndindex(*sums.shape):
        bound, exact, total = exact_bound(weight, activations[token], out, group, bits)
        subnormal = activations[token, GROUP * group : GROUP * group + GROUP].abs().max() < 2.0**-14
        if subnormal and bits < 12:
            bound = Fraction(2) ** (-13 - bits) * total
        unit = Fraction(2) ** (int(aligned.exponent[token, group]) - 13 - bits)
        error = int(sums[token, out, group]) * unit - exact
        assert abs(error) <= bound
        assert (error, bound) == (
            Fraction(deviation[token, out, group].item()),
            Fraction(bounds[token, out, group].item()),
        )
    assert bool((size >= 0).all())


@pytest.mark.parametrize("bits", [10, 11])
def test_bound_does_not_hold_for_subnormals_alone(bits):
    """The exception that the document states is one."""
    weight = QuantizedWeight.from_codes(Datatype.INT4, torch.ones(1, 32, dtype=torch.uint8), group_size=32)
    activations = from_halves(*[1] * 32)
    aligned = align(activations, group_size=32, activation_bits=bits)
    deviation, _ = group_deviation(weight, activations, aligned)
    assert deviation.abs().item() > 2.0 ** (1 - bits) * 2.0**-24 * 32
    assert deviation.abs().item() <= deviation_bound(weight, activations, aligned).item()


@pytest.mark.parametrize("datatype", [Datatype.FP3, Datatype.FP4, Datatype.INT8], ids=lambda d: d.name)
def test_bound_on_real_weights(rng, datatype):
    weight = quantize(real_layer("model.layers.0.self_attn.q_proj"), datatype)
    activations = random_activations(rng, 16, weight.shape[1])
    for bits in ACTIVATION_BITS:
        aligned = align(activations, activation_bits=bits)
        deviation, _ = group_deviation(weight, activations, aligned)
        assert bool((deviation.abs() <= deviation_bound(weight, activations, aligned)).all())
        # The sums that the hardware makes are those of the aligned activations.
        unit = aligned.unit[:, None]
        exact = group_deviation(weight, torch.zeros_like(activations), aligned)[0]
        assert torch.equal(group_sums(weight, aligned) * unit, exact)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"activation_bits": 25}, ValueError, r"activation_bits must be in 10\.\.24, not 25"),
        ({"activation_bits": 16.0}, TypeError, "activation_bits must be an int, not 16.0"),
        ({"group_size": 48}, ValueError, "group_size must be one of"),
        ({"activations": torch.zeros(2, 3)}, TypeError, "activations must be a torch.float16 tensor"),
        ({"activations": torch.zeros(0, 3).half()}, ValueError, "activations must be a non-empty"),
    ],
)
def test_refused(change, error, message):
    with pytest.raises(error, match=message):
        align(**{"activations": torch.zeros(2, 3).half(), **change})


def test_refused_pair(rng):
    weight = random_weight(rng, 2, 64, 32)
    for length, size in ((64, 64), (63, 32)):
        with pytest.raises(ValueError, match=r"activations must be \[tokens, 64\] in groups of 32"):
            group_sums(weight, align(torch.zeros(1, length).half(), group_size=size))

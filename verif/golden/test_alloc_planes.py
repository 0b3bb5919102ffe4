"""Codes and rows of the plane format: hand-worked vectors, exact arithmetic, every width, bad input."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from golden.alloc.planes import DISTORTION, MOST_BITS, STEPS, codes, pack_rows, row_bytes, unpack_rows, values

VECTORS = json.loads((Path(__file__).parent / "plane_rows.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_hand_worked_rows(vector):
    widths, steps = torch.tensor(vector["widths"]), torch.tensor(vector["steps"], dtype=torch.float64)
    code = codes(torch.tensor(vector["z"], dtype=torch.float64), widths, steps)
    assert code.tolist() == vector["codes"]
    rows = pack_rows(code.numpy(), np.array(vector["widths"]))
    assert [row.tobytes().hex() for row in rows] == vector["rows"]
    assert unpack_rows(rows, np.array(vector["widths"])).tolist() == vector["codes"]
    assert values(code, widths, steps).tolist() == vector["values"]


def test_codes_and_values_in_exact_arithmetic(rng):
    """K1 to K3 in rationals: floor and clamp of the quotient, and the same value as a sum of signs."""
    for _ in range(400):
        width = int(rng.integers(0, MOST_BITS + 1))
        step = float(np.float32(np.exp2(rng.integers(-20, 5)) * (1 + rng.random())))  # as plans hold them
        z = float(rng.normal() * step * 2.0 ** rng.integers(-3, 6))
        code = codes(
            torch.tensor([z], dtype=torch.float64), torch.tensor([width]), torch.tensor([step], dtype=torch.float64)
        )
        # The quotient's own rounding may carry it over an integer's edge, nowhere else.
        quotient = Fraction(z / step)
        half = 1 << width - 1 if width else 0
        expected = min(max(math.floor(quotient) + half, 0), (1 << width) - 1)
        assert int(code) == expected
        value = float(values(code, torch.tensor([width]), torch.tensor([step], dtype=torch.float64)))
        signs = sum((2 * (expected >> j & 1) - 1) << j for j in range(width))
        assert Fraction(value) == Fraction(signs) * Fraction(step) / 2


def test_steps_are_those_of_least_squared_error(rng):
    """On a million normal numbers each width has the distortion it is allotted by, and no other step does better."""
    z = torch.from_numpy(rng.standard_normal(1 << 20))
    for width in range(1, MOST_BITS + 1):
        wide = torch.tensor(width)

        def distortion(step, wide=wide):
            step = torch.tensor(step, dtype=torch.float64)
            return float((values(codes(z, wide, step), wide, step) - z).square().mean())

        own = distortion(STEPS[width])
        # Five standard errors of a mean of squares below 4 z^2.
        assert abs(own - DISTORTION[width]) < 5 * 8 / math.sqrt(len(z)) * DISTORTION[width]
        assert own < min(distortion(STEPS[width] * 0.9), distortion(STEPS[width] * 1.1))


@pytest.mark.parametrize("head_dim", [8, 64, 80, 96, 128])
def test_rows_of_every_width_come_back(rng, head_dim):
    for widths in (rng.integers(0, MOST_BITS + 1, head_dim), np.zeros(head_dim, int), np.full(head_dim, MOST_BITS)):
        code = rng.integers(0, 1 << widths, (17, head_dim)).astype(np.uint8)
        rows = pack_rows(code, widths)
        assert rows.shape == (17, -(-widths.sum() // 8)) == (17, row_bytes(widths))
        assert np.array_equal(unpack_rows(rows, widths), code)


def test_numbers_at_the_ends():
    infinite = torch.tensor([[float("inf"), -float("inf"), 1e300, -1e300]], dtype=torch.float64)
    for width in range(MOST_BITS + 1):
        top = (1 << width) - 1
        assert codes(infinite, torch.tensor(width), torch.tensor(0.5).double()).tolist() == [[top, 0, top, 0]]
    # A constant channel has no step: codes of either sign, and the value 0.
    constant = codes(torch.tensor([0.0, -1.0, 2.0]).double(), torch.tensor(2), torch.tensor(0.0).double())
    assert constant.tolist() == [3, 0, 3]
    assert values(constant, torch.tensor(2), torch.tensor(0.0).double()).tolist() == [0, 0, 0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="holds NaN"):
        codes(torch.tensor([float("nan")]), torch.tensor([1]), torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"code of token 1, channel 2 must be below 2\^1, not 2"):
        pack_rows(np.array([[0, 0, 1], [0, 0, 2]], np.uint8), np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"each width must be in 0\.\.4, not 5"):
        pack_rows(np.zeros((1, 2), np.uint8), np.array([5, 1]))
    with pytest.raises(ValueError, match=r"rows must be \[tokens, 1\] bytes for 3 bits, not \[2, 2\]"):
        unpack_rows(np.zeros((2, 2), np.uint8), np.array([1, 2]))
    with pytest.raises(ValueError, match="row 1 has bits set behind its last channel"):
        unpack_rows(np.array([[7], [8]], np.uint8), np.array([1, 2]))

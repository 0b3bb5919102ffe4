"""BitSerialDequantizer alone: exact products, latency, and groups at the shortest distance."""

import numpy as np
import pytest

from hw.bitserial.dequantizer import BitSerialDequantizer, ScaledSum
from hw.bitserial.pe import PartialSum
from sim.design import build_design
from sim.layout import pack, unpack
from verif.bitserial.player import play


@pytest.mark.sim
@pytest.mark.parametrize(("digit_bits", "accumulator_bits"), [(1, 15), (2, 16), (4, 17), (8, 15)])
def test_products_are_exact(digit_bits, accumulator_bits, rng, seed):
    """All 256 scaling factors with extreme and random mantissas, a pending carry or not; noise while nothing is due."""
    cycles = 8 // digit_bits
    low, high = -(1 << accumulator_bits - 1), (1 << accumulator_bits - 1) - 1
    scale8 = np.concatenate([np.tile(np.arange(256), 4), rng.integers(0, 256, 500)])
    scale8 = rng.permutation(scale8)
    count = len(scale8)
    mantissa = rng.choice([low, high, 0, 1, -1, *rng.integers(low, high + 1, 20)], count)
    # The carry is the rounding toward zero of a negative mantissa.
    carry = (mantissa < 0) & (rng.random(count) < 0.5)
    exponent = rng.integers(0, 64, count)
    start = np.cumsum(cycles + rng.geometric(0.7, count) - 1)
    rows = start[-1] + cycles + 4

    def spread(values, noise):
        noise[start] = values
        return noise

    valid = np.zeros(rows, bool)
    valid[start] = True
    fields = {
        "mantissa": spread(mantissa, rng.integers(low, high + 1, rows)),
        "carry": spread(carry.astype(int), rng.integers(0, 2, rows)),
        "exponent": spread(exponent, rng.integers(0, 64, rows)),
    }
    inputs = {
        "i": pack(PartialSum(accumulator_bits), fields),
        "scale": spread(scale8, rng.integers(0, 256, rows)),
        "i_valid": valid,
    }
    built = build_design(BitSerialDequantizer(digit_bits, accumulator_bits), "bit_serial_dequantizer")
    got = play(built, inputs, ["o", "o_valid"], seed=seed)
    due = np.zeros(rows, bool)
    due[start + cycles] = True
    np.testing.assert_array_equal(got["o_valid"].astype(bool), due)
    out = unpack(ScaledSum(accumulator_bits), got["o"][due])
    np.testing.assert_array_equal(out["mantissa"], (mantissa + carry) * scale8)
    np.testing.assert_array_equal(out["exponent"], exponent)
    assert (np.diff(start) == cycles).sum() > 100

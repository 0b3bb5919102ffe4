"""The column model: which results are marked, what is refused, and that it computes as configured."""

import itertools

import numpy as np
import pytest
import torch

from golden.bitserial.column import MARKED_BITS, column_model, dot_products, steps_per_row
from golden.weights import QuantizedWeight, row_packets
from spec.config import ACCUMULATOR_BITS, ROUNDINGS
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from spec.errors import WeightError
from verif.golden.weights_helpers import random_activations, random_weight


def test_poison(rng):
    weight = random_weight(rng, 3, 40, 32)
    activations = torch.zeros(4, 40, dtype=torch.float16)
    activations[1, 39], activations[2, 0], activations[3, 7] = float("inf"), float("nan"), float("-inf")
    bits = dot_products(weight, activations)
    assert (bits[0] == 0).all()
    assert (bits[1:] == MARKED_BITS).all()


def test_column_marks_only_the_pe_with_the_bad_packet(rng):
    weight = random_weight(rng, 4, 75, 32)
    packets = row_packets(weight)
    packets[2] = packets[2] ^ np.uint64(1 << 20)
    activations = random_activations(rng, 76)
    result = column_model(packets, activations)
    expected = dot_products(weight, activations[None, :75])[0]
    assert result.marked.tolist() == [False, False, True, False]
    assert result.bits.tolist() == [*expected[:2].tolist(), MARKED_BITS, int(expected[3])]
    assert WeightError.PARITY in result.flags[2]
    assert result.flags[0] == 0


def test_column_is_configured_as_asked(rng):
    weight = random_weight(rng, 8, 256, 64, WEIGHT_DATATYPES)
    activations = torch.from_numpy(rng.standard_normal(256).astype(np.float16))
    results = set()
    for lanes, rounding, bits in itertools.product((2, 8), ROUNDINGS, ACCUMULATOR_BITS):
        config = {"lanes": lanes, "rounding": rounding, "accumulator_bits": bits}
        column = column_model(row_packets(weight, lanes=lanes), activations, **config)
        assert np.array_equal(column.bits, dot_products(weight, activations[None], **config)[0])
        results.add(column.bits.tobytes())
    assert len(results) == 12


def test_column_activation_errors(rng):
    packets = row_packets(random_weight(rng, 2, 75, 32))
    activations = torch.ones(76, dtype=torch.float16)
    for wrong in (activations[:72], torch.ones(80, dtype=torch.float16)):
        assert column_model(packets, wrong).flags == (WeightError.ACTIVATION_LENGTH,) * 2
    activations[75] = float("nan")  # a lane past the row's length
    assert not column_model(packets, activations).marked.any()
    activations[74] = float("inf")
    assert column_model(packets, activations).flags == (WeightError.NON_FINITE,) * 2
    assert (column_model(packets, activations).bits == MARKED_BITS).all()


def test_column_uses_the_registers():
    special = {Datatype.FP3: (5, -3, 6, -6)}
    packets = row_packets(QuantizedWeight.from_codes(Datatype.FP3, torch.full((1, 1), 4, dtype=torch.uint8)))
    for registers, expected in ((None, 3.0), (special, 5.0)):
        result = column_model(packets, torch.ones(4, dtype=torch.float16), special_values=registers)
        assert result.bits.view(np.float32).tolist() == [expected]


def test_steps_per_row():
    codes = torch.zeros(2, 70, dtype=torch.uint8)
    datatype = torch.tensor([[1, 6, 3], [8, 9, 5]], dtype=torch.uint8)  # INT8 FP4 INT5, TERNARY BINARY INT3
    weight = QuantizedWeight.from_codes(datatype, codes, group_size=32)
    assert steps_per_row(weight).tolist() == [8 * 4 + 8 * 2 + 2 * 3, 8 + 8 + 2 * 2]
    assert steps_per_row(weight, lanes=8).tolist() == [4 * 4 + 4 * 2 + 1 * 3, 4 + 4 + 1 * 2]


def test_result_does_not_depend_on_the_chunks(rng, monkeypatch):
    weight, activations = random_weight(rng, 9, 200, 64), random_activations(rng, 2, 200)
    whole = dot_products(weight, activations)
    monkeypatch.setattr("golden.bitserial.column._CHUNK", 100)
    assert np.array_equal(dot_products(weight, activations), whole)


def test_bad_parameters(rng):
    weight = random_weight(rng, 2, 40, 32)
    activations = torch.ones(1, 40, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"rounding must be one of trunc, rne, not 'floor'"):
        dot_products(weight, activations, rounding="floor")
    with pytest.raises(ValueError, match=r"accumulator_bits must be one of 15, 16, 17, not 14"):
        dot_products(weight, activations, accumulator_bits=14)
    with pytest.raises(ValueError, match=r"lanes must be one of 2, 4, 8, not 5"):
        dot_products(weight, activations, lanes=5)
    with pytest.raises(ValueError, match=r"activations must have shape \[tokens, 40\]"):
        dot_products(weight, activations[:, :39])
    with pytest.raises(TypeError, match=r"activations must be a torch\.float16 tensor, not torch\.float32"):
        dot_products(weight, activations.float())
    with pytest.raises(ValueError, match="activations must be a vector of whole beats of 4 lanes"):
        column_model(row_packets(weight), activations[0, :39])

"""Bit-serial dot products: which results are marked, what is refused, and that they are computed as configured."""

import itertools

import numpy as np
import pytest
import torch

from golden.bitserial.dot import MARKED_BITS, dot_products
from spec.bitserial import ACCUMULATOR_BITS, ROUNDINGS
from spec.datatypes import WEIGHT_DATATYPES
from verif.golden.weights_helpers import random_activations, random_weight


def test_poison(rng):
    weight = random_weight(rng, 3, 40, 32)
    activations = torch.zeros(4, 40, dtype=torch.float16)
    activations[1, 39], activations[2, 0], activations[3, 7] = float("inf"), float("nan"), float("-inf")
    bits = dot_products(weight, activations)
    assert (bits[0] == 0).all()
    assert (bits[1:] == MARKED_BITS).all()


def test_every_configuration_counts(rng):
    """Twelve builds of the PE give twelve different results: no option is ignored."""
    weight = random_weight(rng, 8, 256, 64, WEIGHT_DATATYPES)
    activations = torch.from_numpy(rng.standard_normal((1, 256)).astype(np.float16))
    builds = itertools.product((2, 8), ROUNDINGS, ACCUMULATOR_BITS)
    results = {
        dot_products(weight, activations, lanes=lanes, rounding=rounding, accumulator_bits=bits).tobytes()
        for lanes, rounding, bits in builds
    }
    assert len(results) == 12


def test_result_does_not_depend_on_the_chunks(rng, monkeypatch):
    weight, activations = random_weight(rng, 9, 200, 64), random_activations(rng, 2, 200)
    whole = dot_products(weight, activations)
    monkeypatch.setattr("golden.bitserial.dot._CHUNK", 100)
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

"""The quantizer against an element-by-element transcription of its definition."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.weights import QuantizedWeight, quantize
from golden.weights.loss import quantization_loss
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from verif.golden import weights_oracle as oracle
from verif.golden.weights_helpers import random_weight, real_layer

REAL_LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.15.mlp.down_proj", "model.layers.29.mlp.gate_proj")


def assert_agrees(weight: np.ndarray, datatype: Datatype, group_size: int, special=None):
    registers = {datatype: special} if special else None
    quantized = quantize(
        torch.from_numpy(weight), datatype, group_size=group_size, special_values=registers, signed_special_terms=True
    )
    for row in range(weight.shape[0]):
        values, selects, scale8, scale = oracle.quantize_row(weight[row], datatype.name, group_size, special)
        assert quantized.integers()[row].tolist() == values, (datatype, row)
        assert quantized.select[row].tolist() == selects, (datatype, row)
        assert quantized.scale8[row].tolist() == scale8, (datatype, row)
        assert quantized.channel_scale[row].item() == float(scale), (datatype, row)
    assert bool((quantized.datatype == int(datatype)).all())


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_random_weights(rng, datatype, group_size):
    normal = rng.standard_normal((2, 2 * group_size + 17)) * 0.02
    heavy = rng.standard_t(1.5, (2, group_size + 3))
    for weight in (normal, heavy):
        assert_agrees(weight.astype(np.float32), datatype, group_size)


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("layer", REAL_LAYERS)
def test_real_weights(rng, datatype, layer):
    weight = real_layer(layer)
    rows = rng.choice(weight.shape[0], 2, replace=False)
    assert_agrees(weight[torch.from_numpy(rows)].numpy(), datatype, 128)


# Multiples of 1/8 land on midpoints and symmetric groups; the rest reaches both clamps of the scale and beyond.
EDGES = [k / 8 for k in range(-48, 49)] + [0.0, -0.0, 1e-5, -3e-6, 1e-30, 1e-45, 3e4, -1.3e5, 3e38, -3.4e38, 6.5, 1 / 3]


@settings(max_examples=120, deadline=None)
@given(
    datatype=st.sampled_from(WEIGHT_DATATYPES),
    group_size=st.sampled_from([32, 64, 128]),
    groups=st.lists(st.lists(st.sampled_from(EDGES), min_size=1, max_size=6), min_size=1, max_size=3),
    length=st.integers(1, 130),
)
def test_edges(datatype, group_size, groups, length):
    cycles = [itertools.islice(itertools.cycle(group), group_size) for group in groups]
    row = list(itertools.islice(itertools.cycle(itertools.chain(*cycles)), length))
    assert_agrees(np.array([row], dtype=np.float32), datatype, group_size)


@settings(max_examples=40, deadline=None)
@given(
    datatype=st.sampled_from([Datatype.FP3, Datatype.FP4]),
    special=st.tuples(*[st.sampled_from([0, 1, -2, 3, 4, 5, -6, 7, -7, 8, 9, 12, -14, 15, -16])] * 4),
    data=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40),
)
def test_programmed_special_values(datatype, special, data):
    assert_agrees(np.array([data], dtype=np.float32), datatype, 32, special)


def test_ties_go_to_the_lower_value():
    # absmax 4 gives FP3 (special value 3) the scale 1: these are midpoints of -4 -2 -1 0 1 2 3 4.
    row = [4.0, -3.0, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5]
    quantized = quantize(torch.tensor([row]), Datatype.FP3, group_size=32, special_values={Datatype.FP3: (3,) * 4})
    assert quantized.integers().tolist() == [[4, -4, -2, -1, 0, 1, 2, 3]]


def test_equal_error_keeps_the_first_special_value():
    quantized = quantize(torch.tensor([[1.0, -1.0, 2.0]]), Datatype.FP3, group_size=32)
    assert quantized.select.tolist() == [[0]]
    assert quantize(torch.tensor([[6.0, -4.0, 1.0]]), Datatype.FP3, group_size=32).select.tolist() == [[2]]


def test_zeros():
    weight = torch.zeros(2, 70)
    weight[1, 40] = 0.5
    quantized = quantize(weight, Datatype.FP4, group_size=32)
    assert quantized.scale8.tolist() == [[0, 0, 0], [0, 255, 0]]
    assert quantized.channel_scale[0] == 1
    assert torch.equal(quantized.dequantize()[0], torch.zeros(70))
    # The scale of a zero group is clamped to 1e-5, here as large as that of its neighbour.
    tiny = torch.cat([torch.zeros(1, 32), torch.full((1, 32), 1e-5)], dim=1)
    assert quantize(tiny, Datatype.FP4, group_size=32).scale8.tolist() == [[0, 255]]


def test_codes_stay_in_the_symmetric_range(rng):
    weight = torch.from_numpy(rng.standard_normal((16, 128)).astype(np.float32))
    for datatype in (Datatype.INT8, Datatype.INT3):
        integers = quantize(weight, datatype).integers()
        assert integers.min() == -integers.max() == (-127 if datatype == Datatype.INT8 else -3)


def test_dequantized_weights_are_close(rng):
    weight = torch.from_numpy(rng.standard_normal((8, 300)).astype(np.float32))
    quantized = quantize(weight, Datatype.INT8)
    step = quantized.expand(quantized.scale8.float()) * quantized.channel_scale[:, None]
    # Half a step of the codes, and up to 127 codes times the rounding of scale8 to 8 bits.
    allowed = 0.5 * step * 1.01 + 127 * 0.5 * quantized.channel_scale[:, None]
    assert bool(((quantized.dequantize() - weight).abs() <= allowed).all())


def test_half_precision_input_is_exact(rng):
    weight = torch.from_numpy(rng.standard_normal((4, 128)).astype(np.float16))
    for dtype in (torch.float16, torch.bfloat16):
        narrow = weight.to(dtype)
        left, right = quantize(narrow, Datatype.FP3), quantize(narrow.float(), Datatype.FP3)
        assert torch.equal(left.codes, right.codes)
        assert torch.equal(left.channel_scale, right.channel_scale)


@pytest.mark.parametrize("datatype", WEIGHT_DATATYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("far", [1e2, 1e3, 1e6])
def test_an_outlier_leaves_its_row(rng, datatype, far):
    """Groups far below the largest keep what the least scale can hold, and never come out worse than zeros."""
    weight = torch.from_numpy(rng.standard_normal((4, 128)).astype(np.float32)) * 0.02
    weight[:, 0] = far * 0.02
    assert_agrees(weight.numpy(), datatype, 32)
    quantized = quantize(weight, datatype, group_size=32)
    found, rest = quantized.dequantize()[:, 32:], weight[:, 32:]
    assert ((rest - found).square().sum(1) <= rest.square().sum(1)).all()
    # What is farther from 0 than the step of its group survives.
    step = (quantized.expand(quantized.scale8.float().clamp(min=1)) * quantized.channel_scale[:, None])[:, 32:]
    assert (found[rest.abs() > step] != 0).all()
    assert far != 1e2 or quantization_loss(weight, quantized).lost == 0
    assert far != 1e6 or quantization_loss(weight, quantized).lost == 4 * 96


def test_result_does_not_depend_on_the_chunks(rng, monkeypatch):
    weight = torch.from_numpy(rng.standard_normal((9, 200)).astype(np.float32))
    whole = quantize(weight, Datatype.FP4)
    monkeypatch.setattr("golden.weights.quantizer._CHUNK", 400)
    assert torch.equal(quantize(weight, Datatype.FP4).codes, whole.codes)


@pytest.mark.parametrize(
    ("weight", "options", "error", "message"),
    [
        (
            torch.ones(2, 2),
            {"datatype": Datatype.TERNARY},
            ValueError,
            "datatype must be one of .*'INT8'.*FP3.*TERNARY",
        ),
        (torch.ones(2, 2), {"datatype": "FP5"}, ValueError, "datatype must be one of .*not 'FP5'"),
        (torch.ones(2, 2), {"group_size": 100}, ValueError, r"group_size must be one of 32, 64, 128, not 100"),
        (torch.ones(2), {}, ValueError, r"weight must be a tensor .*not of shape \[2\]"),
        (torch.ones(2, 2, 2), {}, ValueError, r"weight must be a tensor .*not of shape \[2, 2, 2\]"),
        (torch.ones(2, 0), {}, ValueError, r"weight must have shape .*not \[2, 0\]"),
        (torch.ones(1, 32769), {}, ValueError, r"1\.\.32768.*not \[1, 32769\]"),
        (torch.ones(2, 2, dtype=torch.int32), {}, TypeError, "weight must be a tensor .* of float32.*not int32"),
        (torch.ones(2, 2).double(), {}, TypeError, "weight must be a tensor .*not float64"),
        ([[1.0]], {}, TypeError, "weight must be a tensor .*not builtins.list"),
        (torch.tensor([[1.0, float("nan")]]), {}, ValueError, r"weight\[0, 1\] = nan"),
        (torch.tensor([[1.0], [float("-inf")]]), {}, ValueError, r"weight\[1, 0\] = -inf"),
        (torch.ones(2, 2), {"special_values": {Datatype.FP3: (3, -3, 6)}}, ValueError, r"must be four integers"),
        (
            torch.ones(2, 2),
            {"special_values": {Datatype.FP3: (3, -3, 6, 7)}},
            ValueError,
            "holds 7, which is not the sum",
        ),
        (torch.ones(2, 2), {"special_values": {Datatype.INT4: (1, 2, 3, 4)}}, ValueError, "special_values may set"),
    ],
)
def test_bad_input(weight, options, error, message):
    with pytest.raises(error, match=message):
        quantize(weight, **({"datatype": Datatype.FP3} | options))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"codes": torch.full((1, 4), 8, dtype=torch.uint8)}, ValueError, r"codes\[0, 0\] = 8 has no value in FP3"),
        ({"codes": torch.zeros(4, dtype=torch.uint8)}, ValueError, r"codes must be a \[out, in\] tensor"),
        ({"codes": torch.zeros(1, 4)}, TypeError, "codes must be a torch.uint8 tensor, not torch.float32"),
        ({"datatype": 0}, ValueError, "datatype must be one of .*not 0"),
        ({"datatype": 12}, ValueError, "datatype must be one of .*not 12"),
        ({"datatype": Datatype.TERNARY, "codes": torch.tensor([[0, 2]], dtype=torch.uint8)}, ValueError, "TERNARY"),
        ({"select": 4}, ValueError, r"select must be in 0\.\.3, not 4"),
        ({"scale8": torch.ones(1, 2, dtype=torch.uint8)}, ValueError, r"scale8 must have shape \[1, 1\], not \[1, 2\]"),
        ({"channel_scale": float("inf")}, ValueError, "channel_scale must be finite"),
        ({"group_size": 16}, ValueError, "group_size must be one of"),
    ],
)
def test_bad_codes(changes, error, message):
    options = {"datatype": Datatype.FP3, "codes": torch.zeros(1, 4, dtype=torch.uint8)} | changes
    with pytest.raises(error, match=message):
        QuantizedWeight.from_codes(**options)


def test_integers_follow_every_groups_own_datatype(rng):
    """Each code's value from the oracle's own tables, datatypes mixed."""
    from verif.spec.test_datatypes import VALUES

    specials = {Datatype.FP3: (5, -5, 0, 12), Datatype.FP4: (7, -7, 9, -16)}
    weight = random_weight(rng, 30, 200, 32, special_values=specials)
    integers = weight.integers()
    for row, column in itertools.product(range(30), range(200)):
        datatype = Datatype(int(weight.datatype[row, column // 32]))
        expected = VALUES[datatype.name][int(weight.codes[row, column])]
        if expected == "special":
            expected = specials[datatype][int(weight.select[row, column // 32])]
        assert integers[row, column] == expected

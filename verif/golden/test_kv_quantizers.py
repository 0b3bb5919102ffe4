"""KV quantizers, stored scales and transforms against loops in plain Python and brute-force least squares."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.kv import transforms
from golden.kv.metadata import store_minima, store_scales
from golden.kv.quantizers import quantize

TRIALS = [1, 2, 3]


def normal(seed, *shape, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def channel_by_loops(x, code, gamma):
    """(codes, unstored scale, unstored minimum) of one channel, from the definitions."""
    n = len(x)
    if code == "binary":
        return [1 if v >= 0 else 0 for v in x], math.fsum(abs(v) for v in x) / n, None
    if code == "s2":
        h = 0.9957 * math.sqrt(math.fsum(v * v for v in x) / n) / 2
        return [min((-3, -1, 1, 3), key=lambda level: abs(v - level * h)) // 2 + 2 for v in x], h, None
    if code == "u2":
        low, s = min(x), (max(x) - min(x)) / 3
        return [min(range(4), key=lambda c: abs(v - low - c * s)) for v in x], s, low
    mean = math.fsum(abs(v) for v in x) / n
    kept = [abs(v) for v in x if abs(v) > gamma * mean]
    return [0 if abs(v) <= gamma * mean else int(math.copysign(1, v)) for v in x], math.fsum(kept) / len(kept), None


@pytest.mark.parametrize("trial", TRIALS)
@pytest.mark.parametrize("code", ["binary", "s2", "u2", "ternary"])
def test_codes_and_scales_match_the_definitions(code, seed, trial):
    x = normal(1000 * seed + trial, 2, 32, 5, scale=0.3)
    got = quantize(x, code, metadata="fp16", gamma=0.7)
    for head, channel in itertools.product(range(2), range(5)):
        column = x[head, :, channel].tolist()
        codes, scale, minimum = channel_by_loops(column, code, 0.7)
        stored = got.scales.value[head, channel].item()
        assert stored == float(np.float16(scale))
        if minimum is not None:
            assert got.minima[head, channel].item() == float(np.float16(minimum))
        got_codes = got.codes[head, :, channel].tolist()
        # The stored scale differs from the ideal one by 2^-11, so only values on a threshold may differ.
        assert sum(a != b for a, b in zip(got_codes, codes, strict=True)) <= 1
        for value, token in zip(got.values[head, :, channel].tolist(), got_codes, strict=True):
            table = {
                "binary": {0: -stored, 1: stored},
                "s2": {c: (2 * c - 3) * stored for c in range(4)},
                "u2": {c: got.minima[head, channel].item() + c * stored for c in range(4)} if minimum else {},
                "ternary": {t: t * stored for t in (-1, 0, 1)},
            }[code]
            assert value == table[token]


@pytest.mark.parametrize("trial", TRIALS)
def test_codes_are_the_nearest_levels_of_the_stored_scale(seed, trial):
    x = normal(1000 * seed + trial, 32, 7)
    for code, levels in (("binary", [-1, 1]), ("s2", [-3, -1, 1, 3]), ("u2", [0, 1, 2, 3])):
        got = quantize(x, code, metadata="q8")
        base = got.minima.double() if code == "u2" else torch.zeros(7, dtype=torch.float64)
        values = torch.stack([base + level * got.scales.value for level in levels])  # [levels, channels]
        best = (x[None] - values[:, None]).abs().min(0).values
        assert torch.allclose((x - got.values).abs(), best, atol=1e-12, rtol=0)


@pytest.mark.parametrize("trial", TRIALS)
def test_optimal_ternary_threshold_beats_every_other_choice(seed, trial):
    x = normal(1000 * seed + trial, 9, 1)
    column = np.abs(x[:, 0].numpy())
    best = math.inf
    for kept in itertools.product((0, 1), repeat=len(column)):
        mask = np.array(kept, bool)
        scale = column[mask].mean() if mask.any() else 0.0
        best = min(best, ((column - mask * scale) ** 2).sum())
    got = quantize(x, "ternary", metadata="fp16", gamma=None)
    assert ((x - got.values) ** 2).sum().item() == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("trial", TRIALS)
def test_optimal_s2_scale_beats_a_fine_scan(seed, trial):
    x = normal(1000 * seed + trial, 32, 1) ** 3  # heavy tails: far from the normal step

    def error(h):
        return ((x - torch.clamp(torch.floor(x / h / 2) + 0.5, -1.5, 1.5) * 2 * h) ** 2).sum().item()

    best = min(error(h) for h in np.linspace(0.01, 5, 5000))
    got = quantize(x, "s2", metadata="fp16", fit="mse")
    assert ((x - got.values) ** 2).sum().item() <= best * 1.001


def test_least_squares_u2_beats_minimum_maximum():
    x = normal(4, 128, 16)
    errors = [((x - quantize(x, "u2", fit=fit).values) ** 2).mean().item() for fit in ("moment", "mse")]
    assert errors[1] < 0.6 * errors[0]


def test_degenerate_channels():
    for code in ("binary", "s2", "u2", "ternary"):
        zero = quantize(torch.zeros(32, 4), code)
        assert zero.values.abs().max().item() == 0
    constant = quantize(torch.full((32, 2), -1.5), "u2")
    assert (constant.values == -1.5).all()
    one_token = quantize(torch.tensor([[2.0, -4.0]]), "binary", metadata="fp16")
    assert one_token.values.tolist() == [[2.0, -4.0]]


@pytest.mark.parametrize("kind", ["q8", "f6", "fp16"])
@pytest.mark.parametrize("transform", ["none", "wht", "rfft"])
def test_stored_scales_are_the_nearest_representable(kind, transform):
    if kind == "fp16" and transform == "none":
        pytest.skip("FP16 scales have no integers")
    scales = normal(5, 6, 16).abs() * 10.0 ** torch.arange(-3, 3)[:, None]
    scales[2, 3] = 0
    limit = {"q8": 255, "f6": 124, "fp16": 2047}[kind]
    six_bits = [*range(16), *range(16, 32), *range(32, 64, 2), *range(64, 128, 4)]
    integers = {"q8": range(256), "fp16": range(2048), "f6": six_bits}
    fold = [math.sqrt((2 if transform == "rfft" and 0 < k < 15 else 1) / 16) for k in range(16)]
    if transform == "none":
        fold = [1.0] * 16
    got = store_scales(scales, kind, transform=transform)
    for block in range(6):
        folded = [scales[block, k].item() * fold[k] for k in range(16)]
        exponent = min(7, max(-24, math.ceil(math.log2(max(folded) / limit))))
        assert got.exponent[block].item() == exponent
        for k in range(16):
            wanted = folded[k] / 2.0**exponent
            nearest = min(abs(wanted - a) for a in integers[kind])
            assert got.integer[block, k].item() in integers[kind]
            assert abs(wanted - got.integer[block, k].item()) == pytest.approx(nearest, abs=1e-9)
            value = got.integer[block, k].item() * 2.0**exponent / fold[k]
            assert got.value[block, k].item() == pytest.approx(value, rel=1e-12)


def test_scale_ties_go_to_the_even_code():
    # 66 is midway between 64 and 68, 70 between 68 and 72, 33 between 32 and 34.
    got = store_scales(torch.tensor([[124.0, 66.0, 70.0, 31.0, 33.0, 0.5, 1.5]]).double(), "f6")
    assert got.exponent.item() == 0
    assert got.integer[0].tolist() == [124, 64, 72, 31, 32, 0, 2]
    assert got.raw[0].tolist() == [63, 48, 50, 31, 32, 0, 2]
    assert store_scales(torch.tensor([[255.0, 0.5, 1.5, 2.5]]).double(), "q8").integer[0].tolist() == [255, 0, 2, 2]


def test_exponent_at_an_exact_power():
    for scale, exponent in ((255.0, 0), (255.5, 1), (510.0, 1), (127.5, -1)):
        assert store_scales(torch.tensor([[scale]]).double(), "q8").exponent.item() == exponent
    assert store_scales(torch.zeros(1, 3).double(), "q8").exponent.item() == -24
    assert store_scales(torch.tensor([[1e-12]]).double(), "q8").exponent.item() == -24


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("transform", ["wht", "rfft"])
def test_transforms_follow_their_formulas_and_are_orthonormal(transform, size):
    matrix = transforms.matrix(transform, size)
    assert torch.allclose(matrix @ matrix.T, torch.eye(size, dtype=torch.float64), atol=1e-13)
    x = normal(6, size).numpy()
    got = transforms.forward(torch.from_numpy(x), transform).numpy()
    if transform == "wht":
        expected = [
            sum(v * (-1) ** bin(i & j).count("1") for j, v in enumerate(x)) / math.sqrt(size) for i in range(size)
        ]
    else:
        spectrum = np.fft.rfft(x) / math.sqrt(size)
        expected = [spectrum[0].real]
        for f in range(1, size // 2):
            expected += [math.sqrt(2) * spectrum[f].real, math.sqrt(2) * spectrum[f].imag]
        expected.append(spectrum[-1].real)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(transforms.inverse(torch.from_numpy(got), transform), x, atol=1e-12)


def test_wht_of_integers_is_exact():
    x = [Fraction(int(v)) for v in normal(7, 16, scale=9).round()]
    exact = [sum(v * (-1) ** bin(i & j).count("1") for j, v in enumerate(x)) / 4 for i in range(16)]
    got = transforms.forward(torch.tensor([float(v) for v in x]), "wht")
    assert [Fraction(v) for v in got.tolist()] == exact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(x=torch.zeros(4, 4), code="ternari"), "code must be one of"),
        (dict(x=torch.zeros(4), code="binary"), r"x must be \[..., tokens, channels\]"),
        (dict(x=torch.zeros(0, 4), code="binary"), "no empty axis"),
        (dict(x=torch.tensor([[math.inf]]), code="binary"), "finite"),
        (dict(x=torch.tensor([[1e6]]), code="binary"), "scale must be finite and at most 65504"),
        (dict(x=torch.tensor([[-1e6], [1.0]]), code="u2"), "65504"),
        (dict(x=torch.zeros(4, 4), code="binary", metadata="fp8"), "metadata must be one of"),
        (dict(x=torch.zeros(4, 5), code="binary", transform="wht"), "size must be one of"),
        (dict(x=torch.full((4, 16), 4e4), code="s2", metadata="f6"), r"at most 124 \* 2\^7"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize(**arguments)


def test_bad_scales_are_refused():
    with pytest.raises(ValueError, match="must not be negative, not -1"):
        store_scales(torch.tensor([[-1.0]]).double(), "q8")
    with pytest.raises(ValueError, match="minimum"):
        store_minima(torch.tensor([math.nan]))

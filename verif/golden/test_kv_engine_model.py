"""The exact engine model: exact rationals, loops over the equations, float64 error bounds, the key centre."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.kv.block import Block, centre_block, key_block, value_block
from golden.kv.blocks import plan_keys, plan_values, quantize_keys, quantize_values
from golden.kv.config import KeyFormat, ValueFormat
from golden.kv.engine_model import add_centre, decode, decode_keys, inverse_rfft, inverse_wht, round_fp16
from golden.kv.pack import pack_block, unpack_block
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from verif.golden.kv_helpers import SIZES, exact_scale, r16, random_block, same_fp16


def test_round_fp16_against_rationals(rng):
    special = [
        0.0,
        -0.0,
        65504,
        65519.99,
        65520,
        70000,
        2.0**-24,
        2.0**-25,
        3 * 2.0**-25,
        2.0**-14,
        2047.5,
        2048.5,
        2049.5,
    ]
    x = np.array(special + [-v for v in special] + list(rng.normal(size=500) * 2.0 ** rng.integers(-28, 17, 500)))
    values, overflow = round_fp16(x)
    expected = [r16(Fraction(float(v))) for v in x]
    assert same_fp16(values, [value for value, _ in expected])
    assert overflow.tolist() == [flag for _, flag in expected]


def test_every_fp16_number_is_kept():
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    values, overflow = round_fp16(numbers.astype(np.float64))
    assert np.array_equal(values, numbers)
    assert not overflow.any()
    assert not np.signbit(values[values == 0]).any()


def plain(block: Block, row: int, position: int) -> Fraction:
    """Exact value of an element in a segment without a transform."""
    header, first = block.header, position < block.header.segment0
    kind = header.format if first else KvFormat.K1
    s = exact_scale(
        int(block.scales[position]), header.metadata, header.exponent0 if first else header.exponent1, False
    )
    c = int(block.codes[row, position])
    if kind in (KvFormat.K2, KvFormat.V2):
        return Fraction(float(block.minima[position : position + 1].view(np.float16)[0])) + c * s
    return {KvFormat.K1: 2 * c - 1, KvFormat.K2S: 2 * c - 3, KvFormat.V158: c - 1}[kind] * s


UNTRANSFORMED = [
    (kind, metadata, segment0)
    for kind in (KvFormat.K1, KvFormat.K2S, KvFormat.K2, KvFormat.V158, KvFormat.V2)
    for metadata in KvMetadata
    for segment0 in (None, 8, 40)
    if (segment0 is None or kind in (KvFormat.K2, KvFormat.K2S))
    and not (metadata is KvMetadata.F6 and kind in (KvFormat.K2, KvFormat.V2))
]


@pytest.mark.parametrize(("kind", "metadata", "segment0"), UNTRANSFORMED)
def test_untransformed_values_are_the_exact_value_rounded_once(rng, kind, metadata, segment0):
    block = random_block(rng, kind, metadata, 80, 5, segment0)
    got = decode(unpack_block(pack_block(block)))
    expected = np.empty((5, 80))
    for row, position in itertools.product(range(5), range(80)):
        expected[row, block.channels[position]] = r16(plain(block, row, position))[0]
    assert same_fp16(got.values, expected)


@pytest.mark.parametrize("metadata", list(KvMetadata))
@pytest.mark.parametrize("kind", [KvFormat.K1, KvFormat.K2S, KvFormat.V158])
@pytest.mark.parametrize("size", SIZES)
def test_wht_is_the_exact_sum_rounded_once(rng, kind, metadata, size):
    block = random_block(rng, kind, metadata, size, 3, None, (KvTransform.WHT, KvTransform.NONE))
    got = decode(unpack_block(pack_block(block)))
    for row, j in itertools.product(range(3), range(size)):
        total = Fraction(0)
        for k in range(size):
            s = exact_scale(int(block.scales[k]), metadata, block.header.exponent0, True)
            c = int(block.codes[row, k])
            u = {KvFormat.K1: 2 * c - 1, KvFormat.K2S: 2 * c - 3, KvFormat.V158: c - 1}[kind]
            total += (-1) ** bin(j & k).count("1") * u * s
        assert float(got.values[row, j]) == r16(total)[0]


def irfft_by_loops(x):
    """(T4) to (T9), index by index, in Python integers."""
    n = len(x)
    return recursion([x[0], *x[1 : n - 1 : 2], x[n - 1]], [None, *x[2 : n - 1 : 2]])


def recursion(r, i):
    n = 2 * (len(r) - 1)
    if n == 2:
        return [r[0] + r[1], r[0] - r[1]]
    h, q = n // 2, n // 4
    er, ei, odd_r, odd_i = [None] * (q + 1), [None] * q, [None] * (q + 1), [None] * q
    er[0], er[q], odd_r[0], odd_r[q] = r[0] + r[h], r[q], r[0] - r[h], -i[q]
    for k in range(1, q):
        er[k], ei[k] = r[k] + r[h - k], i[k] - i[h - k]
        t, u = r[k] - r[h - k], i[k] + i[h - k]
        c = math.floor(4096 * math.cos(2 * math.pi * k / n) + 0.5)
        s = math.floor(4096 * math.sin(2 * math.pi * k / n) + 0.5)
        odd_r[k] = (t * c - u * s + 2048) // 4096
        odd_i[k] = (t * s + u * c + 2048) // 4096
    even, odd = recursion(er, ei), recursion(odd_r, odd_i)
    return [value for pair in zip(even, odd, strict=True) for value in pair]


@pytest.mark.parametrize("size", SIZES)
def test_rfft_recursion_by_loops_and_its_widths(rng, size):
    x = rng.integers(-(2**14), 2**14, (20, size))
    x[0], x[1] = 2**15 - 1, -(2**15) + 1
    got = inverse_rfft(x)
    for row in range(20):
        assert got[row].tolist() == irfft_by_loops(x[row].tolist())
    assert np.abs(got).max() < 2**22
    exact = (
        np.fft.irfft(
            np.concatenate([x[:, :1], x[:, 1:-1:2] + 1j * x[:, 2:-1:2], x[:, -1:]], 1)
            * np.r_[1, [0.5] * (size // 2 - 1), 1],
            size,
        )
        * size
    )
    error = np.abs(got - exact)
    assert error.max() < 4 + 2.0**-11 * np.abs(x).sum(1).max()
    assert error.max() > 0


def test_wht_of_unit_vectors_gives_the_rows():
    for size in SIZES:
        rows = inverse_wht(np.eye(size, dtype=np.int64))
        assert all(rows[k, j] == (-1) ** bin(j & k).count("1") for k in range(0, size, 5) for j in range(size))


@pytest.mark.parametrize("metadata", list(KvMetadata))
@pytest.mark.parametrize("size", SIZES)
def test_rfft_blocks_end_to_end_and_above_60_db(rng, size, metadata):
    block = random_block(rng, KvFormat.K2S, metadata, size, 8, None, (KvTransform.RFFT, KvTransform.NONE))
    got = decode(unpack_block(pack_block(block))).values.astype(float)
    guard = 2 if metadata is KvMetadata.FP16 else 5
    expected, exact = np.empty((8, size)), np.empty((8, size))
    a = [int(exact_scale(int(s), metadata, 0, True)) for s in block.scales]
    for row in range(8):
        x = [(2 * int(c) - 3) * ak for c, ak in zip(block.codes[row], a, strict=True)]
        y = irfft_by_loops([v << guard for v in x])
        expected[row] = [r16(v * Fraction(2) ** (block.header.exponent0 - guard))[0] for v in y]
        k = np.arange(1, size // 2)
        for j in range(size):
            angle = 2 * np.pi * j * k / size
            exact[row, j] = x[0] + (-1) ** j * x[-1] + (x[1:-1:2] * np.cos(angle) - x[2:-1:2] * np.sin(angle)).sum()
    assert same_fp16(got, expected)
    exact *= 2.0**block.header.exponent0
    assert 10 * np.log10((exact**2).sum() / ((got - exact) ** 2).sum()) > 60


def test_two_transformed_segments_go_back_to_their_channels(rng):
    keys = torch.from_numpy(rng.normal(size=(2, 200, 64)) * np.exp(rng.normal(size=(2, 1, 64))))
    for transform in ("wht", "rfft"):
        fmt = KeyFormat(transform=transform)
        plan = plan_keys(keys, fmt)
        blocks = quantize_keys(keys[:, None, :128], plan, fmt)
        for head in range(2):
            block = key_block(blocks, fmt, head, 0, torch.arange(128))
            got = decode(unpack_block(pack_block(block))).values.astype(float)
            reference = blocks.reference()[head, 0].numpy()
            assert 10 * np.log10((reference**2).sum() / ((got - reference) ** 2).sum()) > 60
            centred = (keys[head, :128] - plan.centre[head]).numpy()
            assert ((got - centred) ** 2).sum() < 0.5 * (centred**2).sum()


def test_protected_and_ternary_blocks_of_one_span(rng):
    values = torch.from_numpy(rng.normal(size=(1, 1, 100, 64)))
    fmt, tokens = ValueFormat(protected=0.2), torch.arange(500, 700, 2)
    for protected in (False, True):
        blocks = quantize_values(values, plan_values(values[:, 0], fmt), fmt, protected=protected)
        block = value_block(blocks, fmt, 0, 0, tokens, protected=protected)
        got = decode(unpack_block(pack_block(block)))
        assert block.header.span == 256
        assert got.tokens.tolist() == tokens.tolist()
        np.testing.assert_allclose(got.values, blocks.reference()[0, 0].numpy(), rtol=2.0**-10, atol=2.0**-20)


def test_centre_comes_back_with_one_more_rounding(rng):
    keys = torch.from_numpy(rng.normal(size=(1, 40, 64)) + 5)
    fmt = KeyFormat(group=32)
    plan = plan_keys(keys, fmt)
    centre = unpack_block(pack_block(centre_block(plan, 0)))
    assert np.array_equal(centre.scales.view(np.float16), plan.centre[0].half().numpy())
    assert decode(centre).values.shape == (0, 64)
    decoded = decode(key_block(quantize_keys(keys[:, None, :32], plan, fmt), fmt, 0, 0, torch.arange(32)))
    got = add_centre(decoded, centre.scales).values
    for row, channel in itertools.product(range(32), range(64)):
        exact = Fraction(float(decoded.values[row, channel])) + Fraction(float(centre.scales.view(np.float16)[channel]))
        assert float(got[row, channel]) == r16(exact)[0]


def test_a_centre_holds_until_the_next_and_only_for_keys_of_its_size(rng):
    keys = torch.from_numpy(rng.normal(size=(2, 40, 64)) + 5)
    values = torch.from_numpy(rng.normal(size=(2, 40, 64)))
    fmt = KeyFormat(group=32)
    plan, tokens = plan_keys(keys, fmt), torch.arange(32)
    centres = [centre_block(plan, head) for head in range(2)]
    packed = [key_block(quantize_keys(keys[:, None, :32], plan, fmt), fmt, head, 0, tokens) for head in range(2)]
    kind = ValueFormat(group=32)
    quantized = quantize_values(values[:, None, :32], plan_values(values, kind), kind)
    value = value_block(quantized, kind, 0, 0, tokens)
    got = decode_keys([centres[0], packed[0], value, packed[1], centres[1], packed[1]])
    wanted = [add_centre(decode(packed[k]), centres[c].scales) for k, c in ((0, 0), (1, 0), (1, 1))]
    for found, expected in zip(got, [wanted[0], decode(value), *wanted[1:]], strict=True):
        np.testing.assert_array_equal(found.values, expected.values)
    for blocks in ([packed[0]], [replace_channels(centres[0], 32), packed[0]]):
        with pytest.raises(ValueError, match="a block of 64 channels needs a centre of as many"):
            decode_keys(blocks)


def replace_channels(centre: Block, channels: int) -> Block:
    header = replace(centre.header, channels=channels, segment0=channels)
    return replace(centre, header=header, scales=centre.scales[:channels])


def test_overflow_is_told_even_for_codes_that_do_not_occur(rng):
    block = random_block(rng, KvFormat.K2S, KvMetadata.FP16, 16, 2)
    block.scales[3] = np.array(30000.0, np.float16).view(np.uint16)
    block.codes[:, 3] = 1
    got = decode(block)
    assert got.unused_overflow
    assert not got.overflow.any()
    block.codes[1, 3] = 3
    got = decode(block)
    assert got.overflow.sum() == 1
    assert got.values[1, block.channels[3]] == 65504

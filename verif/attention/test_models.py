"""The exact models of the attention cores within their bounds of float64, on random blocks and real caches."""

import numpy as np
import pytest
import torch

from golden.attention.reference import real_block, score_bound, value_bound
from golden.attention.rfft import rfft, rfft_error
from golden.attention.scores import block_scores, exact_scores, prepare_query
from golden.attention.slots import digit_planes, write_slots
from golden.attention.values import add_block, add_exact, align_weights, finish
from golden.kv.config import preset
from golden.kv.packed import pack_cache
from golden.kv.transforms import fold_of, matrix
from golden.llm import capture_kv
from spec.attention import AttentionConfig
from spec.kv_formats import KvFormat, KvTransform
from verif.kv.blocks import random_block, random_header

BOTH = frozenset({KvTransform.WHT, KvTransform.RFFT})
CONFIGS = [
    AttentionConfig(transforms=BOTH),
    AttentionConfig(channels=128, query_bits=16, fold_bits=16, weight_bits=8, transforms=BOTH),
]
KEYS = (KvFormat.K1, KvFormat.K2S, KvFormat.K2)
VALUES = (KvFormat.V158, KvFormat.V2)


def random_query(rng, channels):
    return torch.from_numpy(rng.normal(size=channels) * 2.0 ** rng.integers(-6, 7)).half()


def random_weights(rng, rows):
    return torch.from_numpy(np.exp(rng.normal(size=rows) * rng.integers(1, 6)) * 2.0**-8).clamp(max=1).half()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"W{c.fold_bits}")
@pytest.mark.parametrize("kind", KEYS, ids=lambda f: f.name)
def test_scores_of_random_blocks_are_within_the_bound(rng, config, kind):
    for _ in range(30):
        header = random_header(rng, config.parser, format=kind, exponent0=-14, exponent1=-15)
        block = random_block(rng, header)
        q = random_query(rng, header.channels)
        query = prepare_query(q, header, block.channels, config)
        keys = real_block(block)
        scores = block_scores(query, block)
        error = (scores.double() - keys @ q.double()).abs()
        assert (error <= score_bound(query, q, keys, scores, block)).all()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"W{c.fold_bits}")
def test_exact_scores_are_within_the_bound(rng, config):
    for _ in range(20):
        header = random_header(rng, config.parser, format=KvFormat.K1)
        codes = torch.from_numpy(rng.integers(-127, 128, (17, header.channels))).to(torch.int8)
        scale = torch.from_numpy(np.exp(rng.normal(size=17)) / 64).half()
        q = random_query(rng, header.channels)
        query = prepare_query(q, header, np.arange(header.channels), config)
        keys = codes.double() * scale.double()[:, None]
        scores = exact_scores(query, codes, scale)
        error = (scores.double() - keys @ q.double()).abs()
        assert (error <= score_bound(query, q, keys, scores, None)).all()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"Wp{c.weight_bits}")
def test_values_are_within_the_bound(rng, config):
    for _ in range(20):
        channels = 8 * int(rng.integers(1, config.channels // 8 + 1))
        sums, exact, bound = torch.zeros(channels), 0, 0
        for kind in rng.choice([*VALUES, None], 4):
            p = random_weights(rng, int(rng.integers(1, 129)))
            if kind is None:
                codes = torch.from_numpy(rng.integers(-127, 128, (len(p), channels))).to(torch.int8)
                scale = torch.from_numpy(np.exp(rng.normal(size=len(p))) / 64).half()
                weights = align_weights(p, config, scale)
                values = codes.double() * scale.double()[:, None]
                sums = add_exact(sums, codes, weights)
            else:
                header = random_header(rng, config.parser, format=KvFormat(kind), channels=channels, segment0=channels,
                                       transform0=0, rows=len(p), span=0, exponent0=-12)  # fmt: skip
                header = type(header)(**{**vars(header), "rows": len(p)})
                block = random_block(rng, header)
                weights = align_weights(p, config)
                values = real_block(block)
                sums = add_block(sums, block, weights)
            exact = exact + p.double() @ values
            rows = codes.double() if kind is None else values
            bound = bound + value_bound(rows, weights, sums, exact=kind is None)
        assert ((sums.double() - exact).abs() <= bound).all()
        values, beyond = finish(sums)
        assert values.shape == (channels,)
        assert beyond == bool((sums.abs() >= 65520).any())


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("bits", [12, 16])
def test_rfft_is_within_its_bound(rng, size, bits):
    """Random integers, single ones, and all at the limit; against float64."""
    limit, fraction = 2 ** (bits - 1) - 1, AttentionConfig(query_bits=bits).rotation_bits
    inputs = [rng.integers(-limit, limit + 1, size) for _ in range(50)]
    inputs += [limit * np.eye(size, dtype=np.int64)[k] for k in range(size)]
    inputs += [limit * np.sign(np.cos(2 * np.pi * k * np.arange(size) / size + 0.1)).astype(int) for k in range(size)]
    bound, worst = rfft_error(size, limit, fraction), 0.0
    basis = matrix("rfft", size) / fold_of("rfft", size)[:, None]  # plain sums: 1, cos, -sin, (-1)^j
    assert torch.allclose(basis.abs().amax(1), torch.ones(size).double())
    for x in map(torch.from_numpy, inputs):
        got = rfft(x, fraction)
        error = float((got.double() - basis @ x.double()).abs().max())
        assert error <= bound
        assert int(got.abs().max()) < size << bits - 1  # fits the memory's bits
        worst = max(worst, error)
    assert worst > bound / 40


def test_digit_planes_are_the_code():
    codes = torch.arange(-128, 128)[:, None].to(torch.int8)
    planes = digit_planes(codes).long()
    weights = torch.tensor([64, 16, 4, 1])[:, None]
    assert torch.equal((planes * weights).sum(1) - 128, codes.long())
    # By hand: -1 + 128 = 127 = 1333 in base 4; channel 0 in the lowest bits of each plane's first byte.
    slot = write_slots(torch.tensor([[-1, 0, 0, 0, 0, 0, 0, 0]]).to(torch.int8), torch.tensor([1.0]).half())
    assert slot[0, :10].tobytes().hex() == "a9aa" + "0300" + "0300" + "0300" + "003c"
    assert slot.shape == (1, 16)


@pytest.mark.parametrize(
    "config", [AttentionConfig(), AttentionConfig(fold_bits=12, weight_bits=11)], ids=lambda c: f"W{c.fold_bits}"
)
def test_attention_of_a_real_layer(config):
    """Scores and sums of a whole layer's packed blocks within the stated bounds, and neither of them zero."""
    kv = capture_kv(512)
    layer, heads = 7, 3
    packed = pack_cache(kv.k[layer : layer + 1].float(), kv.v[layer : layer + 1].float(), preset("default"))
    for head in range(heads):
        keys = [block for _, h, block in packed.blocks("key") if h == head]
        values = [block for _, h, block in packed.blocks("value") if h == head]
        q = kv.q[layer, head * (kv.q.shape[1] // heads), -1] / 8
        query = prepare_query(q, keys[0].header, keys[0].channels, config)
        scores = []
        for block in keys:
            real = real_block(block)
            scores.append(block_scores(query, block))
            error = (scores[-1].double() - real @ q.double()).abs()
            assert (error <= score_bound(query, q, real, scores[-1], block)).all()
        p = torch.cat(scores).double().softmax(0).half()
        start, sums, exact, bound = 0, torch.zeros(len(q)), 0, 0
        for block in values:
            part = p[start : start + block.header.rows]
            weights, real = align_weights(part, config), real_block(block)
            sums = add_block(sums, block, weights)
            exact = exact + part.double() @ real
            bound = bound + value_bound(real, weights, sums, exact=False)
            start += block.header.rows
        assert start == len(p)
        assert ((sums.double() - exact).abs() <= bound).all()
        assert torch.cat(scores).abs().max() > 1
        assert exact.any()

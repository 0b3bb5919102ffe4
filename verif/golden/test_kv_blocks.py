"""Centre, channel split, grouping, protection, residual and the growing cache."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from golden.kv.blocks import plan_keys, plan_values, quantize_keys, quantize_values
from golden.kv.cache import LayerCache
from golden.kv.config import PRESETS, CacheFormat, KeyFormat, ValueFormat, preset
from golden.kv.grouping import token_groups
from golden.kv.protection import protected_tokens, protection_scores
from golden.kv.quantized import old_keys, old_values
from golden.kv.residual import write_fp16, write_int8

HEADS, TOKENS, DIM = 2, 400, 64


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def keys():
    """Keys with an offset and a spread of its own per channel and head."""
    spread = torch.exp(normal(1, HEADS, 1, DIM))
    return normal(2, HEADS, TOKENS, DIM) * spread + 3 * normal(3, HEADS, 1, DIM)


@pytest.fixture(scope="module")
def values():
    return normal(4, HEADS, TOKENS, DIM) * 0.1


@pytest.mark.parametrize("split_by", ["head", "layer"])
def test_split_takes_the_channels_of_largest_range(keys, split_by):
    plan = plan_keys(keys, KeyFormat(split_by=split_by))
    centred = keys.double().numpy() - keys.double().numpy().mean(1, keepdims=True)
    for head in range(HEADS):
        ranges = []
        for channel in range(DIM):
            column = centred[head, :, channel] if split_by == "head" else centred[:, :, channel]
            ranges.append(column.max() - column.min())
        hard = sorted(sorted(range(DIM), key=lambda c: (-ranges[c], c))[: DIM // 2])
        assert plan.channels[0][head].tolist() == hard
        assert plan.channels[1][head].tolist() == sorted(set(range(DIM)) - set(hard))


def test_key_blocks_by_loops(keys):
    """One block of the default format, spelled out: centre, gather, Hadamard, levels, Hadamard back, scatter."""
    fmt = KeyFormat(metadata="q8", group=32)
    plan = plan_keys(keys, fmt)
    got = quantize_keys(keys[:, None, :32], plan, fmt).reference()[:, 0].numpy()
    for head in range(HEADS):
        x = keys[head, :32].double().numpy() - keys[head].double().numpy().mean(0)
        expected = np.empty_like(x)
        for segment, code in ((0, "s2"), (1, "binary")):
            index = plan.channels[segment][head].tolist()
            n = len(index)
            hadamard = np.array([[(-1) ** bin(i & j).count("1") for j in range(n)] for i in range(n)])
            y = x[:, index] @ hadamard / math.sqrt(n)
            wanted = np.abs(y).mean(0) if code == "binary" else 0.9957 * np.sqrt((y**2).mean(0)) / 2
            exponent = math.ceil(math.log2(wanted.max() / math.sqrt(n) / 255))
            stored = np.round(wanted / math.sqrt(n) / 2.0**exponent) * 2.0**exponent * math.sqrt(n)
            levels = np.array([-1, 1] if code == "binary" else [-3, -1, 1, 3])
            nearest = np.abs(y[:, :, None] - levels * stored[:, None]).argmin(-1)
            expected[:, index] = levels[nearest] * stored @ hadamard / math.sqrt(n)
        np.testing.assert_allclose(got[head], expected, atol=1e-9)


def test_the_centre_is_free_in_attention(keys):
    q = normal(5, 1, DIM).double()
    scores = keys[0].double() @ q[0]
    centred = (keys[0].double() - plan_keys(keys, KeyFormat()).centre[0]) @ q[0]
    assert torch.allclose(torch.softmax(scores, 0), torch.softmax(centred, 0), atol=1e-12)


def test_every_channel_returns_to_its_place(keys):
    """With one token per group the code is exact up to the scale's rounding, so the keys come back."""
    fmt = KeyFormat(code="binary", anomalous_code=None, transform="none", metadata="fp16", centre=False)
    blocks = quantize_keys(keys[:, :8, None], plan_keys(keys, fmt), fmt)
    assert torch.allclose(blocks.reference()[:, :, 0], keys[:, :8].half().double(), atol=0)


def test_value_centre_and_codes(values):
    fmt = ValueFormat(centre=True, metadata="fp16")
    plan = plan_values(values, fmt)
    centre = plan.centre
    assert torch.allclose(centre, values.double().mean(1))
    got = quantize_values(values[:, None, :128], plan, fmt)
    x = values[1, :128, 7].double() - centre[1, 7]
    kept = x.abs() > 0.5 * x.abs().mean()
    scale = float(np.float16(x.abs()[kept].mean().item()))
    assert torch.equal(got.reference()[1, 0, :, 7], torch.sign(x) * kept * scale)


def test_groups_end_at_multiples_and_are_complete():
    groups = token_groups(16, 300, 128)
    assert [(g.tokens[0].item(), g.tokens[-1].item()) for g in groups] == [(16, 127), (128, 255)]
    assert token_groups(16, 127, 128) == []
    assert [len(g.tokens) for g in token_groups(0, 96, 32)] == [32, 32, 32]


@pytest.mark.parametrize("share", [0.03, 0.2, 0.5])
def test_groups_with_protection_only_ever_grow(share):
    mask = torch.rand(2000, generator=torch.Generator().manual_seed(6)) < share
    whole = token_groups(16, 2000, 64, mask)
    for end in range(16, 2000, 37):
        part = token_groups(16, end, 64, mask)
        assert len(part) <= len(whole)
        for a, b in zip(part, whole, strict=False):
            assert a.protected == b.protected
            assert torch.equal(a.tokens, b.tokens)
    for group in whole:
        assert (mask[group.tokens] == group.protected).all()
        assert len(group.tokens) <= 64
        assert (group.tokens[-1] - group.tokens[0]).item() < 512
    tokens = torch.cat([g.tokens for g in whole])
    assert len(tokens.unique()) == len(tokens)
    assert len(tokens) > 1400


def test_a_group_closes_before_its_span_exceeds_the_bitmap():
    for gap, length in ((511, 2), (512, 1)):
        mask = torch.zeros(1600, dtype=torch.bool)
        mask[[16, 16 + gap, 1300]] = True
        first = next(g for g in token_groups(16, 1600, 64, mask) if g.protected)
        assert len(first.tokens) == length


def test_protection_scores_and_ties():
    hidden, queries = normal(7, 50, 8), normal(8, 5, 8)
    expected = [sum(float(h @ q) for q in queries.double()) / 5 for h in hidden.double()]
    assert protection_scores(hidden, queries).tolist() == pytest.approx(expected)
    assert protected_tokens(torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0]), 0.4).tolist() == [False, True, True, False, False]
    assert protected_tokens(torch.zeros(35), 0.2).sum().item() == 7
    assert protected_tokens(torch.zeros(5000), 0.2).nonzero()[:, 0].tolist() == list(range(1000))
    assert protected_tokens(torch.zeros(35), 0.0).sum().item() == 0


@pytest.mark.parametrize("name", ["default", "kivi", "vidkv", "vidkv-stp"])
def test_growing_cache_never_repacks_and_equals_the_batch(keys, values, name):
    fmt = replace(preset(name), recent=40)
    mask = torch.zeros(300, dtype=torch.bool)
    mask[protected_tokens(normal(9, 300).double(), 0.2)] = True
    cache = LayerCache(fmt)
    cache.prefill(keys[:, :300], values[:, :300], mask if fmt.value.protected else None)
    packed = [(group, blocks.reference().clone()) for group, blocks in cache.key_blocks + cache.value_blocks]
    assert packed
    kept = [blocks for _, blocks in cache.key_blocks]
    for token in range(300, TOKENS, 7):
        end = min(token + 7, TOKENS)
        cache.append(keys[:, token:end], values[:, token:end])
        got_keys, got_values = cache.read()
        recent = slice(end - 40, end)
        assert torch.equal(got_keys[:, recent], keys[:, recent].half())
        assert torch.equal(got_values[:, recent], values[:, recent].half())
        assert torch.equal(got_keys[:, :16], keys[:, :16].half())
    assert all(a is b for a, (_, b) in zip(kept, cache.key_blocks, strict=False))
    for (_, before), (_, now) in zip(packed, cache.key_blocks[: len(kept)], strict=False):
        assert torch.equal(before, now.reference())
    # The first 300 tokens' statistics are the plan's, so the batch path over them must agree where both have packed.
    batch = old_keys(keys[:, :300].half(), fmt)
    for group, blocks in cache.key_blocks:
        if group.tokens[-1] < 300 - 300 % fmt.key.group:
            plan_centre = plan_keys(keys[:, 16:300], fmt.key).centre[:, None]
            got = (blocks.reference()[:, 0] + plan_centre).half().float()
            assert (got - batch[:, group.tokens]).abs().mean() < 0.02 * batch.abs().mean()
    exact_keys, _ = cache.exact_tokens
    assert sorted(exact_keys + [t for g, _ in cache.key_blocks for t in g.tokens.tolist()]) == list(range(TOKENS))


def test_old_values_replace_whole_groups_only(values):
    fmt = CacheFormat(value=ValueFormat(group=64))
    got = old_values(values, fmt)
    assert torch.equal(got[:, :16], values[:, :16])
    assert torch.equal(got[:, 384:], values[:, 384:])
    assert (got[:, 16:384] != values[:, 16:384]).float().mean() > 0.99
    assert len(got[0, 64:128, 5].unique()) <= 3


def test_int8_residual_is_within_half_a_step():
    x = normal(10, 2, 9, 16)
    x[0, 3] = 0
    got = write_int8(x)
    step = (x.abs().amax(-1) / 127).half().double()[..., None]
    assert ((got.value - x.double()).abs() <= step / 2 + 127 * step * 2.0**-11).all()
    assert (got.codes.abs().amax(-1)[1] == 127).all()
    assert torch.equal(write_fp16(x).value, x.half().double())
    assert got.value[0, 3].abs().max() == 0
    with pytest.raises(ValueError, match="finite"):
        write_int8(torch.tensor([[[math.nan]]]))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: KeyFormat(code="k3"), ValueError, "code must be one of"),
        (lambda: KeyFormat(code=3), TypeError, "code must be a str, not 3"),
        (lambda: KeyFormat(group=48), ValueError, r"group must be one of 32, 64, 128, not 48"),
        (lambda: KeyFormat(centre=1), TypeError, "centre must be a bool"),
        (lambda: KeyFormat(gamma="x"), TypeError, "gamma must be a float or int"),
        (lambda: KeyFormat(anomalous=1.5), ValueError, "anomalous must be from 0.0 to 1.0"),
        (lambda: KeyFormat(code="ternary"), ValueError, "anomalous_code must be None"),
        (lambda: KeyFormat(anomalous_code="u2"), ValueError, "metadata must be 'fp16' or 'q8' for u2"),
        (lambda: ValueFormat(code="binary"), ValueError, "code must be one of"),
        (lambda: ValueFormat(code="u2", metadata="q8", protected=0.2), ValueError, "protected must be 0 unless"),
        (lambda: CacheFormat(sinks=-1), ValueError, r"sinks must be in 0\.\.127, not -1"),
        (lambda: CacheFormat(sinks=128), ValueError, r"sinks must be in 0\.\.127, not 128"),
        (lambda: CacheFormat(recent=1.5), TypeError, "recent must be an int"),
        (lambda: CacheFormat(key="default"), TypeError, "key must be a KeyFormat"),
        (lambda: CacheFormat(mode="old"), ValueError, "mode must be one of"),
        (lambda: preset("nope"), ValueError, "format must be one of fp16, kivi"),
        (lambda: LayerCache(PRESETS["fp16"]), ValueError, "fmt must be a 'paper' format"),
        (lambda: token_groups(5, 4, 32), ValueError, "0 <= start <= end"),
        (lambda: protected_tokens(torch.zeros(3), 1.5), ValueError, "share must be from 0 to 1"),
        (lambda: protection_scores(torch.zeros(3, 2), torch.zeros(1, 3)), ValueError, "of one width"),
    ],
)
def test_bad_input_names_the_parameter(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_cache_refuses_misuse(keys, values):
    cache = LayerCache(CacheFormat())
    with pytest.raises(ValueError, match="after prefill"):
        cache.append(keys, values)
    with pytest.raises(ValueError, match="longer than the 16 sinks"):
        cache.prefill(keys[:, :16], values[:, :16])
    with pytest.raises(ValueError, match="protected must be given"):
        cache.prefill(keys, values, torch.zeros(TOKENS, dtype=torch.bool))
    cache.prefill(keys, values)
    with pytest.raises(ValueError, match="prefill must come once"):
        cache.prefill(keys, values)
    with pytest.raises(ValueError, match=r"must be \[2, tokens, 64\]"):
        cache.append(keys[:1], values[:1])

"""Moments, rotations, widths and plan files: against finite differences, brute force and what a file may suffer."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from golden.alloc.calibrate import Moments, calibrate
from golden.alloc.plan import Plan, PlanError, load_plan, make_plan, save_plan
from golden.alloc.planes import DISTORTION
from golden.alloc.rotation import rotation, widths
from golden.kv.attention import cached_attention
from shell.output import write_file

LAYERS, HEADS, KV_HEADS, D = 2, 4, 2, 8


def small_model(seed: int) -> torch.nn.Module:
    """Two layers with query groups and rotary embedding, in float64 so that differences can be taken."""
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=31, hidden_size=HEADS * D, intermediate_size=48, num_hidden_layers=LAYERS,
                         num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=64,
                         attn_implementation="sdpa")  # fmt: skip
    model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    for norm in (module for module in model.modules() if type(module).__name__ == "LlamaRMSNorm"):
        # As it stands it goes through float32, whose rounding is all that differences would show.
        norm.forward = lambda x, n=norm: n.weight * x * torch.rsqrt(x.square().mean(-1, True) + n.variance_epsilon)
    return model


def moments(rng, shape=(2, 3, 2, D)) -> Moments:
    """Of random vectors and gradients, keys and values of three layers with two heads."""

    def square(rank):
        x = torch.from_numpy(rng.standard_normal((*shape, rank)))
        return x @ x.mT / rank

    covariance = square(3 * D) * torch.from_numpy(10.0 ** rng.uniform(-2, 2, shape[:-1]))[..., None, None]
    return Moments(square(2 * D), torch.from_numpy(rng.standard_normal(shape)), covariance, covariance * 0.9)


def test_moments_are_those_of_finite_differences(rng, seed, tmp_path):
    """Nine old tokens: each gradient by central differences of the loss, later layers included."""
    model, ids = small_model(seed), torch.from_numpy(rng.integers(0, 31, 16))
    sinks, recent, step = 2, 5, 1e-5
    found = calibrate(model, [ids], identity="small", sinks=sinks, recent=recent, cache_dir=tmp_path)
    exact: dict[int, list[torch.Tensor]] = {}

    def loss(change=None) -> float:
        def old(layer, _q, k, v):
            pair = [k.clone(), v.clone()]
            if change is None:
                exact[layer] = [x.clone() for x in pair]
            elif change[1] == layer:
                kind, _, head, token, channel, amount = change
                pair[kind][head, token, channel] += amount
            return lambda _first: tuple(pair)

        with cached_attention(old, sinks=sinks, recent=recent, model=model):
            logits = torch.log_softmax(model(ids[None], use_cache=False).logits[0, :-1], -1)
        return float(-logits.gather(1, ids[1:, None]).sum())

    loss()
    for kind, layer, head in itertools.product(range(2), range(LAYERS), range(KV_HEADS)):
        gradients = torch.zeros(len(ids) - sinks - recent, D, dtype=torch.float64)
        for token, channel in itertools.product(range(len(gradients)), range(D)):
            ends = [loss((kind, layer, head, sinks + token, channel, amount)) for amount in (step, -step)]
            gradients[token, channel] = (ends[0] - ends[1]) / (2 * step)
        expected = gradients.T @ gradients / len(gradients)
        # Differences of losses of some 30 nats, rounded to 2^-52 of that, over 2e-5; the cubic term is of step^2.
        error = 2 * gradients.abs().max() * (30 * 2.0**-51 / step + 1e3 * step**2)
        assert (found.gradients[kind, layer, head] - expected).abs().max() <= error
        x = exact[layer][kind][head, sinks:]
        torch.testing.assert_close(found.mean[kind, layer, head], x.mean(0), rtol=0, atol=1e-12)
        torch.testing.assert_close(
            found.covariance[kind, layer, head], torch.cov(x.T, correction=0), rtol=0, atol=1e-12
        )
    assert (found.gradients.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_windows_are_pooled_and_kept(rng, seed, tmp_path):
    model = small_model(seed)
    ids = [torch.from_numpy(rng.integers(0, 31, count)) for count in (12, 20)]
    told: list[str] = []
    options = {"identity": "small", "sinks": 2, "recent": 5, "cache_dir": tmp_path}
    both = calibrate(model, ids, progress=told.append, **options)
    parts = [calibrate(None, [one], **options) for one in ids]  # no model is needed again
    assert told == ["window 1 of 2", "window 2 of 2"]
    old, vectors = (torch.tensor([counts]).T.double() for counts in ((5, 13), (10, 18)))

    def pooled(name, weights):
        both = torch.stack([getattr(part, name) for part in parts])
        return (both * (weights / weights.sum()).view(2, *[1] * (both.dim() - 1))).sum(0)

    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(both.gradients, pooled("gradients", old), **close)
    torch.testing.assert_close(both.mean, pooled("mean", vectors), **close)
    torch.testing.assert_close(both.within, pooled("covariance", vectors), **close)
    assert (both.covariance - both.within).diagonal(dim1=-2, dim2=-1).min() >= -1e-12
    with pytest.raises(ValueError, match=r"tokens of window 0 must be at least 8, not 7"):
        calibrate(model, [torch.zeros(7, dtype=torch.int64)], **options)


def test_rotation_makes_errors_independent(rng):
    """F and its inverse; uncorrelated coordinates; what losing each costs adds up to what losing all costs."""
    given = moments(rng)
    found = rotation(given, within=False, damping=0.0)
    eye = torch.eye(D, dtype=torch.float64).expand_as(found.forward)
    torch.testing.assert_close(found.forward @ found.backward, eye, rtol=0, atol=1e-9)
    turned = found.forward.mT @ given.covariance @ found.forward
    off = turned - torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))
    assert (off.abs().amax((-2, -1)) <= 1e-9 * turned.abs().amax((-2, -1))).all()
    torch.testing.assert_close(turned.diagonal(dim1=-2, dim2=-1), found.deviation.square())
    cost = (found.backward @ given.gradients * found.backward).sum(-1) * found.deviation.square()
    torch.testing.assert_close(cost, found.loss, rtol=1e-9, atol=1e-9 * float(found.loss.max()))
    everything = (given.gradients @ given.covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(found.loss.sum(-1), everything)
    assert (found.loss.diff(dim=-1) <= 0).all()


def test_widths_are_the_best_of_all(rng):
    """Every allocation of few coordinates is tried: none of as many bits loses less."""
    for _ in range(20):
        loss = torch.from_numpy(10.0 ** rng.uniform(-3, 1, 5))
        for total in range(0, 21, 3):
            chosen = widths(loss, total / 5, DISTORTION)
            lost = [sum(x * DISTORTION[w] for x, w in zip(loss.tolist(), all_widths, strict=True))
                    for all_widths in itertools.product(range(5), repeat=5) if sum(all_widths) == total]  # fmt: skip
            own = sum(x * DISTORTION[w] for x, w in zip(loss.tolist(), chosen.tolist(), strict=True))
            assert int(chosen.sum()) == total
            assert own <= min(lost) * (1 + 1e-12)


def plan(rng, scales="group", bits=1.5) -> Plan:
    return make_plan(moments(rng), bits, scales=scales, identity="a" * 64, texts={"docs": "b" * 64})


@pytest.mark.parametrize("scales", ["plan", "sequence", "group"])
def test_stored_vectors(rng, scales):
    """Exact tokens come back as they are; the others' errors cost what the allocation reckons with."""
    given = moments(rng)
    factor = torch.linalg.cholesky(given.covariance[0, 1] if scales == "plan" else given.within[0, 1])
    noise = torch.from_numpy(rng.standard_normal((2, 400, D)))
    x = (noise @ factor.mT + given.mean[0, 1][:, None]).float()
    loss = rotation(given, within=scales != "plan", damping=0.0).loss[0, 1]
    for bits in (0, 1, 2, 4):
        made = make_plan(given, bits, scales=scales, identity="", texts={}, damping=0.0)
        read = made.stored(1, "keys", x)
        end = 384 if scales == "group" else 400
        assert torch.equal(read[:, :16], x[:, :16])
        assert torch.equal(read[:, end:], x[:, end:])
        error = (read - x)[:, 16:end].double()
        cost = float(torch.einsum("hti,hij,htj->", error, given.gradients[0, 1], error)) / (end - 16)
        expected = float((loss * torch.tensor(DISTORTION).double()[made.widths[0, 1].long()]).sum())
        # Means of some 400 squares, the largest channel's counting most (8% each), and factors in steps of 2^(1/4).
        assert cost == pytest.approx(expected, rel=0.4)
        assert made.bits[0] + made.bits[1] == pytest.approx(2 * bits, abs=2 / given.mean.numel())


def test_effective_bits_count_everything(rng):
    """Rows filled up to bytes; a mean and factors where they are stored: counted here channel by channel."""
    for scales, tokens in itertools.product(("plan", "sequence", "group"), (128, 1024)):
        made = plan(rng, scales)
        for kind, bits in enumerate(made.effective_bits(tokens)):
            total = 0.0
            for head in made.widths[kind].reshape(-1, D).tolist():
                total += 8 * math.ceil(sum(head) / 8)
                if scales != "plan" and any(head):
                    total += 16 * D / tokens + 4 * sum(w > 0 for w in head) / (128 if scales == "group" else tokens)
            assert bits == pytest.approx(total / made.widths[kind].numel(), rel=1e-12)


def test_files_come_back_and_are_equal(rng, tmp_path):
    made = plan(rng)
    for name in ("one", "two"):
        save_plan(tmp_path / name, made)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = load_plan(tmp_path / "one", identity="a" * 64)
    for name in ("forward", "backward", "mean", "widths", "steps"):
        assert torch.equal(getattr(read, name), getattr(made, name))
    assert (read.scales, read.identity, read.texts, read.sinks) == ("group", "a" * 64, {"docs": "b" * 64}, 16)
    with pytest.raises(PlanError, match="was made for the checkpoint aaaaaaaaaaaa, not for cccccccccccc"):
        load_plan(tmp_path / "one", identity="c" * 64)


def test_damaged_files_are_refused(rng, tmp_path):
    path = tmp_path / "plan"
    save_plan(path, plan(rng))
    good = path.read_bytes()
    for text, new, message in (
        (b"bitmosaic.plan", b"bitmosaic.plum", "is not a plan: its format is 'bitmosaic.plum'"),
        (b'"version":"1.0"', b'"version":"2.0"', "has version '2.0'; this reader knows 1.x"),
        (b'\\"scales\\": \\"group\\"', b'\\"scales\\": \\"grupo\\"', "scales must be one of plan, sequence, group"),
    ):
        assert text in good
        write_file(path, good.replace(text, new))
        with pytest.raises(ValueError, match=message):
            load_plan(path)
    write_file(path, good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(PlanError, match="is damaged: its contents do not have the hash"):
        load_plan(path)
    write_file(path, good[:200])
    with pytest.raises(PlanError, match="truncated or not a safetensors file"):
        load_plan(path)
    write_file(path, safetensors.torch.save({"x": torch.zeros(1)}))
    with pytest.raises(PlanError, match="is not a plan: its format is None"):
        load_plan(path)
    with pytest.raises(FileNotFoundError, match="no plan at"):
        load_plan(tmp_path / "none")


def test_impossible_plans_are_named(rng):
    made = plan(rng)
    with pytest.raises(ValueError, match="bits must be"):
        plan(rng, bits=4.5)
    with pytest.raises(PlanError, match=r"each width must be in 0\.\.4, not 5"):
        replace(made, widths=torch.full_like(made.widths, 5))
    with pytest.raises(PlanError, match="a rotation is singular or damaged"):
        replace(made, backward=torch.zeros_like(made.backward))
    with pytest.raises(PlanError, match="mean must be finite"):
        replace(made, mean=made.mean * float("nan"))
    with pytest.raises(PlanError, match=r"widths must be \[2, 3, 2, 8\], not \[2, 3, 2, 7\]"):
        replace(made, widths=made.widths[..., :7])
    dead = moments(rng)
    dead.gradients[1, 2, 0] = 0
    with pytest.raises(ValueError, match="no gradient reaches the values of layer 2, head 0"):
        rotation(dead, within=True)


def test_zero_bits_and_constant_channels(rng):
    """No bits: every coded token reads as its mean. A channel that never moves: its mean, whatever the width."""
    none = plan(rng, "sequence", 0.0)
    x = torch.from_numpy(rng.standard_normal((2, 200, D))).float()
    mean = x[:, 16:].double().mean(1, keepdim=True).half().float()
    assert torch.equal(none.stored(0, "keys", x)[:, 16:], mean.expand(2, 184, D))
    constant = replace(plan(rng, "plan", 4.0), steps=torch.zeros(2, 3, 2, D))
    assert np.isfinite(constant.stored(0, "keys", x).numpy()).all()

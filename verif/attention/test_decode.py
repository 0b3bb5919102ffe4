"""A layer of real keys and values through address generator, score core and value core, in every format they take."""

from dataclasses import replace

import pytest

from golden.kv.config import CacheFormat, KeyFormat, ValueFormat, preset
from golden.llm import capture_kv
from golden.rlkv.plan import MemoryPlan
from hosts.attention.decode import decode
from hosts.attention.layer import LayerCache
from hw.rlkv.generator import KvAddressGenerator
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi
from sim.design import build_design
from spec.attention import AttentionConfig
from spec.kv_formats import KvTransform
from spec.rlkv import rlkv_preset

CONFIG = AttentionConfig(minima=True, transforms=frozenset({KvTransform.WHT, KvTransform.RFFT}))
CONTEXT = 296
"""A block of 112 tokens is packed; with the next token the residual wraps in its ring."""
KEYS = {
    "K2S+K1, wht": KeyFormat(),
    "K1, wht": KeyFormat(anomalous_code=None),
    "K2S, wht": KeyFormat(code="s2", anomalous_code=None),
    "K2S+K1, rfft": KeyFormat(transform="rfft"),
    "K2S, rfft": KeyFormat(code="s2", anomalous_code=None, transform="rfft"),
    "K2+K1, rfft": KeyFormat(anomalous_code="u2", metadata="fp16", transform="rfft"),
    "K1": KeyFormat(anomalous_code=None, transform="none", metadata="fp16", centre=False),
    "K2+K1": KeyFormat(anomalous_code="u2", metadata="q8"),
    "K2": KeyFormat(code="u2", anomalous_code=None, transform="none", metadata="fp16"),
}
VALUES = {"V158": ValueFormat(), "V2": ValueFormat(code="u2", metadata="q8")}
RLKV = rlkv_preset("smollm2-135m", layers=1, block_bytes=4096)


@pytest.fixture(scope="module")
def designs():
    generator = build_design(KvAddressGenerator(RLKV), "kv_address_generator")
    cores = build_design(ScoreCoreAxi(CONFIG), "score_core_axi"), build_design(ValueCoreAxi(CONFIG), "value_core_axi")
    return generator, cores


@pytest.mark.sim
@pytest.mark.parametrize("key", KEYS)
def test_decoding(designs, key, seed):
    """Two full heads and a window head, a prefill and a step; both value formats, V2 beside V158 every other key."""
    generator, cores = designs
    value = VALUES["V2" if list(KEYS).index(key) % 2 else "V158"]
    fmt = replace(preset("default"), key=KEYS[key], value=value)
    assert isinstance(fmt, CacheFormat)
    plan = MemoryPlan(config=RLKV, head_dim=64, fmt=fmt, n_full=2)
    kv = capture_kv(1024)
    pools = plan.pools(CONTEXT + RLKV.block_tokens)
    cache = LayerCache(plan, [0b101], 0, [0, 1, 2], kv.k[7, :, : CONTEXT + 1], kv.v[7, :, : CONTEXT + 1], pools,
                       per_query=False)  # fmt: skip
    cache.prefill(CONTEXT)
    cache.step()
    reads, _, wrong = cache.run(generator, seed)
    assert wrong == 0
    assert [read.full for read in reads] == [True, False, True]
    queries = [(kv.q[7, read.query, CONTEXT].double() / 8).half() for read in reads]
    scores, outputs = decode(cache, reads, queries, cores, CONFIG, seed=seed)
    for read, score, output in zip(reads, scores, outputs, strict=True):
        assert score.compared == (CONTEXT + 1 if read.full else RLKV.window_slots)
        assert output.compared == 64
        assert score.mismatches == output.mismatches == 0
        assert score.port_bytes + output.port_bytes == plan.read_bytes(CONTEXT + 1, full=read.full)
        assert score.max_rel_error < 2e-2


@pytest.mark.sim
def test_a_wrong_byte_is_noticed(designs, seed):
    """One bit of a block that is read differs from what was written: the scores are not the model's."""
    generator, cores = designs
    plan = MemoryPlan(config=RLKV, head_dim=64, fmt=preset("default"), n_full=1)
    kv = capture_kv(1024)
    pools = plan.pools(CONTEXT + RLKV.block_tokens)
    cache = LayerCache(plan, [0b001], 0, [0], kv.k[7, :1, :CONTEXT], kv.v[7, :1, :CONTEXT], pools, per_query=False)
    cache.prefill(CONTEXT)
    cache.read()
    reads, _, _ = cache.run(generator, seed)
    at, (command, data) = next((n, pair) for n, pair in enumerate(reads[0].keys) if pair[0].tokens > 100)
    reads[0].keys[at] = command, data[:-20] + bytes([data[-20] ^ 16]) + data[-19:]
    query = (kv.q[7, 0, CONTEXT - 1].double() / 8).half()
    scores, outputs = decode(cache, reads, [query], cores, CONFIG, seed=seed)
    assert scores[0].mismatches == 1
    assert outputs[0].mismatches == 0

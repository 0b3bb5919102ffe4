"""The published head tables through the address generator, at full size: every layer, every head, keys and values."""

import pytest

from golden.kv.config import preset
from golden.rlkv import MemoryPlan, select_full
from hosts.address_generator import Case, build_generator, from_beats, tight_pools
from sim.job import run_jobs
from spec.rlkv import rlkv_preset
from spec.rlkv_transfers import KvPart, RlkvOp
from studies.published_heads import SPARSITIES, TABLES, adapter
from verif.rlkv.contents import Contents

pytestmark = pytest.mark.sim

BLOCKS = 1 << 12
LONG = 1 << 15


def one_step(config, masks, rng):
    """Prefill, pack, write, then a decoding step that reads all."""
    n_full = sum(mask.bit_count() for mask in masks)
    pools = tight_pools(config, full=n_full, window=config.layers * config.heads - n_full, blocks=BLOCKS)
    case = Case(config, pools)
    case.policy(masks)
    case.do(RlkvOp.OPEN)
    for count in (int(rng.integers(256, 384)), 1):
        case.do(RlkvOp.EXTEND, count=count)
        case.pack_all(0)
        case.every_layer(RlkvOp.WRITE, 0)
    case.every_layer(RlkvOp.READ, 0)
    return case


@pytest.mark.parametrize("name", TABLES)
def test_every_sparsity(name, rng, seed):
    config = rlkv_preset(TABLES[name], blocks=BLOCKS)
    policies = [select_full(adapter(name), sparsity) for sparsity in SPARSITIES]
    cases = []
    for policy in policies:
        policy.check(config)
        cases.append(one_step(config, policy.masks(), rng))
        assert not cases[-1].model.errors
    assert [policies[0].n_window, policies[-1].n_full] == [0, 0]
    results = run_jobs(build_generator(config), [case.job() for case in cases], seed=seed)
    for case, result in zip(cases, results, strict=True):
        case.compare(result)
    half = SPARSITIES.index(0.5)
    contents = Contents(config, policies[half].masks())
    contents.follow(cases[half].ops, from_beats(config, results[half].outputs["o"]))
    assert contents.reads == 2 * config.layers * config.heads


def test_bytes_at_32k(seed):
    """One full and one window head of Llama-3.1-8B at 32k tokens: bytes on the bus equal the plan's."""
    config = rlkv_preset("llama-3.1-8b", blocks=BLOCKS)
    plan = MemoryPlan(config=config, head_dim=128, fmt=preset("default"), n_full=128)
    pools = tight_pools(config, full=128, window=128, blocks=BLOCKS)
    case = Case(config, pools)
    case.policy([0b1111_0000] * config.layers)
    case.do(RlkvOp.OPEN)
    case.do(RlkvOp.EXTEND, count=LONG)
    for part in KvPart:
        start = config.sink
        for size in plan.block_bytes(part, LONG):
            end = (start // config.block_tokens + 1) * config.block_tokens
            beats = size // config.beat_bytes
            where = {"layer": 9, "head": 5, "last_head": 5, "part": part}
            assert not case.do(RlkvOp.PACK, **where, count=end - start, beats=beats)[-1].status
            start = end
    reads = len(case.expected)
    for head in (5, 2):
        for part in KvPart:
            assert not case.do(RlkvOp.READ, layer=9, head=head, last_head=head, part=part)[-1].status
    (result,) = run_jobs(build_generator(config), [case.job()], seed=seed)
    case.compare(result)
    measured = dict.fromkeys((5, 2), 0)
    for command in from_beats(config, result.outputs["o"])[reads:]:
        if not command.last:
            measured[command.head] += command.beats * config.beat_bytes
    assert measured == {5: plan.read_bytes(LONG, full=True), 2: plan.read_bytes(LONG, full=False)}

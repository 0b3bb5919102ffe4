"""Configurations, the memory plan and its budgets, and the address model against the contents of memory."""

import re
from dataclasses import asdict, replace

import pytest

from golden.kv.config import preset
from golden.kv.grouping import token_groups
from golden.rlkv import (
    CacheShape,
    MemoryPlan,
    budget_sglang,
    bytes_per_sequence,
    full_count,
    kv_bytes_rlkv,
    packed_end,
)
from golden.rlkv.__main__ import MARKERS, table
from hosts.address_generator import Case, tight_pools
from sim.build import ROOT
from spec.rlkv import RLKV_PRESETS, RlkvConfig, RlkvPools, default_block_bytes, exact_token_bytes, rlkv_preset
from spec.rlkv_transfers import CommandKind, KvPart, RlkvOp
from verif.rlkv.contents import Contents
from verif.rlkv.scenario import disciplined, random_masks

LLAMA = CacheShape(layers=32, heads=8, head_dim=128)
TINY = rlkv_preset("tiny")
GIB = 1 << 30


def plan(n_full=128, **changes):
    fields = {"config": rlkv_preset("llama-3.1-8b"), "head_dim": 128, "fmt": preset("default"), "n_full": n_full}
    return MemoryPlan(**(fields | changes))


@pytest.mark.parametrize(("sparsity", "gib"), [(0, 4.00), (0.4, 2.41), (0.5, 2.005), (0.6, 1.615)])
def test_bytes_per_sequence_of_rlkv(sparsity, gib):
    """Llama-3.1-8B, FP16, 32k tokens, 16 + 64 in window heads."""
    count = kv_bytes_rlkv(LLAMA, full_count(LLAMA.total, sparsity), 1 << 15)
    assert count / GIB == pytest.approx(gib, abs=5e-4)


def test_kv_bytes_by_hand():
    shape = CacheShape(layers=2, heads=3, head_dim=8)
    assert kv_bytes_rlkv(shape, 4, 100, window=80) == 2 * 8 * 2 * (4 * 100 + 2 * 80)
    assert kv_bytes_rlkv(shape, 4, 50, window=80, element_bytes=1) == 2 * 8 * 6 * 50
    for bad in ({"n_full": 7, "tokens": 1}, {"n_full": 1, "tokens": -1}):
        with pytest.raises(ValueError, match="must be"):
            kv_bytes_rlkv(shape, **bad)
    with pytest.raises(ValueError, match="window must be at least 1, not 0"):
        kv_bytes_rlkv(shape, 4, 100, window=0)
    with pytest.raises(ValueError, match="layers must be at least 1, not 0"):
        CacheShape(layers=0, heads=1, head_dim=1)


def test_budget_of_sglang():
    """(1000 x 6 - 10 x 80 x 3) // 3 tokens; where that is less than T0, the floor asks for more than there is."""
    shape = CacheShape(layers=2, heads=3, head_dim=8)
    roomy = budget_sglang(1000, shape, 3, requests=10)
    assert (roomy.full_tokens, roomy.exceeded) == (1200, False)
    tight = budget_sglang(1000, shape, 3, requests=20)
    assert (tight.full_tokens, tight.exceeded) == (1000, True)
    with pytest.raises(ValueError, match=re.escape("n_full must be in 1..6, not 0")):
        budget_sglang(1000, shape, 0, requests=1)


def test_our_budget_never_exceeds_the_memory():
    memories = [20 << 20, 64 << 20, 300 << 20]
    for requests in (1, 3):
        for memory in memories:
            tokens = plan().longest_context(memory, requests)
            used = plan().reserved_bytes(tokens, requests)
            assert used <= memory or tokens == 0
            assert plan().reserved_bytes(tokens + 1, requests) > memory
    assert plan().longest_context(1000) == 0


@pytest.mark.parametrize("name", ["default", "fp16", "keys-s2"])
def test_read_bytes_are_the_commands(name):
    """The plan's equation against what the address model reads, for many lengths, full and window heads."""
    largest = 128 * 256 if name == "fp16" else default_block_bytes(128) + 1024
    config = rlkv_preset("llama-3.1-8b", layers=1, heads=2, requests=1, block_bytes=largest, blocks=1 << 8)
    it = plan(config=config, fmt=preset(name), n_full=1)
    case = Case(config, it.pools(5000))
    case.policy([0b10])
    case.do(RlkvOp.OPEN)
    total = 0
    for count in (1, 14, 1, 1, 60, 3, 200, 128, 1, 127, 1, 1000, 300):
        case.do(RlkvOp.EXTEND, count=count)
        total += count
        read = {0: 0, 1: 0}
        for part in KvPart:
            sizes = it.block_bytes(part, total)
            blocks = case.model.sequences[0].blocks.get((0, 1, part), [])
            for size in sizes[len(blocks) :]:
                at = packed_tokens(case, part)
                end = (at // 128 + 1) * 128
                where = {"head": 1, "last_head": 1, "part": part, "count": end - at}
                assert not case.do(RlkvOp.PACK, **where, beats=size // config.beat_bytes)[-1].status
            commands = case.do(RlkvOp.READ, last_head=1, part=part)
            assert not commands[-1].status
            for command in commands[:-1]:
                read[command.head] += command.beats * config.beat_bytes
        assert read == {0: it.read_bytes(total, full=False), 1: it.read_bytes(total, full=True)}
        assert bytes_per_sequence(it, total) == sum(read.values())
        assert case.pools.blocks - case.model.free_blocks == it.blocks(total)


def packed_tokens(case, part):
    return case.config.sink + sum(block.rows for block in case.model.sequences[0].blocks.get((0, 1, part), []))


def test_packed_end_is_where_the_cache_packs():
    """The same boundary as `golden.kv.cache.LayerCache`: whole groups, older than the newest ones."""
    config = rlkv_preset("llama-3.1-8b")
    for tokens in range(1, 900):
        groups = token_groups(config.sink, max(config.sink, tokens - config.residual), config.block_tokens)
        end = int(groups[-1].tokens[-1]) + 1 if groups else config.sink
        assert packed_end(config, tokens) == end


def test_ratio_to_fp16_at_32k():
    """Half of the heads windowed, default formats, everything counted."""
    assert kv_bytes_rlkv(LLAMA, LLAMA.total, 1 << 15) / plan().read_bytes_per_token(1 << 15) >= 17


def test_plan_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="key group must be block_tokens=128, not 32"):
        plan(fmt=preset("kivi"))
    with pytest.raises(ValueError, match="sinks and recent of the format must be sink=16 and residual=64"):
        plan(config=rlkv_preset("llama-3.1-8b", residual=64))
    with pytest.raises(ValueError, match="block_bytes must be at least 3392, not 3376"):
        plan(config=rlkv_preset("llama-3.1-8b", block_bytes=3376))
    with pytest.raises(ValueError, match=re.escape("n_full must be in 0..256, not 257")):
        plan(n_full=257)
    stp = replace(preset("default"), value=replace(preset("default").value, protected=0.2))
    with pytest.raises(ValueError, match="protected must be 0"):
        plan(fmt=stp)
    with pytest.raises(ValueError, match="tokens must be in"):
        plan().read_bytes(0, full=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("layers", 0), ("heads", 65), ("group", 9), ("requests", 17), ("sink", 32), ("recent", 0), ("residual", -1),
     ("block_tokens", 48), ("token_bytes", 81), ("block_bytes", 8), ("blocks", 0), ("context", (1 << 20) + 1),
     ("beat_bytes", 12), ("address_bits", 65)],
)  # fmt: skip
def test_config_refuses(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be .*not {value}$"):
        replace(TINY, **{field: value})
    with pytest.raises(TypeError, match=f"^{field} must be an int, not '1'$"):
        replace(TINY, **{field: "1"})


def test_presets():
    assert rlkv_preset("llama-3.1-8b") == RlkvConfig()
    with pytest.raises(ValueError, match="preset must be one of"):
        rlkv_preset("gpt")
    with pytest.raises(ValueError, match="kind must be one of"):
        exact_token_bytes(64, "int4")
    for config in RLKV_PRESETS.values():
        assert config.lists == 2 * config.requests * config.layers * config.heads
    # By hand: 64 + 4 bytes, 128 + 4, at least a beat; key 8 + 16 + 96 + 128 x 24, value 8 + 96 + 3277 bytes.
    sizes = [exact_token_bytes(8), exact_token_bytes(64), exact_token_bytes(128), exact_token_bytes(128, "fp16")]
    assert sizes == [16, 68, 132, 256]
    assert default_block_bytes(128) == 3392


def test_pools_refuse():
    good = tight_pools(TINY, full=4, window=4, blocks=8, top=False)
    good.check(TINY)
    for change, message in [
        ({"full_areas": 13}, "full_areas must be in 0..12, not 13"),
        ({"blocks": TINY.blocks + 1}, f"blocks must be in 0..{TINY.blocks}, not {TINY.blocks + 1}"),
        ({"window_base": good.window_base - 16}, "window_base must be at least"),
        ({"block_base": good.block_base + 8}, "block_base must be in .* multiple of 16"),
        ({"block_base": (1 << 20) - 16}, "block pool must end within 20 address bits"),
    ]:
        with pytest.raises(ValueError, match=message):
            RlkvPools(**(asdict(good) | change)).check(TINY)


def test_model_reads_what_was_written(rng):
    """Address model alone, in more configurations than the simulations have time for."""
    for _ in range(12):
        config = replace(
            TINY, layers=int(rng.integers(1, 4)), heads=int(rng.integers(1, 5)), group=int(rng.integers(1, 9)),
            requests=int(rng.integers(1, 4)), sink=int(rng.integers(0, 32)), recent=int(rng.integers(1, 40)),
            residual=int(rng.integers(0, 60)), blocks=1 << 12, address_bits=24,
        )  # fmt: skip
        masks = random_masks(config, rng)
        pools = tight_pools(config, full=config.areas, window=config.areas, blocks=1 << 12)
        case = disciplined(config, pools, rng, steps=25, masks=masks)
        contents = Contents(config, masks)
        contents.follow(case.ops, case.expected)
        assert contents.reads


def test_contents_notice_a_wrong_address(rng):
    """The checker itself: a command moved by one beat, a lost one, or a lost write does not pass."""
    masks = [0b01, 0b11, 0b00]
    pools = tight_pools(TINY, full=6, window=6, blocks=200)
    case = disciplined(TINY, pools, rng, steps=12, masks=masks)
    reads = [i for i, command in enumerate(case.expected) if command.kind and not command.write]
    writes = [i for i, command in enumerate(case.expected) if command.kind and command.write]

    def passes(commands):
        try:
            Contents(TINY, masks).follow(case.ops, commands)
        except AssertionError:
            return False
        return True

    assert passes(case.expected)
    for index in rng.choice(reads, 8):
        moved = replace(case.expected[index], address=case.expected[index].address + TINY.beat_bytes)
        assert not passes([*case.expected[:index], moved, *case.expected[index + 1 :]])
        assert not passes([*case.expected[:index], *case.expected[index + 1 :]])
    sink_write = next(i for i in writes if case.expected[i].kind == CommandKind.SINK)
    assert not passes([*case.expected[:sink_write], *case.expected[sink_write + 1 :]])


def test_the_table_in_the_document():
    """Its figures are the command's."""
    text = (ROOT / "docs" / "rlkv.md").read_text()
    begin, end = MARKERS
    assert text.partition(begin)[2].partition(end)[0].strip() == table(1 << 15).strip()

"""The address generator's Verilog against its model: every command and the status, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from hosts.address_generator import Case, build_generator, from_beats, tight_pools
from sim.job import run_jobs
from spec.rlkv import rlkv_preset
from spec.rlkv_transfers import CommandKind, KvPart, RlkvError, RlkvOp
from verif.rlkv.contents import Contents
from verif.rlkv.scenario import disciplined, random_masks, wild

pytestmark = pytest.mark.sim

TINY = rlkv_preset("tiny")
ODD = replace(
    TINY, layers=5, heads=3, group=5, requests=3, sink=7, recent=13, residual=5, block_tokens=64, token_bytes=100,
    block_bytes=1376, blocks=50, context=700, beat_bytes=32, address_bits=23,
)  # fmt: skip
LEAST = replace(
    TINY, layers=1, heads=1, group=8, requests=1, sink=0, recent=1, residual=0, blocks=7, context=90, address_bits=17
)
CONFIGS = {"tiny": TINY, "odd": ODD, "least": LEAST}
RATES = ((0, 0, False), (0.4, 0.4, False), (0, 0.8, True))


def generous(config):
    """Pools that are never exhausted, at the top of the address space."""
    pages = -(-config.context // config.block_tokens)
    blocks = min(config.blocks, config.lists * pages)
    return tight_pools(config, full=config.areas, window=config.areas, blocks=blocks)


def scarce(config):
    areas = max(1, config.areas * 2 // 3)
    return tight_pools(config, full=areas, window=areas, blocks=min(12, config.blocks // 4), top=False)


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def run(cases, jobs, seed):
    results = run_jobs(build_generator(cases[0].config), jobs, seed=seed)
    for case, result in zip(cases, results, strict=True):
        case.compare(result)
    return results


def test_random_operations(config, rng, seed):
    """Good, wrong and senseless ones, in plentiful and scarce pools, at three rates."""
    cases = [wild(config, pools, rng, steps=500) for pools in (generous(config), scarce(config)) for _ in RATES]
    jobs = [
        case.job(idle=idle, stall=stall, burst=4, wait_for_valid=waits)
        for case, (idle, stall, waits) in zip(cases, 2 * RATES, strict=True)
    ]
    run(cases, jobs, seed)
    seen = {code for case in cases for code in RlkvError if case.model.errors >> code & 1}
    assert seen >= {RlkvError.OPERATION, RlkvError.REQUEST, RlkvError.LENGTH, RlkvError.UNPACKED, RlkvError.BLOCKS}


def test_decoding_reads_what_was_written(rng, seed):
    """Prefills and decoding steps of two requests; what the design's own commands put in memory is what they read."""
    masks = [0b01, 0b11, 0b00]
    config = TINY
    pools = tight_pools(config, full=6, window=6, blocks=256)
    case = disciplined(config, pools, rng, steps=120, masks=masks)
    (result,) = run([case], [case.job(stall=0.1)], seed)
    contents = Contents(config, masks)
    contents.follow(case.ops, from_beats(config, result.outputs["o"]))
    assert contents.reads > 1000


def test_reset_in_mid_request(rng, seed):
    """Whatever was under way, after a reset no request is open, no block taken, no policy loaded."""
    case = wild(TINY, generous(TINY), rng, steps=150)
    resets = sorted(int(cycle) for cycle in rng.integers(1, 800, 8))
    run([case], [case.job(stall=0.3, resets=resets)], seed)


@pytest.mark.parametrize("group", [1, 3, 6])
def test_query_groups(group, rng, seed):
    """Besides, with sinks but no residual: a sequence of whole blocks ends with a block."""
    config = replace(LEAST, group=group, heads=2, sink=5, recent=3, context=200)
    case = disciplined(config, generous(config), rng, steps=25, masks=[0b10])
    if case.model.sequences:
        case.do(RlkvOp.CLOSE)
    case.do(RlkvOp.OPEN)
    case.do(RlkvOp.EXTEND, count=2 * config.block_tokens)
    case.pack_all(0)
    *_, last, done = case.do(RlkvOp.READ, last_head=1)
    assert (last.kind, last.head_last, done.status) == (CommandKind.BLOCK, 1, RlkvError.NONE)
    run([case], [case.job()], seed)
    assert {command.query for command in case.expected} == set(range(2 * group))


def test_blocks_run_out_loudly(seed):
    """No free block: PACK says so, reads of that head are refused, the rest goes on; CLOSE gives the blocks back."""
    pools = tight_pools(TINY, full=12, window=12, blocks=5)
    case = Case(TINY, pools)
    case.policy([0b11, 0b01, 0b00])
    case.do(RlkvOp.OPEN, request=0)
    case.do(RlkvOp.EXTEND, request=0, count=80)
    case.pack_all(0)
    case.every_layer(RlkvOp.WRITE, 0)
    case.every_layer(RlkvOp.READ, 0)
    statuses = [command.status for command in case.expected if command.last]
    assert {RlkvError.BLOCKS, RlkvError.UNPACKED, RlkvError.NONE} == set(statuses)
    assert case.model.free_blocks == 0
    case.do(RlkvOp.CLOSE, request=0)
    assert case.model.free_blocks == 5
    case.do(RlkvOp.OPEN, request=1)
    case.do(RlkvOp.EXTEND, request=1, count=48)
    assert all(case.pack_due(1, 0, head, part) for head in range(2) for part in KvPart)
    case.every_layer(RlkvOp.WRITE, 1)
    assert case.do(RlkvOp.READ, request=1, last_head=1)[-1].status == RlkvError.NONE
    run([case], [case.job()], seed)


def test_areas_run_out_loudly(seed):
    cases = []
    for full, window in ((4, 12), (12, 5), (3, 3)):
        case = Case(TINY, tight_pools(TINY, full=full, window=window, blocks=4))
        case.policy([0b11, 0b01, 0b00])
        statuses = [case.do(RlkvOp.OPEN, request=request)[-1].status for request in (1, 0, 1)]
        assert statuses == [RlkvError.AREAS, RlkvError.NONE, RlkvError.AREAS]
        case.do(RlkvOp.EXTEND, request=0, count=3)
        case.every_layer(RlkvOp.READ, 0)
        cases.append(case)
    run(cases, [case.job() for case in cases], seed)


def bad_pools():
    """A pool that ends one beat beyond the address space (each of the three), and one block too many."""
    top = 1 << TINY.address_bits
    good = generous(TINY)
    sizes = {name: size for name, (_, size) in good.regions(TINY).items()}
    for name, size in sizes.items():
        yield replace(good, **{f"{name}_base": top - size + TINY.beat_bytes})
    yield replace(good, blocks=TINY.blocks + 1, block_base=0)


def test_pools_outside_the_address_space(seed):
    """OPEN refuses them; pools that end exactly at the top are good, and are taken over by the next OPEN."""
    cases = []
    for pools in [*bad_pools(), generous(TINY)]:
        case = Case(TINY, pools)
        case.policy([0b11, 0b01, 0b00])
        expected = RlkvError.NONE if pools.fits(TINY) else RlkvError.ADDRESS
        assert case.do(RlkvOp.OPEN)[-1].status == expected
        assert case.do(RlkvOp.EXTEND, count=5)[-1].status == (RlkvError.REQUEST if expected else RlkvError.NONE)
        cases.append(case)
    assert [case.model.errors for case in cases].count(0) == 1
    run(cases, [case.job() for case in cases], seed)


def test_every_error_and_the_next_request(seed):
    """Each status code once, each followed by a request that is exact."""
    case = Case(TINY, tight_pools(TINY, full=12, window=12, blocks=2))

    def fails(error, op, **fields):
        assert case.do(op, **fields)[-1].status == error, (error, op, fields)
        if case.model.sequences and case.model.sequences[0].tokens:
            assert case.do(RlkvOp.READ, layer=2, last_head=1)[-1].status == RlkvError.NONE

    fails(RlkvError.POLICY, RlkvOp.OPEN)
    case.policy([0b11, 0b01])
    fails(RlkvError.POLICY, RlkvOp.OPEN)
    case.policy([0b11, 0b01, 0b00, 0b11, 0b11])
    fails(RlkvError.POLICY, RlkvOp.OPEN)
    case.policy([0b11, 0b01, 0b00])
    fails(RlkvError.OPERATION, 0)
    fails(RlkvError.REQUEST, RlkvOp.EXTEND, count=1)
    fails(RlkvError.REQUEST, RlkvOp.OPEN, request=2)
    case.do(RlkvOp.OPEN)
    fails(RlkvError.LENGTH, RlkvOp.READ)
    fails(RlkvError.CONTEXT, RlkvOp.EXTEND, count=TINY.context + 1)
    case.do(RlkvOp.EXTEND, count=85)
    fails(RlkvError.REQUEST, RlkvOp.OPEN)
    fails(RlkvError.POLICY, RlkvOp.POLICY, mask=1)
    fails(RlkvError.LAYER, RlkvOp.READ, layer=TINY.layers)
    fails(RlkvError.LAYER, RlkvOp.WRITE, layer=TINY.layers)
    for head, last in ((0, 2), (2, 2), (1, 0)):
        fails(RlkvError.HEAD, RlkvOp.READ, head=head, last_head=last)
    fails(RlkvError.HEAD, RlkvOp.PACK, last_head=1, count=28, beats=3)
    fails(RlkvError.LENGTH, RlkvOp.EXTEND)
    fails(RlkvError.CONTEXT, RlkvOp.EXTEND, count=TINY.context - 84)
    fails(RlkvError.WINDOW_HEAD, RlkvOp.PACK, layer=2, count=28, beats=3)
    for count, beats in ((0, 3), (33, 3), (28, 0), (28, TINY.block_beats + 1)):
        fails(RlkvError.ROWS, RlkvOp.PACK, count=count, beats=beats)
    fails(RlkvError.UNPACKED, RlkvOp.READ)
    case.do(RlkvOp.PACK, count=28, beats=3)
    fails(RlkvError.UNPACKED, RlkvOp.READ)
    case.do(RlkvOp.PACK, count=32, beats=TINY.block_beats)
    fails(RlkvError.ROWS, RlkvOp.PACK, count=1, beats=3)
    assert case.do(RlkvOp.READ)[-1].status == RlkvError.NONE
    fails(RlkvError.UNPACKED, RlkvOp.READ, part=KvPart.VALUE)
    fails(RlkvError.BLOCKS, RlkvOp.PACK, head=1, last_head=1, count=28, beats=3)
    # The others: test_pools_outside_the_address_space, test_areas_run_out_loudly.
    missing = {code for code in RlkvError if code and not case.model.errors >> code & 1}
    assert missing == {RlkvError.ADDRESS, RlkvError.AREAS}
    run([case], [case.job(stall=0.2)], seed)


def test_rate(seed):
    """The documented cycles: first command, heads, blocks one per cycle."""
    config = ODD
    case = Case(config, generous(config))
    case.policy([0b101] * config.layers)
    case.do(RlkvOp.OPEN)
    case.do(RlkvOp.EXTEND, count=600)
    for head in (0, 2):
        assert case.pack_due(0, 0, head, KvPart.KEY)
    reads = len(case.expected)
    case.do(RlkvOp.READ, last_head=2)
    (result,) = run([case], [case.job()], seed)
    cycles = result.output_cycles["o"][reads:]
    issued = result.input_cycles["i"][-1]
    kinds = [command.kind for command in case.expected[reads:]]
    blocks = [cycles[i] for i, kind in enumerate(kinds) if kind == CommandKind.BLOCK][:9]
    assert np.array_equal(np.diff(blocks), np.ones(8))
    assert cycles[0] - issued == 7
    assert cycles[-1] - issued <= 5 + 3 * 8 + kinds.count(CommandKind.BLOCK)


def test_random_policies_share_the_pools(rng, seed):
    """Two requests under random policies: areas of different heads never overlap."""
    cases = []
    for _ in range(6):
        masks = random_masks(ODD, rng)
        case = disciplined(ODD, generous(ODD), rng, steps=6, masks=masks)
        cases.append(case)
    run(cases, [case.job() for case in cases], seed)


def test_errors_are_sticky_until_cleared(seed):
    """Errors outlive good operations, and clearing them touches nothing else."""
    case = Case(TINY, generous(TINY))
    case.policy([0b11, 0b01, 0b00])
    for _ in range(3):
        case.do(RlkvOp.READ)
    case.do(RlkvOp.OPEN)
    case.do(RlkvOp.EXTEND, count=9)
    case.every_layer(RlkvOp.WRITE, 0)
    assert (case.model.errors, case.model.count) == (1 << RlkvError.REQUEST, 3)
    later = Case(TINY, case.pools)
    later.model = case.model
    later.every_layer(RlkvOp.READ, 0)
    results = run_jobs(build_generator(TINY), [case.job(), later.job(clear=1, reset=False)], seed=seed)
    case.compare(results[0])
    later.compare(results[1], cleared=True)

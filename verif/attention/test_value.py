"""`ValueCore` against the exact model: formats, exact tokens, bad packets and weights, real caches, rate."""

import numpy as np
import pytest
import torch

from golden.attention.slots import write_slots
from golden.kv.config import preset
from golden.kv.pack import pack_block
from golden.kv.packed import pack_cache
from golden.llm import capture_kv
from hosts.attention.value_lists import Run, ValueList, compare_values, value_job
from hw.attention.value.core import ValueCore
from sim.design import build_design
from sim.job import run_jobs
from spec.attention import BUS_BYTES, AttentionConfig, AttentionError
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from verif.kv.blocks import random_block, random_header

CONFIGS = (AttentionConfig(), AttentionConfig(channels=128, weight_bits=11))
FORMATS = (KvFormat.V158, KvFormat.V2)
TRAFFIC = [{}, {"idle": 0.3, "stall": 0.3}, {"idle": {"i": 0.7}, "stall": 0.1, "burst": 4.0}]


@pytest.fixture(
    scope="module",
    params=[CONFIGS[0], pytest.param(CONFIGS[1], marks=pytest.mark.full)],
    ids=lambda c: f"{c.channels}",
)
def core(request):
    return request.param, build_design(ValueCore(request.param), "value_core")


def random_weights(rng, rows):
    """Probabilities over the whole range of FP16, zeros and subnormals among them."""
    p = np.exp(rng.normal(size=rows) * rng.integers(1, 6)) * 2.0 ** -rng.integers(0, 16)
    return torch.from_numpy(np.where(rng.random(rows) < 0.05, 0, p)).clamp(max=1).half()


def random_item(rng, config, channels, rows):
    if rng.random() < 0.35:
        cuts = tuple(int(n) for n in rng.integers(1, max(2, rows // 4), rng.integers(1, 4)))
        tokens = sum(cuts)
        codes = torch.from_numpy(rng.integers(-128, 128, (tokens, channels))).to(torch.int8)
        scale = torch.from_numpy(np.exp(rng.normal(size=tokens) * 3) / 64).half()
        scale[torch.from_numpy(rng.random(tokens) < 0.1)] *= 2.0**-12
        return Run(codes, scale, cuts)
    header = random_header(rng, config.parser, rows=rows, format=KvFormat(rng.choice(FORMATS)), channels=channels,
                           segment0=channels, transform0=KvTransform.NONE)  # fmt: skip
    return random_block(rng, header)


def random_list(rng, config, channels, items=3, rows=20):
    found = [random_item(rng, config, channels, rows) for _ in range(items)]
    sizes = [len(item.codes) for item in found]
    return ValueList(found, [random_weights(rng, size) for size in sizes])


@pytest.mark.sim
def test_random_lists(core, rng, seed):
    config, built = core
    jobs, expectations = [], []
    for channels in (64, config.channels, 16, 8 * int(rng.integers(1, config.channels // 8))):
        for options in TRAFFIC:
            lists = [random_list(rng, config, channels) for _ in range(6)]
            lists.append(random_list(rng, config, channels, items=1, rows=128))
            job, expected = value_job(lists, config, **options)
            jobs.append(job)
            expectations.append(expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        compare_values(result, expected)


def other_header(rng, item, **changes):
    """A packet like ``item``'s but for some of its header."""
    header = type(item.header)(**{**vars(item.header), **changes})
    return pack_block(random_block(rng, header))


def spoil_block(rng, block, p, kind):
    """(packet, weights, error) of a block made bad; None: as it was."""
    good = pack_block(block)
    header, beats = block.header, len(good) // BUS_BYTES
    rows_at, rows_end = header.rows_offset, header.rows_offset + header.rows_bytes
    ternary = header.format is KvFormat.V158
    last = np.arange(len(p)) == len(p) - 1
    if kind == "header":
        at = int(rng.integers(8))
        return good[:at] + bytes([good[at] ^ 1 << int(rng.integers(8))]) + good[at + 1 :], None, KvError.HEADER
    if kind == "format":
        key = other_header(rng, block, format=KvFormat.K1, transform0=KvTransform.NONE)
        return key, None, KvError.FORMAT
    if kind == "layout":
        wide = header.channels + (8 if header.channels < 64 else -8)
        return other_header(rng, block, channels=wide, segment0=wide), None, AttentionError.LAYOUT
    if kind == "short" and beats > 1:
        return good[: BUS_BYTES * int(rng.integers(1, beats))], None, KvError.SHORT
    if kind == "long":
        return good + rng.bytes(BUS_BYTES * int(rng.integers(1, 9))), None, KvError.LONG
    if kind == "trit" and ternary:
        at = int(rng.integers(rows_at, rows_end))
        return good[:at] + bytes([int(rng.integers(243, 256))]) + good[at + 1 :], None, KvError.TRIT
    if kind == "padding" and ternary and header.rows * header.channels % 5:
        return good[: rows_end - 1] + bytes([good[rows_end - 1] % 81]) + good[rows_end:], None, KvError.PADDING
    if kind == "scale" and header.metadata is KvMetadata.FP16:
        at = 8 + 8 * header.bitmap_words + 1
        return good[:at] + bytes([good[at] | 0x80]) + good[at + 1 :], None, KvError.SCALE
    if kind == "bitmap" and header.span:
        return good[:8] + bytes([good[8] ^ 1]) + good[9:], None, KvError.TOKEN
    if kind == "negative":
        p = p.clone()
        p[int(rng.integers(len(p)))] = float(rng.choice([-0.5, np.inf, np.nan, -0.0]))
        return None, (p, None, last), AttentionError.WEIGHT
    if kind == "fewer" and len(p) > 1:
        return None, (p[1:], None, last[1:]), AttentionError.WEIGHT
    if kind == "more":
        return None, (torch.cat([p, p]), None, np.arange(2 * len(p)) == 2 * len(p) - 1), AttentionError.WEIGHT
    if kind == "exact":
        return None, (p, p, last), AttentionError.WEIGHT
    return None


def spoil_run(rng, run, p, kind):
    good, tokens = run.packet(), len(p)
    last = np.isin(np.arange(tokens), np.cumsum(run.cuts) - 1)
    if kind == "short":
        slot = write_slots(run.codes, run.scale).shape[1]
        kept = BUS_BYTES * int(rng.integers(1, len(good) // BUS_BYTES + 1))
        if kept == len(good):
            return None
        return good[:kept], None, AttentionError.WEIGHT if kept % slot < BUS_BYTES else KvError.SHORT
    if kind == "scale":
        scale = run.scale.clone()
        scale[int(rng.integers(tokens))] = float(rng.choice([-0.5, np.inf]))
        return None, (p, scale, last), AttentionError.WEIGHT
    if kind == "fewer" and tokens > 1:
        return None, (p[1:], run.scale[1:], last[1:]), AttentionError.WEIGHT
    if kind == "more":
        more = torch.cat([p, p]), torch.cat([run.scale, run.scale]), np.concatenate([last, last])
        return None, more, AttentionError.WEIGHT
    return None


KINDS = ("header", "format", "layout", "short", "long", "trit", "padding", "scale", "bitmap", "negative", "fewer",
         "more", "exact")  # fmt: skip


def spoil(rng, found):
    """The list with one of its items made bad, and the error; sometimes the list as it is, and None."""
    number = int(rng.integers(len(found.items)))
    item, p = found.items[number], found.probabilities[number]
    change = (spoil_run if isinstance(item, Run) else spoil_block)(rng, item, p, str(rng.choice(KINDS)))
    if change is None:
        return found, None
    packet, weights, error = change
    changes = {"packets": {number: packet} if packet else {}, "weights": {number: weights} if weights else {}}
    return ValueList(found.items, found.probabilities, **changes, marked=True), error


@pytest.mark.sim
def test_bad_lists_are_marked_and_forgotten(core, rng, seed):
    config, built = core
    jobs, expectations, firsts = [], [], []
    for channels in (64, config.channels):
        for options in TRAFFIC:
            lists, errors = [], []
            for _ in range(16):
                bad, error = spoil(rng, random_list(rng, config, channels, rows=int(rng.choice([3, 12]))))
                errors.append(error)
                lists += [bad, random_list(rng, config, channels, items=1, rows=9)]
            job, expected = value_job(lists, config, **options)
            jobs.append(job)
            expectations.append(expected)
            firsts.append(next(error for error in errors if error))
            assert sum(error is not None for error in errors) > 4
    for result, expected, first in zip(run_jobs(built, jobs, seed=seed), expectations, firsts, strict=True):
        compare_values(result, expected)
        assert result.observed["error"] == first


def overflowing_lists(rng, channels):
    """Lists of which some end beyond FP16; in one, only a sum on the way does."""
    one = torch.ones(1).half()
    codes = torch.from_numpy(rng.integers(-9, 10, (1, channels))).to(torch.int8)
    run = Run(codes, 512 * one, (1,))
    large = Run(codes.clone(), 512 * one, (1,))
    large.codes[0, rng.integers(channels)] = -128
    limit = Run(codes.clone(), 546 * one, (1,))
    limit.codes[0, 0] = 120  # 65520: just beyond
    header = random_header(rng, AttentionConfig().parser, rows=1, format=KvFormat.V2, channels=channels,
                           segment0=channels, transform0=KvTransform.NONE, metadata=KvMetadata.FP16)  # fmt: skip
    block = random_block(rng, header)
    block.codes[:] = 3
    block.scales[:], block.minima[:] = (np.full(channels, x, np.float16).view(np.uint16) for x in (3e4, -6e4))
    lists = [[run], [large], [run, block], [block, limit], [limit], [run]]
    return [ValueList(items, [one] * len(items)) for items in lists]


@pytest.mark.sim
def test_overflow_marks_the_list(core, rng, seed):
    config, built = core
    lists = overflowing_lists(rng, config.channels)
    job, expected = value_job(lists, config)
    assert [x.marked for x in expected] == [False, True, False, True, True, False]
    results = run_jobs(built, [job, value_job(lists[:1], config)[0]], seed=seed)
    for result, some, error in zip(results, (expected, expected[:1]), (KvError.OVERFLOW, 0), strict=True):
        compare_values(result, some)
        assert result.observed["error"] == error


@pytest.mark.sim
def test_reset_in_mid_packet(core, rng, seed):
    config, built = core
    lists = [random_list(rng, config, 64) for _ in range(4)]
    resets = [int(x) for x in rng.integers(1, 900, 4)]
    job, expected = value_job(lists, config, idle=0.2, stall=0.2, resets=resets)
    (result,) = run_jobs(built, [job], seed=seed)
    compare_values(result, expected)


@pytest.mark.sim
def test_real_values_and_rate(core, rng, seed):
    """A real head's values in the default format: exact, and the array busy in at least 90% of the cycles."""
    config, built = core
    kv = capture_kv(1024)
    packed = pack_cache(kv.k[7:8].float(), kv.v[7:8].float(), preset("default"))
    lists = []
    for head in range(2):
        blocks = [block for _, h, block in packed.blocks("value") if h == head]
        logits = torch.from_numpy(rng.normal(size=sum(block.header.rows for block in blocks)) * 3)
        p = torch.split(logits.softmax(0).half(), [block.header.rows for block in blocks])
        lists.append(ValueList(blocks, p))
    job, expected = value_job(lists, config)
    (result,) = run_jobs(built, [job], seed=seed)
    compare_values(result, expected)
    # From the first list's last block on to the end of the second list's rows, weights waiting all the while.
    rows = [len(block.codes) for found in lists for block in found.items]
    beats = np.cumsum([len(pack_block(block)) // BUS_BYTES for found in lists for block in found.items])
    ends = result.input_cycles["i"][beats - 1]
    busy = np.array(rows[1:]) / np.diff(ends)
    assert sum(rows[1:]) >= 0.9 * (ends[-1] - ends[0]), busy

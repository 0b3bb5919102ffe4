"""Channel order and the key centre (docs/kv-engine.md C1, C3): every split, any mask, good and bad CENTRE blocks."""

from dataclasses import replace

import numpy as np
import pytest

from golden.kv.block import Block
from golden.kv.engine_model import CENTRED, decode_keys
from golden.kv.pack import pack_block
from sim.job import run_jobs
from spec.kv_block import KvHeader
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat, KvMetadata
from verif.bitserial.coverage import Coverage
from verif.kv.bench import CONFIGS, build_engine, compare, engine_job
from verif.kv.blocks import centre_of, random_block, random_header
from verif.kv.defects import centre_defects

TRAFFIC = [{}, {"idle": 0.3, "stall": 0.4}, {"idle": 0.1, "stall": 0.7, "burst": 6.0}]
BARE = {"transforms": frozenset(), "interleave": True, "centre": True}
ORDERED = {
    4: KvEngineConfig(lanes=4, max_channels=64, **BARE),
    8: CONFIGS[8],
    16: KvEngineConfig(lanes=16, **BARE),
    32: CONFIGS[32],
}
CENTRING = {lanes: config for lanes, config in ORDERED.items() if config.centre}


@pytest.fixture(
    scope="module",
    params=[4, *(pytest.param(lanes, marks=pytest.mark.full) for lanes in ORDERED if lanes > 4)],
    ids=lambda lanes: f"lanes{lanes}",
)
def ordered(request):
    config = ORDERED[request.param]
    return config, build_engine(config)


@pytest.fixture(
    scope="module",
    params=[4, *(pytest.param(lanes, marks=pytest.mark.full) for lanes in CENTRING if lanes > 4)],
    ids=lambda lanes: f"lanes{lanes}",
)
def centring(request):
    config = CENTRING[request.param]
    return config, build_engine(config)


def with_mask(rng: np.random.Generator, block: Block, kind: str) -> Block:
    """Segment 0 somewhere else: at random, at an end, or every so many channels."""
    channels, n0 = block.header.channels, block.header.segment0
    order = {
        "random": rng.permutation(channels),
        "first": np.arange(channels),
        "last": np.arange(channels)[::-1],
        "spread": np.argsort(np.arange(channels) * n0 % channels, kind="stable"),
    }[kind]
    return replace(block, channels=np.concatenate([np.sort(order[:n0]), np.sort(order[n0:])]))


def with_centres(rng: np.random.Generator, blocks: list[Block]) -> list[Block]:
    """A CENTRE block before each block of keys whose D is another one than before, sometimes one more."""
    found, size = [], 0
    for block in blocks:
        if block.header.format in CENTRED and (size != block.header.channels or rng.random() < 0.1):
            size = block.header.channels
            found.append(centre_of(rng, size))
        found.append(block)
    return found


def run(built, config: KvEngineConfig, seed: int, jobs: list) -> list:
    results = run_jobs(built, [job for job, _ in jobs], seed=seed)
    for result, (_, expected) in zip(results, jobs, strict=True):
        compare(result, expected, config)
    return results


@pytest.mark.sim
def test_every_split(ordered, rng, seed):
    """Every D and n0, masks of every kind, with and without the centre; each beat takes any number from segment 0."""
    config, built = ordered
    lanes = config.lanes
    sizes = range(8, config.max_channels + 1, 8)
    coverage = Coverage(
        f"kv-order-{lanes}-lanes",
        {
            "split": [(channels, n0) for channels in sizes for n0 in range(8, channels + 1, 8)],
            "of segment 0 in a beat": range(lanes + 1),
            "first bank of a beat": range(lanes),
            "centre": [(f.name, add) for f in CENTRED for add in ((False, True) if config.centre else (False,))],
        },
    )

    def split(channels: int, n0: int) -> Block:
        kind = KvFormat(rng.choice([KvFormat.K2S, KvFormat.K2]))
        metadata = KvMetadata(rng.choice([KvMetadata.FP16, KvMetadata.Q8]))
        fields = {"exponent0": -14, "exponent1": -13, "metadata": metadata, "rows": int(rng.integers(1, 4))}
        return random_block(rng, KvHeader(format=kind, channels=channels, segment0=n0, **fields))

    kinds = ["random", "random", "first", "last", "spread"]
    blocks = [with_mask(rng, split(*sizes), str(rng.choice(kinds))) for sizes in coverage.counts["split"]]
    for count in range(lanes + 1):
        # So many in the first beat, the others in the last ones.
        block = split(4 * lanes if lanes < 32 else 128, 8 * max(1, -(-count // 8)))
        first = np.sort(rng.permutation(lanes)[:count])
        rest = np.setdiff1d(np.arange(block.header.channels), first)[::-1]
        n0 = block.header.segment0
        chosen = np.concatenate([first, np.sort(rest[: n0 - count])])
        blocks.append(replace(block, channels=np.concatenate([chosen, np.sort(rest[n0 - count :])])))
    for block in blocks:
        channels, n0 = block.header.channels, block.header.segment0
        coverage.hit("split", (channels, n0))
        inside = np.zeros(-(-channels // lanes) * lanes, int)
        inside[block.channels[:n0]] = 1
        counts = inside.reshape(-1, lanes).sum(1)
        coverage.sample("of segment 0 in a beat", counts)
        coverage.sample("first bank of a beat", (np.cumsum(counts) - counts) % lanes)
    jobs = []
    for number, part in enumerate(np.array_split(rng.permutation(len(blocks)), 3 * len(TRAFFIC))):
        add = config.centre and number >= len(TRAFFIC)
        others = [random_block(rng, random_header(rng, config, rows=3, format=kind)) for kind in list(KvFormat)[:5]]
        chosen = [*(blocks[k] for k in part), *others]
        for block in chosen:
            coverage.hit("centre", (block.header.format.name, add)) if block.header.format in CENTRED else None
        if add:
            chosen = with_centres(rng, chosen)
        packets = [pack_block(block) for block in chosen]
        job, expected = engine_job(packets, config, add_centre=add, **TRAFFIC[number % 3])
        assert not any(packet.error for packet in expected)
        jobs.append((job, expected))
        if add:
            # The model of a whole stream says the same.
            outputs = [packet for packet in expected if len(packet.marked)]
            for packet, decoded in zip(outputs, decode_keys(chosen), strict=True):
                exists = np.arange(lanes) < packet.lanes[:, None]
                np.testing.assert_array_equal(packet.values[exists], decoded.values.view(np.uint16).reshape(-1))
    run(built, config, seed, jobs)
    coverage.close()


@pytest.mark.sim
def test_marks_are_of_whole_tokens(ordered, rng, seed):
    """Bad bytes, short and long packets in two segments: good tokens before, a good block after."""
    config, built = ordered
    size = config.input_bits // 8
    packets = []
    for _ in range(12):
        header = KvHeader(format=KvFormat.K2S, channels=56, segment0=24, rows=9, exponent0=-14, exponent1=-14)
        packet = pack_block(with_mask(rng, random_block(rng, header), "random"))
        rest = (len(packet) - header.rows_offset) // size
        bad = [packet[: -size * int(rng.integers(1, rest))], packet + rng.bytes(size * int(rng.integers(1, 9)))]
        packets += [*bad, packet]
        trits = random_block(rng, KvHeader(format=KvFormat.V158, channels=56, rows=9, metadata=KvMetadata.Q8))
        spoiled = bytearray(pack_block(trits))
        spoiled[trits.header.rows_offset + int(rng.integers(trits.header.rows_bytes))] = 250
        packets += [bytes(spoiled), packet]
    jobs = [engine_job(packets, config, **traffic) for traffic in TRAFFIC]
    errors = {packet.error for packet in jobs[0][1]}
    assert errors == {KvError.NONE, KvError.SHORT, KvError.LONG, KvError.TRIT}
    run(built, config, seed, jobs)


@pytest.mark.sim
def test_blocks_pile_up(ordered, rng, seed):
    """Packets of a beat, split blocks among them, behind an output that stands still: none gets another one's mask."""
    config, built = ordered
    size = config.input_bits // 8
    packets = []
    for _ in range(30):
        header = KvHeader(format=KvFormat.K2S, channels=16, segment0=8, rows=1, exponent0=-14, exponent1=-14)
        packets += [rng.bytes(size) for _ in range(int(rng.integers(4)))]
        packets.append(pack_block(with_mask(rng, random_block(rng, header), "random")))
    jobs = [engine_job(packets, config, stall=[True] * still + [False] * 25) for still in (40, 300)]
    run(built, config, seed, jobs)


@pytest.mark.sim
def test_centre(centring, rng, seed):
    """Sums that cancel, vanish, overflow; a centre between blocks on their way; values and other sizes without it."""
    config, built = centring
    beyond, small = 0, 0
    jobs = []
    for traffic in TRAFFIC:
        blocks = []
        for _ in range(40):
            header = random_header(rng, config, rows=3, format=KvFormat(rng.choice(list(KvFormat)[:5])), channels=64)
            blocks.append(random_block(rng, replace(header, exponent0=-14, exponent1=-14)))
        blocks = with_centres(rng, blocks)
        for k in range(1, len(blocks)):
            # What the block before it, or after it, holds: cancels in one channel or another.
            if blocks[k].header.format in CENTRED and rng.random() < 0.5:
                centre = centre_of(rng, 64)
                values = decode_keys([centre_of(rng, 64, zero=True), blocks[k]])[0].values[0]
                scales = np.where(rng.random(64) < 0.7, (-values).view(np.uint16), centre.scales)
                blocks[k - 1 : k - 1] = [replace(centre, scales=scales.astype(np.uint16))]
        # The largest keys on top of the largest centre.
        large = random_block(rng, KvHeader(format=KvFormat.K1, channels=64, rows=3))
        large = replace(large, scales=np.full(64, 0x7BFF, np.uint16))
        blocks += [replace(centre_of(rng, 64), scales=np.full(64, 0x5000, np.uint16)), large, blocks[1]]
        packets = [pack_block(block) for block in blocks]
        job, expected = engine_job(packets, config, add_centre=True, **traffic)
        assert {packet.error for packet in expected} == {KvError.NONE, KvError.OVERFLOW}
        beyond += sum(packet.error is KvError.OVERFLOW for packet in expected)
        small += sum(int((packet.values & 0x7C00 == 0).sum()) for packet in expected)
        jobs.append((job, expected))
    assert beyond == len(TRAFFIC)
    assert small > 100
    for result, (_, _expected) in zip(run(built, config, seed, jobs), jobs, strict=True):
        assert (result.observed["error"], result.observed["error_count"]) == (KvError.OVERFLOW, 1)


@pytest.mark.sim
def test_bad_centres_leave_the_old_one(centring, rng, seed):
    """Every defect of a CENTRE block, then a block that gets the centre from before it."""
    config, built = centring
    keys = random_block(rng, KvHeader(format=KvFormat.K1, channels=64, rows=2, metadata=KvMetadata.Q8, exponent0=-14))
    good, key_packet = pack_block(centre_of(rng, 64)), pack_block(keys)
    packets, errors = [good, key_packet], []
    for defect in centre_defects(rng, config):
        packets += [defect.packet, key_packet]
        errors.append(defect.error)
    packets += [pack_block(centre_of(rng, 64)), key_packet]
    assert {KvError.SCALE, KvError.SHORT, KvError.LONG, KvError.FORMAT} == set(errors)
    jobs = [engine_job(packets, config, add_centre=True, **traffic) for traffic in TRAFFIC]
    for _, expected in jobs:
        assert [packet.error for packet in expected[2:-2:2]] == errors
        assert not any(packet.error for packet in expected[1::2])
    run(built, config, seed, jobs)


@pytest.mark.sim
def test_a_centre_has_a_size_and_a_reset_forgets_it(centring, rng, seed):
    """Keys that no centre fits are bad, values are not; ``add_centre`` at 0 asks for none; resets in mid-packet."""
    config, built = centring
    keys = {n: pack_block(random_block(rng, KvHeader(format=KvFormat.K2, channels=n, rows=2))) for n in (32, 64)}
    value = pack_block(random_block(rng, KvHeader(format=KvFormat.V2, channels=64, rows=2)))
    centre = pack_block(centre_of(rng, 64))
    packets = [keys[64], value, centre, keys[64], keys[32], value, keys[64]]
    job, expected = engine_job(packets, config, add_centre=True)
    wrong = [KvError.CHANNELS if bad else KvError.NONE for bad in (1, 0, 0, 0, 1, 0, 0)]
    assert [packet.error for packet in expected] == wrong
    jobs = [(job, expected), engine_job(packets, config)]
    assert not any(packet.error for packet in jobs[1][1])
    # Kept over jobs without a reset, gone after one.
    loaded = jobs[1][1][-1].centre
    jobs.append(engine_job([keys[64]], config, add_centre=True, centre=loaded, reset=False, signals={"error_clear": 1}))
    jobs.append(engine_job([keys[64], centre, keys[64]], config, add_centre=True))
    assert [len(packet.marked) > 1 for packet in jobs[-1][1]] == [False, False, True]
    resets = [int(x) for x in rng.integers(1, 500, 8)]
    jobs.append(engine_job([centre, keys[64], centre, keys[64]], config, add_centre=True, idle=0.3, resets=resets))
    results = run_jobs(built, [job for job, _ in jobs], seed=seed)
    for number, (result, (_, expected)) in enumerate(zip(results, jobs, strict=True)):
        if number != 2:  # its counter is held at 0
            compare(result, expected, config)
    assert len(results[2].outputs["o"]) == len(jobs[2][1][0].marked)

"""Every format x transform x head dim x split x metadata that an engine serves, bit for bit, with coverage."""

from dataclasses import replace

import numpy as np
import pytest

from golden.kv.float64 import float64_values
from golden.kv.pack import pack_block
from sim.job import run_jobs
from spec.kv_block import MAX_TOKENS, KvHeader
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvMetadata
from verif.kv.bench import compare, engine_job
from verif.kv.blocks import random_block
from verif.kv.coverage import SPANS, block_coverage, headers, sample_block

TRAFFIC = [{}, {"idle": 0.3, "stall": 0.3}, {"idle": 0.7, "stall": 0.1, "burst": 8.0}]


def placed(rng: np.random.Generator, header: KvHeader, *, span: int = 0) -> KvHeader:
    """The layout somewhere in a sequence, with scales of any size that stays within FP16."""
    return replace(
        header,
        token=int(rng.integers(0, MAX_TOKENS - 512)),
        span=span,
        exponent0=int(rng.integers(-24, -6)),
        exponent1=int(rng.integers(-24, -6)),
    )


@pytest.mark.sim
def test_every_layout(engine, rng, seed):
    config, built = engine
    lanes = config.lanes
    coverage = block_coverage(f"kv-{lanes}-lanes", config)
    chosen = [placed(rng, replace(h, rows=int(rng.integers(1, 6)))) for h in headers(config)]
    # Bitmaps of every length, full blocks, and rows that a byte of trits does not divide.
    for span in SPANS[1:]:
        rows = int(rng.integers(1, min(span, 12)))
        chosen.append(placed(rng, KvHeader(format=KvFormat.V2, channels=64, rows=rows), span=span))
    for kind, rows in ((KvFormat.V158, 128), (KvFormat.K1, 32), (KvFormat.K2S, 100)):
        chosen.append(placed(rng, KvHeader(format=kind, channels=64, rows=rows, metadata=KvMetadata.F6)))
    for channels in range(8, config.max_channels + 1, 8):
        chosen.append(placed(rng, KvHeader(format=KvFormat.V158, channels=channels, rows=3)))
    blocks = [random_block(rng, header) for header in chosen]
    # Scales up to the largest number.
    for kind in (KvFormat.K1, KvFormat.V158):
        block = random_block(rng, KvHeader(format=kind, channels=64, rows=2))
        blocks.append(replace(block, scales=rng.integers(26 << 10, 31 << 10, 64).astype(np.uint16)))
    order = rng.permutation(len(blocks))
    jobs, expectations = [], []
    for part, options in zip(np.array_split(order, len(TRAFFIC)), TRAFFIC, strict=True):
        job, expected = engine_job([pack_block(blocks[k]) for k in part], config, **options)
        assert {packet.error for packet in expected} == {KvError.NONE}
        for k, packet in zip(part, expected, strict=True):
            sample_block(coverage, blocks[k], packet, float64_values(blocks[k]), lanes)
        jobs.append(job)
        expectations.append(expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        compare(result, expected, config)
    coverage.close()


@pytest.mark.sim
def test_every_byte_of_trits(engine, rng, seed):
    """All 256 bytes in each of the 8 places of a byte in 5 tokens of 8 channels, so with every digit first in a beat;
    243 and above mark the block."""
    config, built = engine
    header = KvHeader(format=KvFormat.V158, channels=8, rows=125, metadata=KvMetadata.Q8, exponent0=-10)
    per_block = header.rows_bytes // 8
    assert header.rows_bytes == 200
    packets = []
    for start in range(0, 243, per_block):
        content = np.repeat((start + np.arange(per_block)) % 243, 8)
        codes = (content[:, None] // 3 ** np.arange(5) % 3).reshape(header.rows, 8)
        packets.append(pack_block(replace(random_block(rng, header), codes=codes.astype(np.uint8))))
        assert packets[-1][header.rows_offset :][:200] == bytes(content.tolist())
    good = packets[0]
    for invalid in range(243, 256):
        for place in range(8):
            bad = bytearray(good)
            bad[header.rows_offset + 8 * int(rng.integers(per_block)) + place] = invalid
            packets.append(bytes(bad))
    job, expected = engine_job([*packets, good], config)
    assert [packet.error for packet in expected].count(KvError.TRIT) == 13 * 8
    assert not expected[-1].error
    compare(run_jobs(built, [job], seed=seed)[0], expected, config)

"""The route that attention is compared with computes what it should: FP16 products, FP32 sums in its own order."""

import numpy as np
import pytest

from golden.kv.engine_model import decode
from golden.kv.pack import pack_block
from hw.kv.layouts import Beat
from sim.design import build_design
from sim.job import run_job
from sim.layout import pack
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat
from studies.attention.baseline import DequantizedRoute
from verif.kv.blocks import random_block, random_header

CONFIG = KvEngineConfig(lanes=16, max_channels=64)


def beats(packets):
    size = CONFIG.input_bits // 8
    data = np.frombuffer(b"".join(packets), np.uint8).reshape(-1, size)
    last = np.zeros(len(data), np.uint8)
    last[np.cumsum([len(packet) // size for packet in packets]) - 1] = 1
    return pack(Beat(CONFIG.input_bits), {"data": data.view("<u8")[:, 0], "last": last})


def random_blocks(rng, kind, **fixed):
    headers = [
        random_header(rng, CONFIG, rows=30, format=kind, channels=64, span=0, exponent0=-13, exponent1=-13, **fixed)
        for _ in range(4)
    ]
    return [random_block(rng, header) for header in headers]


def elements(block):
    """FP16 in storage order, as they leave the engine."""
    return decode(block).values[:, block.channels]


def tree(x):
    """Float32 sums of neighbours until one is left."""
    while x.shape[-1] > 1:
        x = x[..., ::2] + x[..., 1::2]
    return x[..., 0]


@pytest.mark.sim
def test_scores(rng, seed):
    built = build_design(DequantizedRoute(CONFIG, values=False), "dequantized_scores")
    blocks = random_blocks(rng, KvFormat.K1)
    query = rng.normal(size=64).astype(np.float16)
    words = query.view(np.uint8).reshape(4, 32)
    keys = np.concatenate([elements(block) for block in blocks])
    product = keys.astype(np.float32) * query.astype(np.float32)
    sums = tree(product.reshape(-1, 4, 16))
    wanted = (sums[:, 3] + sums[:, 1]) + (sums[:, 2] + sums[:, 0])
    packets = [pack_block(block) for block in blocks]
    result = run_job(built, {"i": beats(packets), "query": words}, {"scores": len(wanted)}, seed=seed)
    np.testing.assert_array_equal(result.outputs["scores"].astype(np.uint32), wanted.view(np.uint32))


@pytest.mark.sim
def test_values(rng, seed):
    built = build_design(DequantizedRoute(CONFIG, values=True), "dequantized_values")
    blocks = random_blocks(rng, KvFormat.V158)
    values = np.concatenate([elements(block) for block in blocks]).astype(np.float32)
    weights = rng.random(len(values)).astype(np.float16)
    wanted, sums = [], np.zeros(64, np.float32)
    for weight, row in zip(weights.astype(np.float32), values, strict=True):
        sums = sums + weight * row
        wanted.append(sums)
    packets = [pack_block(block) for block in blocks]
    inputs = {"i": beats(packets), "weights": weights.view(np.uint16)}
    result = run_job(built, inputs, {"sums": 4 * len(values)}, seed=seed)
    got = np.ascontiguousarray(result.outputs["sums"][:, :64]).view("<u4")
    np.testing.assert_array_equal(got.reshape(-1, 64), np.array(wanted).view(np.uint32))

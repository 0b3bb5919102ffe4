"""What the weight tests share: hand-worked packets, random quantized weights, real layers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from golden.weights import QuantizedWeight
from spec.datatypes import Datatype

VECTORS = json.loads(Path(__file__).with_name("weight_packets.json").read_text())["packets"]


def vector_words(vector: dict) -> np.ndarray:
    """The packet of a hand-worked vector as uint64 words."""
    return np.frombuffer(bytes.fromhex(vector["hex"]), dtype="<u8").astype(np.uint64)


def vector_weight(vector: dict) -> QuantizedWeight:
    """The quantized weight that a hand-worked vector states, one row."""

    def per_group(name, convert=int):
        return torch.tensor([[convert(group[name]) for group in vector["groups"]]], dtype=torch.uint8)

    return QuantizedWeight.from_codes(
        per_group("datatype", lambda name: Datatype[name]),
        torch.tensor([[code for group in vector["groups"] for code in group["codes"]]], dtype=torch.uint8),
        group_size=vector["group_size"],
        select=per_group("select"),
        scale8=per_group("scale8"),
    )


def random_weight(
    rng: np.random.Generator, out: int, length: int, group_size: int, datatypes=tuple(Datatype), special_values=None
) -> QuantizedWeight:
    """Random codes, selects and scales, the datatype changing from group to group; no reserved codes."""
    groups = -(-length // group_size)
    kinds = rng.choice([int(datatype) for datatype in datatypes], size=(out, groups)).astype(np.uint8)
    per_weight = np.repeat(kinds, group_size, axis=1)[:, :length]
    bits = np.array([Datatype(d).bits if d in list(Datatype) else 0 for d in range(16)])[per_weight]
    codes = (rng.integers(0, 256, (out, length)) & ((1 << bits) - 1)).astype(np.uint8)
    codes[(per_weight == Datatype.TERNARY) & (codes == 2)] = 3
    return QuantizedWeight.from_codes(
        torch.from_numpy(kinds),
        torch.from_numpy(codes),
        group_size=group_size,
        select=torch.from_numpy(rng.integers(0, 4, (out, groups)).astype(np.uint8)),
        scale8=torch.from_numpy(rng.integers(0, 256, (out, groups)).astype(np.uint8)),
        channel_scale=torch.from_numpy(rng.random(out, dtype=np.float32)),
        special_values=special_values,
    )


def random_activations(rng, *shape) -> torch.Tensor:
    """FP16 with zeros, subnormals, the largest finite values and wide exponents among normal ones."""
    normal = rng.standard_normal(shape).astype(np.float16)
    any_finite = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    any_finite[(any_finite >> 10 & 31) == 31] ^= 1 << 14
    subnormal = (rng.integers(0, 1 << 10, shape) | rng.integers(0, 2, shape) << 15).astype(np.uint16)
    style = rng.integers(0, 8, (*shape[:-1], 1))
    pick = rng.random(shape)
    result = np.where(style < 4, normal, np.where(style < 6, any_finite.view(np.float16), subnormal.view(np.float16)))
    result = np.where(pick < 0.1, np.float16(0), np.where(pick > 0.97, np.float16(-65504), result))
    return torch.from_numpy(result.astype(np.float16))


def same(left: QuantizedWeight, right: QuantizedWeight) -> bool:
    """Whether two quantized weights agree in every field."""
    tensors = ("datatype", "codes", "select", "scale8", "channel_scale")
    return (
        all(torch.equal(getattr(left, name), getattr(right, name)) for name in tensors)
        and left.group_size == right.group_size
        and left.special_values == right.special_values
    )


def real_layer(layer: str) -> torch.Tensor:
    """Weights of a SmolLM2-135M layer, float32 [out, in]; skips the test where the checkpoint is not installed."""
    checkpoint = pytest.importorskip("golden.llm.checkpoint")
    try:
        return checkpoint.layer_weight(layer)
    except checkpoint.CheckpointNotFoundError as error:
        pytest.skip(str(error))

"""One KV block as integers: what a packet holds, before it is bytes."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from golden.kv.blocks import Blocks, KeyPlan
from golden.kv.config import KeyFormat, ValueFormat
from golden.kv.headers import key_header, value_header
from golden.kv.residual import write_fp16
from spec.kv_block import KvHeader
from spec.kv_formats import KvFormat

__all__ = ["Block", "centre_block", "key_block", "value_block"]


@dataclass(frozen=True)
class Block:
    """Contents of one packet; *storage order* is segment 0, then segment 1, each by ascending channel.

    Attributes
    ----------
    header : KvHeader
    channels : np.ndarray
        int64 ``[D]``: channel of each position of the storage order.
    tokens : np.ndarray
        int64 ``[rows]``, ascending.
    scales : np.ndarray
        uint16 ``[D]`` in storage order: FP16 bits, an integer, or F6's code. In a CENTRE block: the centre's FP16 bits.
    minima : np.ndarray or None
        uint16 ``[n0]``: FP16 bits, in K2 and V2.
    codes : np.ndarray
        uint8 ``[rows, D]`` in storage order: bits, 2-bit codes, or digits 0..2; ``[0, D]`` in a CENTRE block.
    """

    header: KvHeader
    channels: np.ndarray
    tokens: np.ndarray
    scales: np.ndarray
    minima: np.ndarray | None
    codes: np.ndarray


def _bits(x: torch.Tensor) -> np.ndarray:
    """uint16: the bits of FP16 numbers, or small integers as they are."""
    if x.dtype == torch.float16:
        return x.contiguous().view(torch.int16).numpy().view(np.uint16).copy()
    return x.numpy().astype(np.uint16)


def _block(header: KvHeader, blocks: Blocks, head: int, group: int, tokens: torch.Tensor) -> Block:
    segments = blocks.segments
    codes = [segment.codes[head, group] + (1 if segment.code == "ternary" else 0) for segment in segments]
    exponents = {
        f"exponent{i}": int(segment.scales.exponent[head, group])
        for i, segment in enumerate(segments)
        if segment.scales.exponent is not None
    }
    minima = segments[0].minima
    return Block(
        header=replace(header, **exponents),
        channels=torch.cat([index[head] for index in blocks.channels]).numpy(),
        tokens=tokens.numpy(),
        scales=np.concatenate([_bits(segment.scales.raw[head, group]) for segment in segments]),
        minima=None if minima is None else _bits(minima[head, group]),
        codes=torch.cat(codes, -1).numpy().astype(np.uint8),
    )


def key_block(blocks: Blocks, fmt: KeyFormat, head: int, group: int, tokens: torch.Tensor) -> Block:
    """Block of KV head `head`, batch entry `group` of `blocks`, which holds these tokens (int64 ``[rows]``).

    Raises
    ------
    ValueError
        Sizes that the packed format does not allow, such as a segment that is no multiple of 8 channels.
    """
    head_dim = sum(index.shape[-1] for index in blocks.channels)
    return _block(key_header(fmt, head_dim, tokens), blocks, head, group, tokens)


def value_block(
    blocks: Blocks, fmt: ValueFormat, head: int, group: int, tokens: torch.Tensor, *, protected: bool = False
) -> Block:
    """As `key_block`, for values; `protected`: the tokens are kept at 2 bits."""
    header = value_header(fmt, blocks.channels[0].shape[-1], tokens, protected=protected)
    return _block(header, blocks, head, group, tokens)


def centre_block(plan: KeyPlan, head: int) -> Block:
    """The block that tells an engine the key centre of one head, rounded to FP16."""
    head_dim = plan.centre.shape[-1]
    return Block(
        header=KvHeader(format=KvFormat.CENTRE, channels=head_dim, rows=1),
        channels=np.arange(head_dim),
        tokens=np.array([0]),
        scales=_bits(write_fp16(plan.centre[head]).codes),
        minima=None,
        codes=np.zeros((0, head_dim), np.uint8),
    )

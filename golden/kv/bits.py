"""Effective bits per element of a cache format: codes, metadata, headers, masks, bitmaps and padding included.

The sizes are those of the packed layout (`hw.spec.kv_block`), block by block.
"""

import torch

from golden.kv.config import CacheFormat
from golden.kv.grouping import token_groups
from golden.kv.headers import key_header, value_header
from golden.kv.released import released_bits
from hw.spec.kv_block import KvHeader

__all__ = ["cache_bits", "effective_bits"]

_LONG = 4096
"""Tokens over which the share of partial groups and bitmaps is averaged; a multiple of every group and span."""


def effective_bits(fmt: CacheFormat, head_dim: int) -> tuple[float, float]:
    """Bits per element of packed tokens of a long cache: (keys, values). Sinks and newest tokens are not in it."""
    if fmt.mode == "released":
        return released_bits(fmt)
    keys = values = 16.0
    if fmt.key.code != "fp16":
        groups = token_groups(0, _LONG, fmt.key.group)
        keys = _average([key_header(fmt.key, head_dim, g.tokens) for g in groups])
    if fmt.value.code != "fp16":
        protected = None
        if fmt.value.protected:
            count = torch.floor(torch.arange(_LONG + 1) * fmt.value.protected + 1e-9)
            protected = count.diff() > 0  # spread evenly
        groups = token_groups(0, _LONG, fmt.value.group, protected)
        values = _average([value_header(fmt.value, head_dim, g.tokens, protected=g.protected) for g in groups])
    return keys, values


def _average(headers: list[KvHeader]) -> float:
    return sum(8 * h.packet_bytes for h in headers) / sum(h.rows * h.channels for h in headers)


def cache_bits(fmt: CacheFormat, head_dim: int, tokens: int) -> float:
    """Bits per element of a whole cache of `tokens` tokens, keys and values, with sinks and residual in FP16."""
    keys, values = effective_bits(fmt, head_dim)
    last = max(fmt.sinks, tokens - fmt.recent)
    packed = [
        0 if code == "fp16" else sum(len(g.tokens) for g in token_groups(fmt.sinks, last, group))
        for code, group in ((fmt.key.code, fmt.key.group), (fmt.value.code, fmt.value.group))
    ]
    total = sum(bits * n + 16.0 * (tokens - n) for bits, n in zip((keys, values), packed, strict=True))
    return total / (2 * tokens)

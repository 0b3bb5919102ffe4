"""Effective bits per element of a cache format: codes, metadata, headers, masks, bitmaps and padding included.

The sizes are those of the packed layout (`spec.kv_block`), block by block. ``python -m golden.kv.bits`` makes the
documentation's table of them.
"""

import argparse
import math
from pathlib import Path

import torch

from golden.document import write_between_markers
from golden.kv.config import PRESETS, CacheFormat
from golden.kv.grouping import token_groups
from golden.kv.headers import key_header, value_header
from golden.kv.released import released_bits
from spec.kv_block import KvHeader

__all__ = ["MARKERS", "bits_table", "cache_bits", "effective_bits"]

MARKERS = ("<!-- bits: begin (python -m golden.kv.bits) -->", "<!-- bits: end -->")
_ROWS = {
    "kivi": "KIVI-like: 2-bit min/max, G 32, FP16 metadata",
    "vidkv-released": "VidKV as released: whole spectrum, 2-bit trits, FP16 scale and minimum everywhere",
    "vidkv": "VidKV corrected: half the spectrum, G 32, FP16 metadata",
    "vidkv-stp": "the same, 20% of the tokens protected",
    "default": "**default: 1.5-bit keys, ternary values, G 128, 6-bit scales**",
    "keys-binary": "1-bit keys, the same values",
    "keys-s2": "2-bit keys, the same values",
}

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


def bits_table(head_dim: int = 64, tokens: int = 4096) -> str:
    """Markdown: bits per element of packed tokens, and of a whole cache with its exact tokens in FP16."""
    lines = [
        f"| head dim {head_dim} | keys | values | both | a cache of {tokens:,} tokens, exact ones in FP16 |",
        "|---|---:|---:|---:|---:|",
    ]

    def row(name: str, keys: float, values: float, whole: float | None) -> None:
        last = "-" if whole is None else f"{whole:.2f} ({100 * whole / 16:.1f}%)"
        lines.append(f"| {name} | {keys:.2f} | {values:.2f} | {(keys + values) / 2:.2f} | {last} |")

    row("FP16 cache", 16, 16, 16)
    default = PRESETS["default"]
    row("old tokens dropped", 0, 0, 16 * (default.sinks + default.recent) / tokens)
    share, protected = PRESETS["vidkv"].key.anomalous, PRESETS["vidkv-stp"].value.protected
    keys, values = 2 * share + (1 - share), math.log2(3)
    row("VidKV as its paper counts: codes alone", keys, values, None)
    row("the same, 20% of the tokens protected", keys, 2 * protected + (1 - protected) * values, None)
    for name, text in _ROWS.items():
        row(text, *effective_bits(PRESETS[name], head_dim), cache_bits(PRESETS[name], head_dim, tokens))
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Print the table of effective bits; with ``--docs``, write it into a document."""
    parser = argparse.ArgumentParser(prog="python -m golden.kv.bits", description=main.__doc__)
    parser.add_argument("--docs", type=Path, help="document whose table between markers to replace")
    options = parser.parse_args(argv)
    text = bits_table()
    if options.docs:
        write_between_markers(options.docs, text, MARKERS)
    print(text)


if __name__ == "__main__":
    main()

"""What the blocks and the outputs of a test have covered, from headers, contents and the exact model."""

from collections.abc import Iterator

import numpy as np

from golden.kv.block import Block
from spec.kv_block import TRANSFORM_SIZES, KvHeader
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat, KvMetadata, KvTransform
from verif.bitserial.coverage import Coverage, cross
from verif.kv.expected import Expected

__all__ = ["block_coverage", "headers", "sample_block", "serves"]

FORMATS = [kind for kind in KvFormat if kind is not KvFormat.CENTRE]
HEAD_DIMS = (64, 80, 96, 128)
SPLITS = (16, 32, 40, 48, 64, 96)
ROWS = ("1", "2..31", "32", "33..127", "128")
SPANS = tuple(range(0, 513, 64))


def serves(config: KvEngineConfig, header: KvHeader) -> bool:
    """Whether an engine built like this takes such blocks."""
    used = {header.transform0, header.transform1} - {KvTransform.NONE}
    wide = header.metadata is KvMetadata.FP16 and used and config.scale_bits < 11
    fits = header.format in config.formats and header.channels <= config.max_channels
    return fits and used <= config.transforms and not wide


def headers(config: KvEngineConfig, rows: int = 1) -> Iterator[KvHeader]:
    """Every combination of format, head dim, split, transforms and metadata that is legal and served, once."""
    for kind in FORMATS:
        for channels in HEAD_DIMS:
            splits = SPLITS if kind in (KvFormat.K2, KvFormat.K2S) else ()
            for segment0 in [channels, *(n for n in splits if n < channels)]:
                for transform0, transform1, metadata in cross(KvTransform, KvTransform, KvMetadata):
                    try:
                        header = KvHeader(
                            format=kind,
                            channels=channels,
                            segment0=segment0,
                            transform0=transform0,
                            transform1=transform1,
                            metadata=metadata,
                            rows=rows,
                        )
                    except ValueError:
                        continue
                    if serves(config, header):
                        yield header


def _layout(header: KvHeader) -> tuple:
    """What :func:`headers` runs through."""
    return (
        header.format.name,
        header.channels,
        header.segment0,
        header.transform0.name,
        header.transform1.name,
        header.metadata.name,
    )


def block_coverage(name: str, config: KvEngineConfig) -> Coverage:
    """Bins that good blocks of an engine must fill."""
    transforms = [t for t in KvTransform if t in config.transforms]
    sizes = [size for size in TRANSFORM_SIZES if size <= config.max_channels]
    return Coverage(
        name,
        {
            "layout": [_layout(header) for header in headers(config)],
            "rows": ROWS,
            "span": SPANS,
            # A transformed segment, and where it is.
            "segment": [
                (t.name, size, index)
                for t, size, index in cross(transforms, sizes, (0, 1))
                if index == 0 or size < config.max_channels
            ],
            # Digit of a byte at which a token's trits begin, and digits that pad the last byte.
            "trit phase": range(5),
            "trit padding": range(5),
            # Lanes that the last beat of a token leaves empty, in groups of 8.
            "empty groups": range(max(1, config.lanes // 8)),
            "exponent": [*range(31)],
            "value": ("zero", "subnormal", "normal", "negative"),
            # Exact sums that FP16 cannot hold.
            "rounded": (False, True),
        },
    )


def _rows_bin(rows: int) -> str:
    if rows in (1, 32, 128):
        return str(rows)
    return "2..31" if rows < 32 else "33..127"


def sample_block(coverage: Coverage, block: Block, expected: Expected, exact: np.ndarray, lanes: int) -> None:
    """Count a good block; ``exact`` is float64 ``[rows, D]`` before rounding."""
    header = block.header
    if _layout(header) in coverage.counts["layout"]:
        coverage.hit("layout", _layout(header))
    coverage.hit("rows", _rows_bin(header.rows))
    coverage.hit("span", header.span)
    parts = ((header.transform0, header.segment0), (header.transform1, header.segment1))
    for index, (transform, size) in enumerate(parts):
        if transform is not KvTransform.NONE:
            coverage.hit("segment", (transform.name, size, index))
    if header.format is KvFormat.V158:
        coverage.sample("trit phase", np.arange(header.rows) * header.channels % 5)
        coverage.hit("trit padding", -header.rows * header.channels % 5)
    coverage.hit("empty groups", -(-(-header.channels % lanes) // 8))
    bits = expected.values[np.arange(lanes) < expected.lanes[:, None]]
    exponent, fraction = bits >> 10 & 31, bits & 0x3FF
    coverage.sample("exponent", exponent)
    zero = (exponent == 0) & (fraction == 0)
    counts = {
        "zero": zero,
        "subnormal": (exponent == 0) & ~zero,
        "normal": exponent > 0,
        "negative": bits >> 15 == 1,
    }
    for name, where in counts.items():
        if where.any():
            coverage.hit("value", name, where.sum())
    coverage.sample("rounded", exact != exact.astype(np.float16).astype(np.float64))

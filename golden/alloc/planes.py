"""Codes of the plane format: a vector's coordinates as widths of 0 to 4 bits, every stored bit a sign (kv-planes.md).

Equations (docs/kv-planes.md, section 2), for a coordinate z of width b and step s > 0:

- (K1) ``c = clamp(floor(z / s) + 2^(b-1), 0, 2^b - 1)``; the floor is the only rounding.
- (K2) value ``(2 c - 2^b + 1) * s / 2``, that is ``s / 2 * sum over j < b of (2 c_j - 1) * 2^j``, c_j the bits of c.
- (K3) a width of 0 stores nothing and reads as 0.
"""

import numpy as np
import torch

from spec import checks

__all__ = ["DISTORTION", "MOST_BITS", "STEPS", "codes", "pack_rows", "row_bytes", "unpack_rows", "values"]

MOST_BITS = 4
STEPS = (0.0, 1.5958, 0.9957, 0.5860, 0.3352)
"""Step of a uniform quantizer of b bits on normal data of unit variance, for the least squared error (Max, 1960)."""
DISTORTION = (1.0, 0.36338, 0.11885, 0.03744, 0.011543)
"""That least squared error."""


def codes(z: torch.Tensor, widths: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """(K1) Codes uint8 of coordinates ``[..., D]``; ``widths`` and ``steps`` broadcast against them.

    A NaN has no code: ValueError. An infinity gets the outermost one. Where the step is 0 (a channel that is constant)
    the code is that of the coordinate's sign.
    """
    if torch.isnan(z).any():
        raise ValueError("a vector to be coded holds NaN")
    half = torch.pow(2.0, widths.to(z.dtype) - 1).floor()  # 0 for a width of 0
    level = torch.where(steps > 0, (z / steps).floor(), torch.where(z < 0, -half, half))
    # Before the conversion: infinities and far values have no integers.
    return (level.clamp(-half, (half - 1).clamp(min=0)) + half).to(torch.uint8)


def values(code: torch.Tensor, widths: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """(K2, K3) Coordinates of codes, in the dtype of ``steps``; exact but for the product with the step."""
    odd = 2 * code.to(steps.dtype) - torch.pow(2.0, widths.to(steps.dtype)) + 1
    return torch.where(widths > 0, odd * steps / 2, torch.zeros((), dtype=steps.dtype))


def row_bytes(widths: np.ndarray) -> int:
    """Bytes of a row: the widths' sum in bits, filled up to a byte."""
    return -(-int(np.asarray(widths, np.int64).sum()) // 8)


def _places(widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channel and bit of every stored bit in order: plane 0 of all channels that have one, then plane 1, ..."""
    widths = np.asarray(widths)
    checks.choice("axes of widths", widths.ndim, (1,))
    if widths.size and not (widths.min() >= 0 and widths.max() <= MOST_BITS):
        bad = widths[(widths < 0) | (widths > MOST_BITS)][0]
        raise ValueError(f"each width must be in 0..{MOST_BITS}, not {bad}")
    places = [(channel, plane) for plane in range(MOST_BITS) for channel in np.flatnonzero(widths > plane)]
    channels, planes = zip(*places, strict=True) if places else ((), ())
    return np.array(channels, np.int64), np.array(planes, np.int64)


def pack_rows(code: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Codes uint8 ``[tokens, D]`` to rows uint8 ``[tokens, row_bytes]``: plane after plane, lowest bit of a byte first.

    Raises ValueError for a code beyond its width or a width beyond 0..4.
    """
    channels, planes = _places(widths)
    if (code >> np.asarray(widths, np.uint8)[None] != 0).any():
        token, channel = np.argwhere(code >> np.asarray(widths, np.uint8)[None] != 0)[0]
        raise ValueError(
            f"code of token {token}, channel {channel} must be below 2^{widths[channel]}, not {code[token, channel]}"
        )
    bits = (code[:, channels] >> planes.astype(np.uint8)) & 1
    return np.packbits(bits, axis=1, bitorder="little").reshape(len(code), row_bytes(widths))


def unpack_rows(rows: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The codes of :func:`pack_rows`; ValueError for rows of another size or with bits set in their padding."""
    channels, planes = _places(widths)
    size = row_bytes(widths)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise ValueError(f"rows must be [tokens, {size}] bytes for {len(channels)} bits, not {list(rows.shape)}")
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    if bits[:, len(channels) :].any():
        raise ValueError(f"row {np.argwhere(bits[:, len(channels) :])[0][0]} has bits set behind its last channel")
    code = np.zeros((len(rows), len(widths)), np.uint8)
    for channel, plane, bit in zip(channels, planes, bits[:, : len(channels)].T, strict=True):
        code[:, channel] |= bit << np.uint8(plane)
    return code

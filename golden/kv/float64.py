"""What a block means in float64: codes times scales and the orthonormal inverse transform, nothing rounded.

The second oracle beside `golden.kv.engine_model`: it shares neither the integers nor the recursion of the engine.
"""

import math

import numpy as np
import torch

from golden.kv.block import Block
from golden.kv.transforms import fold_of, inverse
from spec.kv_formats import KvFormat, KvMetadata, KvTransform

__all__ = ["decibels", "float64_values"]

_NAMES = {KvTransform.NONE: "none", KvTransform.WHT: "wht", KvTransform.RFFT: "rfft"}
_LEVELS = {KvFormat.K1: (-1, 1), KvFormat.K2S: (-3, -1, 1, 3), KvFormat.V158: (-1, 0, 1)}
_F6 = np.array([m if e == 0 else (16 + m) * 2.0 ** (e - 1) for e in range(4) for m in range(16)])


def float64_values(block: Block) -> np.ndarray:
    """float64 ``[rows, D]``, channels in order."""
    header = block.header
    out = np.empty((header.rows, header.channels))
    for index, where in enumerate((slice(0, header.segment0), slice(header.segment0, header.channels))):
        if where.start < where.stop:
            out[:, block.channels[where]] = _segment(block, index, where)
    return out


def _segment(block: Block, index: int, where: slice) -> np.ndarray:
    header = block.header
    kind = KvFormat.K1 if index else header.format
    transform = (header.transform0, header.transform1)[index]
    stored, codes = block.scales[where], block.codes[:, where]
    if header.metadata is KvMetadata.FP16 and transform is KvTransform.NONE:
        scale = stored.view(np.float16).astype(np.float64)
    else:
        units = _F6[stored] if header.metadata is KvMetadata.F6 else stored.astype(np.float64)
        scale = units * 2.0 ** (header.exponent0, header.exponent1)[index]
    if kind.has_minimum:
        return block.minima.view(np.float16).astype(np.float64) + codes * scale
    name = _NAMES[transform]
    coefficients = np.array(_LEVELS[kind])[codes] * (scale / fold_of(name, len(stored)).numpy())
    return inverse(torch.from_numpy(coefficients), name).numpy()


def decibels(signal: np.ndarray, error: np.ndarray) -> float:
    """10 log10 of the energy of the signal over that of the error; infinite without an error."""
    energy = float(np.square(error, dtype=np.float64).sum())
    return 10 * math.log10(float(np.square(signal, dtype=np.float64).sum()) / energy) if energy else math.inf

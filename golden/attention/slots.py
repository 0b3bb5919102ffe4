"""Exact tokens as the attention cores read them: INT8 codes in digit planes (docs/attention.md, section 6)."""

import numpy as np
import torch

from spec.attention import BUS_BYTES, PLANE_OFFSET, PLANES
from spec.rlkv import exact_token_bytes

__all__ = ["digit_planes", "run_packet", "write_slots"]


def digit_planes(codes: torch.Tensor) -> torch.Tensor:
    """int8 ``[tokens, D]`` -> uint8 ``[tokens, PLANES, D]``: base-4 digits of code + 128, highest first."""
    offset = codes.long() + PLANE_OFFSET
    return torch.stack([offset >> 2 * j & 3 for j in reversed(range(PLANES))], 1).to(torch.uint8)


def write_slots(codes: torch.Tensor, scale: torch.Tensor, value_scale: torch.Tensor | None = None) -> np.ndarray:
    """Slots of consecutive tokens.

    Parameters
    ----------
    codes : torch.Tensor
        int8 ``[tokens, D]``.
    scale : torch.Tensor
        float16 ``[tokens]``.
    value_scale : torch.Tensor or None
        In key slots: float16 ``[tokens]``, the scale of the same tokens' values.

    Returns
    -------
    np.ndarray
        uint8 ``[tokens, token_bytes]``.
    """
    tokens, head_dim = codes.shape
    size = exact_token_bytes(head_dim, "int8", BUS_BYTES)
    planes = digit_planes(codes).numpy().reshape(tokens, PLANES * head_dim)
    bits = np.stack([planes & 1, planes >> 1], 2).reshape(tokens, -1)
    parts = [np.packbits(bits, axis=1, bitorder="little")]
    for numbers in (scale, value_scale):
        if numbers is not None:
            if numbers.dtype != torch.float16 or numbers.shape != (tokens,):
                raise ValueError(f"scale must be float16 [{tokens}], not {numbers.dtype} {list(numbers.shape)}")
            parts.append(numbers.numpy().view(np.uint8).reshape(tokens, 2))
    slots = np.concatenate(parts, 1)
    return np.pad(slots, ((0, 0), (0, size - slots.shape[1])))


def run_packet(slots: np.ndarray) -> bytes:
    """A run of slots as the cores take it: one after another, zeros up to a whole beat."""
    data = slots.tobytes()
    return data + bytes(-len(data) % BUS_BYTES)

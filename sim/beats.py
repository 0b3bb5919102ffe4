"""Stream payloads as arrays.

A sequence of ``n`` payloads of ``width`` bits is a ``uint64`` array ``[n]`` up to 64 bits, and above that a ``uint8``
array ``[n, ceil(width / 8)]``, little endian (bit 0 of the payload is bit 0 of byte 0).
"""

from collections.abc import Iterable

import numpy as np

__all__ = ["from_ints", "from_literals", "to_ints", "to_literals"]

INT_WIDTH = 32
"""Widest payload that crosses the simulator's interface as an int; wider ones cross as strings of binary digits."""


def from_ints(values: Iterable[int], width: int) -> np.ndarray:
    """Payloads given as non-negative ints below ``2**width``, as an array. Raises `ValueError` outside that range."""
    values = [int(value) for value in values]
    bad = next((value for value in values if not 0 <= value < 1 << width), None)
    if bad is not None:
        raise ValueError(f"values must be in 0..2**{width} - 1, not {bad}")
    if width <= 64:
        return np.array(values, dtype=np.uint64)
    size = -(-width // 8)
    return np.frombuffer(b"".join(value.to_bytes(size, "little") for value in values), np.uint8).reshape(-1, size)


def to_ints(beats: np.ndarray) -> list[int]:
    """Inverse of :func:`from_ints`."""
    if beats.ndim == 1:
        return [int(value) for value in beats.tolist()]
    return [int.from_bytes(row.tobytes(), "little") for row in np.ascontiguousarray(beats, dtype=np.uint8)]


def checked(beats: np.ndarray | Iterable[int], width: int, name: str = "beats") -> np.ndarray:
    """``beats`` in the array form of ``width``; raises `TypeError` or `ValueError` naming ``name`` if it has none."""
    if not isinstance(beats, np.ndarray) or beats.dtype == object:
        try:
            return from_ints(beats, width)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if width <= 64:
        if beats.ndim != 1 or (beats.dtype.kind not in "ub" and (beats.dtype.kind != "i" or (beats < 0).any())):
            raise TypeError(
                f"{name} must be a 1-D array of non-negative integers for {width}-bit payloads, "
                f"not {beats.dtype} of shape {beats.shape}"
            )
        beats = beats.astype(np.uint64)
        if width < 64 and beats.size and int(beats.max()) >> width:
            raise ValueError(f"{name} must be below 2**{width}, not {int(beats.max())}")
        return beats
    size = -(-width // 8)
    if beats.dtype != np.uint8 or beats.ndim != 2 or beats.shape[1] != size:
        raise TypeError(
            f"{name} must be uint8 [n, {size}] for {width}-bit payloads, not {beats.dtype} of shape {beats.shape}"
        )
    if width % 8 and beats.size and (beats[:, -1] >> (width % 8)).any():
        raise ValueError(f"{name} has bits set above bit {width - 1}")
    return beats


def to_literals(beats: np.ndarray, width: int) -> list[int] | list[str]:
    """Payloads in the form the simulator takes: ints up to 32 bits, else binary digits, most significant first."""
    if width <= INT_WIDTH:
        return beats.tolist()
    if width <= 64:
        beats = beats.astype("<u8").view(np.uint8).reshape(-1, 8)
    digits = np.unpackbits(beats, axis=1, bitorder="little")[:, width - 1 :: -1] + ord("0")
    text = digits.astype(np.uint8).tobytes().decode("ascii")
    return [text[start : start + width] for start in range(0, len(text), width)]


def from_literals(literals: list[int] | list[str], width: int) -> np.ndarray:
    """Inverse of :func:`to_literals`."""
    if width <= INT_WIDTH:
        # The simulator returns 32-bit values as signed.
        return (np.array(literals, dtype=np.int64) & (1 << INT_WIDTH) - 1).astype(np.uint64)
    digits = np.frombuffer("".join(literals).encode("ascii"), np.uint8).reshape(-1, width) - ord("0")
    size = 8 if width <= 64 else -(-width // 8)
    beats = np.zeros((len(literals), size), np.uint8)
    packed = np.packbits(digits[:, ::-1], axis=1, bitorder="little")
    beats[:, : packed.shape[1]] = packed
    return beats.view("<u8")[:, 0].astype(np.uint64) if width <= 64 else beats

"""Payload arrays to and from the fields of an Amaranth layout, so that test benches never count bits by hand."""

from collections.abc import Mapping

import numpy as np
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import data

from sim import beats as form

__all__ = ["pack", "unpack"]


def pack(layout: ShapeLike, fields) -> np.ndarray:
    """Payloads with the given field values.

    Parameters
    ----------
    layout : shape-like
        Usually a :class:`~amaranth.lib.data.StructLayout`; fields may be structs, arrays, enums and signed numbers.
    fields : nested mapping of field name to array
        One integer array ``[n]`` per field; ``[n, length, ...]`` for an array layout; bytes ``[n, ceil(width / 8)]``
        for a number wider than 64 bits. A scalar holds for every payload.

    Returns
    -------
    numpy.ndarray
        ``n`` payloads, in the form of :mod:`sim.beats`.

    Raises
    ------
    ValueError
        A field is missing or unknown, a value does not fit, or lengths differ. The message names the field.
    """
    width = Shape.cast(layout).width
    lengths = {length for length in leaf_lengths(layout, fields, "payload") if length is not None}
    if len(lengths) > 1:
        raise ValueError(f"fields have different lengths: {sorted(lengths)}")
    bits = np.zeros((lengths.pop() if lengths else 1, width), np.uint8)
    scatter(bits, layout, fields, "payload")
    return from_bits(bits)


def unpack(layout: ShapeLike, beats: np.ndarray):
    """Inverse of :func:`pack`: a mapping of field name to array, uint64 or int64 (signed), nested as the layout is."""
    width = Shape.cast(layout).width
    return gather(to_bits(form.checked(beats, width), width), layout)


def to_bits(beats: np.ndarray, width: int) -> np.ndarray:
    if width <= 64:
        beats = beats.astype("<u8").view(np.uint8).reshape(-1, 8)
    return np.unpackbits(beats, axis=1, bitorder="little")[:, :width]


def from_bits(bits: np.ndarray) -> np.ndarray:
    rows, width = bits.shape
    packed = np.packbits(bits, axis=1, bitorder="little")
    if width > 64:
        return packed
    eight = np.zeros((rows, 8), np.uint8)
    eight[:, : packed.shape[1]] = packed
    return eight.view("<u8")[:, 0].astype(np.uint64)


def members(layout: ShapeLike):
    """(name or index, bit offset, shape) of each field of an aggregate; None for a number."""
    if isinstance(layout, data.ArrayLayout):
        size = Shape.cast(layout.elem_shape).width
        return [(index, index * size, layout.elem_shape) for index in range(layout.length)]
    if isinstance(layout, data.Layout):
        return [(name, field.offset, field.shape) for name, field in layout]
    if isinstance(layout, type) and hasattr(layout, "as_shape") and isinstance(layout.as_shape(), data.Layout):
        return members(layout.as_shape())
    return None


def item(layout: ShapeLike, values, key, name: str):
    """Values of one field out of those of an aggregate."""
    if isinstance(key, int):
        values = np.asarray(values)
        if values.ndim < 2:
            raise ValueError(f"{name} must have an axis for the elements after the first, not shape {values.shape}")
        return values[:, key]
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be a mapping of its fields, not {type(values).__name__}")
    known = [field for field, _, _ in members(layout)]
    if set(values) != set(known):
        raise ValueError(f"{name} must have exactly the fields {known}, not {sorted(values)}")
    return values[key]


def leaf_lengths(layout: ShapeLike, values, name: str):
    fields = members(layout)
    if fields is None:
        yield len(values) if np.ndim(values) else None
        return
    for key, _offset, shape in fields:
        yield from leaf_lengths(shape, item(layout, values, key, name), f"{name}.{key}")


def scatter(bits: np.ndarray, layout: ShapeLike, values, name: str) -> None:
    fields = members(layout)
    if fields is not None:
        for key, offset, shape in fields:
            part = bits[:, offset : offset + Shape.cast(shape).width]
            scatter(part, shape, item(layout, values, key, name), f"{name}.{key}")
        return
    shape = Shape.cast(layout)
    if shape.width > 64:
        bits[:] = to_bits(form.checked(np.asarray(values), shape.width, name), shape.width)
        return
    low = -(1 << shape.width - 1) if shape.signed else 0
    high = (1 << shape.width - int(shape.signed)) - 1
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integers, not {numbers.dtype}")
    for value in (int(numbers.min()), int(numbers.max())) if numbers.size else ():
        if not low <= value <= high:
            raise ValueError(f"{name} must be in {low}..{high}, not {value}")
    unsigned = np.broadcast_to(numbers.astype(np.int64 if numbers.dtype.kind == "i" else np.uint64), bits.shape[:1])
    bits[:] = to_bits(unsigned.astype(np.uint64), shape.width)


def gather(bits: np.ndarray, layout: ShapeLike):
    fields = members(layout)
    if fields is not None:
        parts = [(key, gather(bits[:, offset : offset + Shape.cast(s).width], s)) for key, offset, s in fields]
        if isinstance(layout, data.ArrayLayout) and parts and isinstance(parts[0][1], np.ndarray):
            return np.stack([part for _, part in parts], axis=1)
        return dict(parts)
    shape = Shape.cast(layout)
    numbers = from_bits(bits)
    if shape.signed and shape.width <= 64:
        top = 64 - shape.width
        return (numbers << np.uint64(top)).view(np.int64) >> top
    return numbers

"""Row packets back to quantized weights: the inverse of packing."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from golden.weights.packing import PackedWeight, check_lanes
from golden.weights.parsing import PacketError, ParsedRow, parse_row
from golden.weights.quantized import QuantizedWeight
from golden.weights.uniform import UniformRows, parse_uniform
from spec.datatypes import Datatype
from spec.errors import WeightError

__all__ = ["stack_rows", "unpack", "unpack_rows"]


def unpack_rows(
    packets: Sequence[np.ndarray],
    *,
    lanes: int = 4,
    channel_scale: np.ndarray | None = None,
    special_values: Mapping[Datatype, tuple[int, ...]] | None = None,
) -> QuantizedWeight:
    """Inverse of ``row_packets``: packets of one length and group size, in the order of the output channels.

    Raises
    ------
    PacketError
        A packet is not well formed, or differs from the first in length or group size; names the row and the group.
    """
    if len(packets) == 0:
        raise ValueError("packets must hold at least one packet")
    check_lanes(lanes)
    if all(words.dtype == np.uint64 and words.shape == packets[0].shape and words.size > 0 for words in packets):
        uniform = parse_uniform(np.stack(packets), lanes=lanes)
        if uniform is not None:
            return _quantized(uniform, channel_scale, special_values)
    rows = [parse_row(words, lanes=lanes).check(f"row {index}") for index, words in enumerate(packets)]
    for index, row in enumerate(rows):
        if (row.length, row.group_size) != (rows[0].length, rows[0].group_size):
            raise PacketError(
                f"row {index} has {row.length} weights in groups of {row.group_size}, "
                f"row 0 has {rows[0].length} in groups of {rows[0].group_size}",
                WeightError.WEIGHT_LENGTH,
            )
    return stack_rows(rows, channel_scale=channel_scale, special_values=special_values)


def stack_rows(
    rows: Sequence[ParsedRow],
    *,
    channel_scale: np.ndarray | None = None,
    special_values: Mapping[Datatype, tuple[int, ...]] | None = None,
) -> QuantizedWeight:
    """One quantized weight of well-formed rows of one length and group size; channel scales are 1 if not given."""
    arrays = (np.stack([getattr(row, name) for row in rows]) for name in ("datatype", "select", "scale8", "codes"))
    return _quantized(UniformRows(rows[0].length, rows[0].group_size, *arrays), channel_scale, special_values)


def _quantized(rows: UniformRows, channel_scale, special_values) -> QuantizedWeight:
    if channel_scale is None:
        channel_scale = np.ones(len(rows.codes), dtype=np.float32)
    return QuantizedWeight(
        datatype=torch.from_numpy(rows.datatype),
        codes=torch.from_numpy(rows.codes),
        select=torch.from_numpy(rows.select),
        scale8=torch.from_numpy(rows.scale8),
        channel_scale=torch.from_numpy(np.array(channel_scale, dtype=np.float32)),
        group_size=rows.group_size,
        special_values=special_values,
    )


def unpack(packed: PackedWeight) -> QuantizedWeight:
    """Inverse of ``pack``; raises PacketError as ``unpack_rows`` does, and for a length other than the shape's."""
    weight = unpack_rows(
        packed.rows(),
        lanes=packed.lanes,
        channel_scale=packed.channel_scale,
        special_values=packed.special_values,
    )
    if weight.shape != tuple(packed.shape) or weight.group_size != packed.group_size:
        raise PacketError(
            f"packets hold {list(weight.shape)} weights in groups of {weight.group_size}, "
            f"not {list(packed.shape)} in groups of {packed.group_size}",
            WeightError.WEIGHT_LENGTH,
        )
    return weight

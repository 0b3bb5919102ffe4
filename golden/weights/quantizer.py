"""The BitMoD quantizer: float weights to codes, special-value selects, 8-bit group scales and channel scales.

Equations Q1..Q7 of docs/weights.md. Source: BitMoD (arXiv 2411.11745), section III and Table IV.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

from golden.arguments import tensor
from golden.weights.quantized import QuantizedWeight, checked_special_values
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from spec.packet import MAX_INPUTS, group_size_code

__all__ = ["quantize"]

SCALE_MIN, SCALE_MAX = 1e-5, 1e4
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_CHUNK = 1 << 20  # weights per pass: bounds the memory of the temporaries to some tens of megabytes


def quantize(
    weight: torch.Tensor,
    datatype: Datatype,
    *,
    group_size: int = 128,
    special_values: Mapping[Datatype, tuple[int, ...]] | None = None,
    signed_special_terms: bool = False,
) -> QuantizedWeight:
    """Quantize a weight tensor to one BitMoD datatype.

    Parameters
    ----------
    weight : float32, float16 or bfloat16 tensor [out, in]
        Finite; converted to FP32 first. The last group of a row may be short.
    datatype : Datatype
        One of :data:`spec.datatypes.WEIGHT_DATATYPES`.
    group_size : int
        32, 64 or 128 weights along the input channel.
    special_values : mapping from FP3 or FP4 to four integers
        What the special-value registers hold (FP4 in half-units); by default the values after reset.
    signed_special_terms : bool
        Also allow special values that are differences of two terms (7 = 8 - 1).

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """
    if datatype not in WEIGHT_DATATYPES:
        raise ValueError(f"datatype must be one of {[d.name for d in WEIGHT_DATATYPES]}, not {datatype!r}")
    datatype = Datatype(datatype)
    group_size_code(group_size)
    registers = checked_special_values(special_values, signed_terms=signed_special_terms)
    weight = tensor("weight", weight, ("output channels", "input channels"), _DTYPES)
    if 0 in weight.shape or weight.shape[1] > MAX_INPUTS:
        raise ValueError(
            f"weight must have shape [output channels, 1..{MAX_INPUTS} input channels], not {list(weight.shape)}"
        )
    if not bool(torch.isfinite(weight).all()):
        row, column = (~torch.isfinite(weight)).nonzero()[0].tolist()
        raise ValueError(f"weight must be finite, but weight[{row}, {column}] = {float(weight[row, column])}")

    rows = max(1, _CHUNK // weight.shape[1])
    parts = [
        _quantize_rows(chunk.float(), datatype, group_size, registers.get(datatype)) for chunk in weight.split(rows)
    ]
    codes, select, scale8, channel_scale = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return QuantizedWeight(
        datatype=torch.full_like(scale8, int(datatype)),
        codes=codes,
        select=select,
        scale8=scale8,
        channel_scale=channel_scale,
        group_size=group_size,
        special_values=registers,
    )


def _quantize_rows(weight: torch.Tensor, datatype: Datatype, group_size: int, registers: tuple[int, ...] | None):
    """Codes [out, in], select and scale8 [out, groups] (uint8), channel scale [out] (float32) of float32 weights."""
    out, length = weight.shape
    groups = functional.pad(weight, (0, -length % group_size)).view(out, -1, group_size)
    absmax = groups.abs().amax(2)
    if registers is None:
        codes, scale = _to_int(groups, _scale(absmax, (1 << datatype.bits - 1) - 1), datatype.bits)
        select = torch.zeros(absmax.shape, dtype=torch.uint8)
    else:
        codes, scale, select, _error = _to_float(groups, absmax, datatype, registers)

    empty = absmax == 0  # Q5, Q6
    zero_row = empty.all(1)
    channel_scale = torch.where(zero_row, 1.0, scale.amax(1) / 255)
    scale8 = (scale / channel_scale[:, None]).round().clamp(0, 255).masked_fill(empty, 0)
    small = (scale8 == 0) & ~empty  # Q7
    if small.any():
        step = channel_scale[:, None].expand_as(scale)[small]
        if registers is None:
            again, _ = _to_int(groups[small], step, datatype.bits)
            chosen, better = select[small], (again != 0).any(1)
        else:
            again, _, chosen, error = _to_float(groups[small], step, datatype, registers, fixed=True)
            better = error < _halving_sum(groups[small].square().double())
        codes[small] = torch.where(better[:, None], again, codes[small])
        select[small] = torch.where(better, chosen, select[small])
        scale8[small] = better.float()
    return codes.reshape(out, -1)[:, :length].contiguous(), select, scale8.to(torch.uint8), channel_scale


def _scale(absmax: torch.Tensor, vmax: int) -> torch.Tensor:
    """Q1, float32."""
    return (absmax / vmax).clamp(SCALE_MIN, SCALE_MAX)


def _to_int(groups: torch.Tensor, scale: torch.Tensor, bits: int):
    """Q2: symmetric INT codes."""
    vmax = (1 << (bits - 1)) - 1
    codes = (groups / scale[..., None]).round_().clamp_(-vmax, vmax).to(torch.int16)
    return (codes & ((1 << bits) - 1)).to(torch.uint8), scale


def _to_float(groups: torch.Tensor, absmax: torch.Tensor, datatype: Datatype, registers: tuple[int, ...], fixed=False):
    """Q3 and Q4: nearest allowed value under each special value, then the special value with the least error.

    ``fixed``: ``absmax`` is the scale.
    """
    best_error = best_codes = best_scale = select = None
    for index, special in enumerate(registers):
        values, codes_of_values = _allowed_values(datatype, special)
        scale = absmax if fixed else _scale(absmax, max(-values[0], values[-1]))
        table = torch.tensor(values, dtype=torch.float32)
        # Midpoints are exact in float32; bucketize puts a value equal to one into the lower bin, as Q3 asks.
        nearest = torch.bucketize(groups / scale[..., None], (table[:-1] + table[1:]) / 2, out_int32=True)
        squares = (table[nearest] * scale[..., None] - groups).square_()
        error = _halving_sum(squares.double())
        codes = torch.tensor(codes_of_values, dtype=torch.uint8)[nearest]
        if best_error is None:
            best_error, best_codes, best_scale = error, codes, scale
            select = torch.zeros(error.shape, dtype=torch.uint8)
            continue
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_codes = torch.where(better[..., None], codes, best_codes)
        best_scale = torch.where(better, scale, best_scale)
        select.masked_fill_(better, index)
    return best_codes, best_scale, select, best_error


def _allowed_values(datatype: Datatype, special: int) -> tuple[list[int], list[int]]:
    """The values of a group in ascending order and their codes; a basic value keeps its own code."""
    sign = 1 << (datatype.bits - 1)
    codes = {special: sign}
    for index, magnitude in enumerate(datatype.magnitudes):
        codes[-magnitude] = sign | index
        codes[magnitude] = index
    values = sorted(codes)
    return values, [codes[value] for value in values]


def _halving_sum(terms: torch.Tensor) -> torch.Tensor:
    """Sum over the last axis (a power of two long) in one fixed order, the same on every machine."""
    while terms.shape[-1] > 1:
        half = terms.shape[-1] // 2
        terms = terms[..., :half] + terms[..., half:]
    return terms[..., 0]

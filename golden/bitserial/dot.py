"""Bit-exact models of bit-serial group sums, their dequantizer and the FP32 accumulation (docs/weights.md, 6 and 7)."""

import numpy as np
import torch
from torch.nn import functional

from golden.bitserial.decoder import Terms, term_tables
from golden.bitserial.pe import UNIT_EXPONENT, Activations, accumulate, check_pe
from golden.weights.quantized import QuantizedWeight
from spec.datatypes import Datatype

__all__ = ["MARKED_BITS", "dequantize_group", "dot_products", "group_sums"]

MARKED_BITS = 0x7FC00000
"""Data of a marked result: the canonical NaN."""
_CHUNK = 1 << 16  # lanes simulated at once: small enough for the temporaries to stay in cache

_TERMS_PER_WEIGHT = torch.tensor([Datatype(field).terms if field in list(Datatype) else 0 for field in range(16)])


def group_sums(
    weight: QuantizedWeight,
    activations: torch.Tensor,
    *,
    lanes: int = 4,
    rounding: str = "trunc",
    accumulator_bits: int = 15,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The PE's partial sums of every group: A and X, int32 [tokens, out, groups], worth ``A * 2^(X - 28)``.

    ``activations`` is float16 [tokens, in]; an Inf or NaN counts as zero here. Raises TypeError or ValueError naming
    what is wrong with a parameter.
    """
    check_pe(lanes, rounding, accumulator_bits)
    fields = _checked_activations(weight, activations)
    steps = int(_TERMS_PER_WEIGHT[weight.datatype.int()].max())
    slots = weight.group_size if weight.groups > 1 else -(-weight.shape[1] // lanes) * lanes
    pad = (0, weight.groups * slots - weight.shape[1])

    def beats(tensor: torch.Tensor) -> torch.Tensor:
        """[rows or tokens, in] -> [beats, lanes, rows or tokens, groups]."""
        grouped = functional.pad(tensor, pad).view(tensor.shape[0], weight.groups, -1, lanes)
        return grouped.permute(2, 3, 0, 1).contiguous()

    fields = Activations(
        *(beats(field)[:, :, :, None] for field in (fields.sign, fields.exponent, fields.significand)), None
    )
    values, datatype = weight.integers(), weight.datatype.long()
    tokens, rows = activations.shape[0], max(1, _CHUNK // (activations.shape[0] * weight.groups * lanes))
    parts = [
        _simulate(beats(values[part]), datatype[part], fields, tokens, steps, rounding, accumulator_bits)
        for part in torch.arange(weight.shape[0]).split(rows)
    ]
    mantissa, exponent = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    return mantissa, exponent


def _simulate(values, datatype, fields, tokens, steps, rounding, accumulator_bits) -> tuple[torch.Tensor, torch.Tensor]:
    """All beats and steps of [tokens, rows, groups] partial sums; values int32 [beats, lanes, rows, groups]."""
    tables = term_tables()
    index = datatype * 256 + values + 128
    by_step = [
        Terms(
            *(table[step].flatten()[index][:, :, None] for table in (tables.sign, tables.man, tables.x)),
            tables.bsig[step][datatype],
        )
        for step in range(steps)
    ]
    mantissa = torch.zeros(tokens, *datatype.shape, dtype=torch.int32)
    exponent = torch.zeros_like(mantissa)
    for beat in range(values.shape[0]):
        beat_fields = Activations(fields.sign[beat], fields.exponent[beat], fields.significand[beat], None)
        for term in by_step:
            beat_term = Terms(term.sign[beat], term.man[beat], term.x[beat], term.bsig)
            mantissa, exponent = accumulate(mantissa, exponent, beat_term, beat_fields, rounding, accumulator_bits)
    return mantissa, exponent


def _checked_activations(weight: QuantizedWeight, activations: torch.Tensor) -> Activations:
    if activations.dim() != 2 or activations.shape[1] != weight.shape[1] or activations.shape[0] == 0:
        raise ValueError(
            f"activations must have shape [tokens, {weight.shape[1]}], the weight's input channels, "
            f"not {list(activations.shape)}"
        )
    return Activations.split(activations)


def dequantize_group(mantissa: torch.Tensor, exponent: torch.Tensor, scale8: torch.Tensor) -> torch.Tensor:
    """G1 and G2: ``A * scale8 * 2^(X - 28)`` as float32, which is exact; zero is +0."""
    scaled = mantissa * scale8.to(torch.int32)
    return torch.ldexp(scaled.double(), exponent - UNIT_EXPONENT).float()


def dot_products(
    weight: QuantizedWeight,
    activations: torch.Tensor,
    *,
    lanes: int = 4,
    rounding: str = "trunc",
    accumulator_bits: int = 15,
) -> np.ndarray:
    """A row of PEs' FP32 results, before the channel scale, as bits: uint32 [tokens, out].

    Parameters
    ----------
    weight : QuantizedWeight
    activations : float16 tensor [tokens, in]
        A token with an Inf or NaN gives the marked NaN for every output channel.
    lanes, rounding, accumulator_bits
        As configured in the hardware.
    """
    mantissa, exponent = group_sums(
        weight, activations, lanes=lanes, rounding=rounding, accumulator_bits=accumulator_bits
    )
    scaled = dequantize_group(mantissa, exponent, weight.scale8)
    total = torch.zeros(scaled.shape[:2])
    for group in range(weight.groups):  # G3: ascending order, one FP32 rounding each
        total = total + scaled[:, :, group]
    bits = total.numpy().view(np.uint32)
    bits[~torch.isfinite(activations).all(1).numpy()] = MARKED_BITS
    return bits

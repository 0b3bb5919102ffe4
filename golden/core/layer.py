"""Bit-exact model of a layer on the accelerator core: section 4 of docs/core.md."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from golden.bitserial.dot import MARKED_BITS
from golden.core.groups import prepare
from golden.prealigned.dot import running_sums
from golden.weights.quantized import QuantizedWeight
from spec.bitserial import BitSerialConfig
from spec.prealigned import PrealignedConfig

__all__ = ["MARKED_FP16", "CoreResult", "core_layer", "finish", "input_channels"]

MARKED_FP16 = 0x7E00
"""Data of a marked FP16 result; a marked FP32 result is ``MARKED_BITS``."""
_FP16_LARGEST = 0x7BFF


@dataclass(frozen=True, eq=False)
class CoreResult:
    """Y of a job.

    Attributes
    ----------
    bits : uint32 array [tokens, out]
        FP32, or FP16 in the low half.
    marked : bool array [tokens, out]
    fp16 : bool
    fp32_overflow, fp16_saturated : bool
        The sticky numeric flags that the job sets.
    """

    bits: np.ndarray
    marked: np.ndarray
    fp16: bool
    fp32_overflow: bool
    fp16_saturated: bool

    def values(self) -> np.ndarray:
        """The results as numbers, float64 [tokens, out]; NaN where marked."""
        if self.fp16:
            return self.bits.astype(np.uint16).view(np.float16).astype(np.float64)
        return self.bits.view(np.float32).astype(np.float64)


def input_channels(weight: QuantizedWeight, start: int, stop: int) -> QuantizedWeight:
    """The weight's input channels ``start`` to ``stop``; ``start`` a multiple of the group size."""
    if start % weight.group_size:
        raise ValueError(f"start must be a multiple of the group size {weight.group_size}, not {start}")
    groups = slice(start // weight.group_size, -(-stop // weight.group_size))
    parts = {name: getattr(weight, name)[:, groups] for name in ("datatype", "select", "scale8")}
    return replace(weight, codes=weight.codes[:, start:stop], **parts)


def finish(sums: torch.Tensor, channel_scale: torch.Tensor, marked: torch.Tensor, *, fp16: bool = False) -> CoreResult:
    """C1 to C3: running sums to results.

    Parameters
    ----------
    sums : float32 tensor [tokens, out]
        Q3; finite.
    channel_scale : float32 tensor [out]
        Any.
    marked : bool tensor [tokens, out]
    fp16 : bool
        FP16 results; FP32 otherwise.
    """
    y = sums * channel_scale
    zero_is_plus = torch.where(y == 0, 0.0, y)
    overflow = torch.isinf(y) & torch.isfinite(channel_scale) & ~marked
    saturated = torch.zeros_like(marked)
    if fp16:
        h = zero_is_plus.half()
        saturated = torch.isinf(h) & ~marked
        halves = torch.where(h == 0, torch.zeros((), dtype=torch.float16), h).view(torch.int16).numpy().view(np.uint16)
        bits = np.where(torch.isinf(h).numpy(), halves & 0x8000 | _FP16_LARGEST, halves).astype(np.uint32)
    else:
        bits = zero_is_plus.numpy().view(np.uint32)
    bits = np.where(torch.isnan(y).numpy() | marked.numpy(), MARKED_FP16 if fp16 else MARKED_BITS, bits)
    return CoreResult(bits.astype(np.uint32), marked.numpy(), fp16, bool(overflow.any()), bool(saturated.any()))


def core_layer(
    weight: QuantizedWeight,
    activations: torch.Tensor,
    *,
    datapath: PrealignedConfig | BitSerialConfig | None = None,
    fp16: bool = False,
    chunk: int | None = None,
) -> CoreResult:
    """``X W^T`` as the core computes it, bit for bit.

    Groups round as in docs/prealigned.md, A1 to Q3, or as in docs/weights.md, P1 to G3; then one rounding for the
    channel scale, and one for FP16 results.

    Parameters
    ----------
    weight : QuantizedWeight
        W, [out, in].
    activations : float16 tensor [tokens, in]
        X. A token with an Inf or NaN has marked results.
    datapath : PrealignedConfig or BitSerialConfig, optional
        Of the build; by default the pre-aligned one with W = 16.
    fp16 : bool
        FP16 results.
    chunk : int, optional
        Compute so many input channels at a time, a multiple of the group size. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter that is wrong.
    """
    tokens, (out, length) = activations.shape[0], weight.shape
    datapath = PrealignedConfig() if datapath is None else datapath
    step = length if chunk is None else chunk
    if chunk is not None and (chunk < 1 or chunk % weight.group_size):
        raise ValueError(f"chunk must be a multiple of the group size {weight.group_size}, not {chunk!r}")
    sums = torch.zeros(tokens, out)
    poison = torch.zeros(tokens, dtype=torch.bool)
    for start in range(0, length, step):
        part = input_channels(weight, start, min(length, start + step))
        prepared = prepare(datapath, activations[:, start : start + step], weight.group_size)
        sums = running_sums(prepared.values(part), sums)
        poison |= prepared.poison
    return finish(sums, weight.channel_scale, poison[:, None].expand(tokens, out), fp16=fp16)

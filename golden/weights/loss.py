"""What quantizing a layer lost beyond rounding: scales that could not be stored, rows that come back otherwise."""

from dataclasses import dataclass

import torch

from golden.weights.quantized import QuantizedWeight

__all__ = ["Loss", "quantization_loss"]

_ROWS = 256


@dataclass(frozen=True)
class Loss:
    """Attributes
    ----------
    weights, lost : int
        Weights that are not 0; those of them in groups whose scale is not what their weights ask for, because the
        range of scales or the 8 bits of a group's scale do not reach: the group's largest weight comes back changed by
        more than half of itself.
    error : float
        The largest relative error of a row: ``|w - y| / |w|``, Euclidean.
    row : int
        The row that has it.
    """

    weights: int
    lost: int
    error: float
    row: int


def quantization_loss(weight: torch.Tensor, quantized: QuantizedWeight) -> Loss:
    """Compare a weight, floats ``[out, in]``, with what it was quantized to."""
    weights = lost = row = 0
    worst, size = 0.0, quantized.group_size
    values = quantized.dequantize()
    for start in range(0, len(weight), _ROWS):
        exact, found = weight[start : start + _ROWS].double(), values[start : start + _ROWS].double()
        norm = exact.norm(dim=1)
        errors = torch.where(norm > 0, (exact - found).norm(dim=1) / norm, 0.0)
        if float(errors.max()) > worst:
            worst, row = float(errors.max()), start + int(errors.argmax())
        for group, back in zip(exact.split(size, 1), found.split(size, 1), strict=True):
            largest = group.abs().amax(1)
            bad = (back.abs().amax(1) - largest).abs() > largest / 2
            weights += int((group != 0).sum())
            lost += int((group[bad] != 0).sum())
    return Loss(weights, lost, worst, row)

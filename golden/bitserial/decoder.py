"""The bit-serial terms of a weight, from its value: D1..D3 of docs/weights.md (BitMoD, arXiv 2411.11745, Eq. 4).

The design derives terms from the code; here they follow from the value by arithmetic, so that neither can copy the
other's mistakes.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from spec.datatypes import Datatype

__all__ = ["Terms", "terms"]

_LEADING = (Datatype.FP3, Datatype.FP4, Datatype.U2, Datatype.S2)
_SINGLE = (Datatype.TERNARY, Datatype.BINARY)


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms ``(-1)^sign * man * 2^x * 2^bsig`` per weight and step: int32 tensors that broadcast to one shape."""

    sign: torch.Tensor
    man: torch.Tensor
    x: torch.Tensor
    bsig: torch.Tensor

    def values(self) -> torch.Tensor:
        """The integer that each term stands for."""
        return (1 - 2 * self.sign) * self.man << (self.x + self.bsig)


def terms(datatype: Datatype, values: torch.Tensor) -> Terms:
    """The terms of integer weights: tensors of shape [terms per weight, *values.shape]; bsig [terms per weight, 1...].

    The sum of the terms is the weight. Raises ValueError for values that the datatype's steps cannot represent.
    """
    datatype = Datatype(datatype)
    values = values.to(torch.int32)
    if datatype in _SINGLE:
        signed, bsig = values[None], [0]
    elif datatype in _LEADING:
        signed, bsig = _leading_ones(values), [1, 0]
    else:
        steps = datatype.terms
        signed, bsig = _booth_digits(values, steps), [2 * step for step in range(steps)]
    significance = torch.tensor(bsig, dtype=torch.int32).view(-1, *[1] * values.dim())
    magnitude = signed.abs()
    x = _log2(magnitude) - torch.where(magnitude > 0, significance, 0)
    result = Terms((signed < 0).int(), (magnitude > 0).int(), x, significance)
    limit = 0 if datatype in _SINGLE else 3 if datatype in _LEADING else 1
    exact = (result.values().sum(0) == values) & (x >= 0).all(0) & (x <= limit).all(0)
    if not bool(exact.all()):
        wrong = int(values[~exact][0])
        raise ValueError(f"values must be sums of {len(bsig)} terms of {datatype.name}, which {wrong} is not")
    return result


def _log2(powers: torch.Tensor) -> torch.Tensor:
    """floor(log2) of positive integers below 2^24; 0 for 0."""
    return (torch.frexp(powers.clamp(min=1).float()).exponent - 1).to(torch.int32)


def _booth_digits(values: torch.Tensor, steps: int) -> torch.Tensor:
    """D1: d_j * 4^j with d_j = Y_j - 4 Y_(j+1), Y_j = floor(v / 4^j + 1/2); they sum to v if Y_steps is 0."""

    def rounded(j: int) -> torch.Tensor:
        return values if j == 0 else torch.div(2 * values + 4**j, 2 * 4**j, rounding_mode="floor")

    signed = [(rounded(j) - 4 * rounded(j + 1)) * 4**j for j in range(steps)]
    return torch.stack(signed)


def _leading_ones(values: torch.Tensor) -> torch.Tensor:
    """D2: the leading one among bits 4..1, then the signed rest; a rest of two ones makes the first term round up."""
    magnitude = values.abs()
    leading = torch.where(magnitude >= 2, 1 << _log2(magnitude), 0)
    rest = magnitude - leading
    above = torch.where((rest & (rest - 1)) != 0, 2 * leading, leading)
    sign = torch.where(values < 0, -1, 1)
    return torch.stack([sign * above, sign * (magnitude - above)])


@lru_cache(maxsize=1)
def term_tables() -> Terms:
    """Terms of every (datatype field, value + 128): int32 [4 steps, 16, 256]; bsig [4 steps, 16]. Absent: man = 0."""
    sign, man, x = (torch.zeros(4, 16, 256, dtype=torch.int32) for _ in range(3))
    bsig = torch.zeros(4, 16, dtype=torch.int32)
    for datatype in Datatype:
        steps = datatype.terms
        for value in range(-128, 128):
            try:
                one = terms(datatype, torch.tensor(value))
            except ValueError:
                continue
            for table, tensor in ((sign, one.sign), (man, one.man), (x, one.x)):
                table[:steps, datatype, value + 128] = tensor
            bsig[:steps, datatype] = one.bsig
    return Terms(sign, man, x, bsig)

"""Bit-exact model of ``BitSerialPE``: equations P1..P6 of docs/weights.md (BitMoD, arXiv 2411.11745, section IV-B)."""

from dataclasses import dataclass

import torch

from golden.bitserial.decoder import Terms
from spec import checks
from spec.bitserial import ACCUMULATOR_BITS, ROUNDINGS

__all__ = ["Activations", "accumulate", "check_pe", "group_value", "shift_right"]

PE_LANES = (2, 4, 8)
"""Lanes of a bit-serial PE; more would outgrow the widths below."""
WINDOW_BITS = 3
"""Bits of the alignment window below the 11-bit significand."""
UNIT_EXPONENT = 28
"""A group's partial sum is ``A * 2^(X - 28)``."""
_FAR = 28  # a shift this far leaves nothing of the widest operand (25 bits), and half of it cannot round up to 1


def check_pe(lanes: int = 4, rounding: str = "trunc", accumulator_bits: int = 15) -> None:
    """Raise TypeError or ValueError, naming the parameter, unless a bit-serial PE may be so configured."""
    checks.choice("lanes", lanes, PE_LANES)
    checks.choice("rounding", rounding, ROUNDINGS)
    checks.choice("accumulator_bits", accumulator_bits, ACCUMULATOR_BITS)


@dataclass(frozen=True, eq=False)
class Activations:
    """FP16 fields, int32: sign, exponent (subnormals count as 1), significand with hidden bit; finite, bool."""

    sign: torch.Tensor
    exponent: torch.Tensor
    significand: torch.Tensor
    finite: torch.Tensor

    @classmethod
    def split(cls, values: torch.Tensor) -> "Activations":
        """Fields of a float16 tensor; those of Inf and NaN are zero."""
        if values.dtype != torch.float16:
            raise TypeError(f"activations must be a torch.float16 tensor, not {values.dtype}")
        bits = values.contiguous().view(torch.int16).int() & 0xFFFF
        exponent, fraction = bits >> 10 & 31, bits & 1023
        finite = exponent < 31
        significand = torch.where(exponent > 0, fraction + 1024, fraction) * finite
        return cls(bits >> 15, exponent.clamp(min=1) * finite, significand, finite)

    def integers(self) -> torch.Tensor:
        """The values times 2^24, which are integers below 2^40; int64."""
        magnitude = self.significand.long() << (self.exponent - 1).clamp(min=0).long()
        return torch.where(self.sign == 1, -magnitude, magnitude)


def shift_right(magnitude: torch.Tensor, shift: torch.Tensor, rounding: str) -> torch.Tensor:
    """``R(magnitude / 2^shift)`` of nonnegative int32 below 2^25: toward zero, or to nearest with ties to even."""
    shift = shift.clamp(max=_FAR)
    quotient = magnitude >> shift
    if rounding == "trunc":
        return quotient
    below_half = ((1 << shift) - 1) >> 1
    return (magnitude + below_half + (quotient & shift.clamp(max=1))) >> shift


def _signed_shift(value: torch.Tensor, shift: torch.Tensor, rounding: str) -> torch.Tensor:
    return shift_right(value.abs(), shift, rounding) * value.sign()


def accumulate(
    mantissa: torch.Tensor,
    exponent: torch.Tensor,
    term: Terms,
    activations: Activations,
    rounding: str,
    accumulator_bits: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of many PEs: the next accumulators A and exponents X.

    Parameters
    ----------
    mantissa, exponent : int32 tensors [...]
        A and X.
    term : Terms
        sign, man and x of shape [lanes, ...], bsig [...].
    activations : Activations
        Fields of shape [lanes, ...]; all finite.
    rounding : str
        ``"trunc"`` or ``"rne"``.
    accumulator_bits : int
        Width of A with its sign, 15..17.
    """
    magnitude_bits = accumulator_bits - 1
    active = term.man * (activations.significand > 0)
    exponents = (activations.exponent + term.x) * active  # P1; inactive counts as 0, which changes nothing below
    largest = exponents.amax(0)
    products = (activations.significand << WINDOW_BITS) * active
    aligned = shift_right(products, largest - exponents, rounding)  # P2
    total = torch.where(term.sign == activations.sign, aligned, -aligned).sum(0, dtype=torch.int32)  # P3
    total = total << term.bsig  # P4

    common = torch.maximum(largest, exponent)  # P5
    total = _signed_shift(total, common - largest, rounding) + _signed_shift(mantissa, common - exponent, rounding)

    # P6: y = Z for Z >= 0 and -Z - 1 below has as many bits as the least n calls for.
    length = torch.frexp((total ^ (total >> 31)).double()).exponent
    excess = (length - magnitude_bits).clamp(min=0)
    mantissa = _signed_shift(total, excess, rounding)
    carried = mantissa == 1 << magnitude_bits
    mantissa = torch.where(carried, mantissa >> 1, mantissa)
    return mantissa, common + excess + carried.int()


def group_value(mantissa: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
    """``A * 2^(X - 28)``, exact in float64."""
    return torch.ldexp(mantissa.double(), exponent - UNIT_EXPONENT)

"""Configuration of the core's bit-serial datapath: BitMoD's PEs, activations as they are."""

from dataclasses import dataclass

from spec import checks
from spec.datatypes import Datatype
from spec.packet import GROUP_SIZES

__all__ = ["ACCUMULATOR_BITS", "ROUNDINGS", "BitSerialConfig"]

ACCUMULATOR_BITS = (15, 16, 17)
"""Widths of the PE's accumulator mantissa: BitMoD's 15, and up to what FP32 holds exactly after rescaling."""

ROUNDINGS = ("trunc", "rne")
"""Rounding of the PE's alignments: toward zero, or to nearest even."""


@dataclass(frozen=True, kw_only=True)
class BitSerialConfig:
    """Parameters of a core of ``BitSerialPE``s.

    Parameters
    ----------
    lanes : int
        Weights and activations multiplied per step in each PE: 2, 4 or 8.
    rounding : str
        ``"trunc"`` (toward zero) or ``"rne"``, at every alignment and at the normalizing shift.
    accumulator_bits : int
        Width of the PE's accumulator mantissa: 15 (BitMoD's), 16 or 17.
    group_size : int
        Largest group, 32, 64 or 128.
    datatypes : tuple of Datatype
        The datatypes that the core takes; all by default.
    signed_special_terms : bool
        Widen the special values to differences of two terms (7 = 8 - 1).

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    lanes: int = 4
    rounding: str = "trunc"
    accumulator_bits: int = 15
    group_size: int = 128
    datatypes: tuple[Datatype, ...] = tuple(Datatype)
    signed_special_terms: bool = False

    def __post_init__(self):
        checks.choices(
            self,
            lanes=(2, 4, 8),
            rounding=ROUNDINGS,
            accumulator_bits=ACCUMULATOR_BITS,
            group_size=GROUP_SIZES,
            signed_special_terms=(False, True),
        )
        checks.members("datatypes", self.datatypes, Datatype, kind=tuple, least=1)

    @property
    def beats(self) -> int:
        """Beats of a full group: cycles per term of a weight."""
        return self.group_size // self.lanes

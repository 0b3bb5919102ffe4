"""Configuration of the pre-aligned datapath, with the widths that follow from it."""

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from spec import checks
from spec.datatypes import Datatype
from spec.digits import DIGIT_SETS, DigitSet
from spec.packet import GROUP_SIZES

__all__ = ["PrealignedConfig"]

ACTIVATION_BITS = range(10, 25)
LANES = (4, 8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class PrealignedConfig:
    """Parameters of ``PrealignedPE`` and of the blocks at a tile's edge that serve it.

    Parameters
    ----------
    digits : DigitSet
    lanes : int
        Weights and activations multiplied per cycle in each PE: 4, 8, 16 or 32.
    activation_bits : int
        W, 10..24: width of an aligned activation.
    registers : tuple of int, optional
        Numbers of rows of the carry-save tree at which a pipeline register lies; ``lanes`` is the one behind the
        selection. By default lanes, half of it and so on to 2.
    segment_bits : int
        Bits of the PE's accumulator between two saved carries: 1 (carry-save, the default) to 64; from its width on,
        one carry chain through the accumulator.
    group_size : int
        Largest group, 32, 64 or 128.
    datatypes : tuple of Datatype
        The datatypes that the decoder knows; all by default.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    digits: DigitSet = DIGIT_SETS["radix8+"]
    lanes: int = 16
    activation_bits: int = 16
    registers: tuple[int, ...] | None = None
    segment_bits: int = 1
    group_size: int = 128
    datatypes: tuple[Datatype, ...] = tuple(Datatype)

    def __post_init__(self):
        checks.instance("digits", self.digits, DigitSet)
        checks.choices(self, lanes=LANES, group_size=GROUP_SIZES, activation_bits=ACTIVATION_BITS)
        checks.whole("segment_bits", self.segment_bits, 1, 64)
        if self.registers is None:
            halves = tuple(self.lanes >> k for k in range(self.lanes.bit_length() - 1))
            object.__setattr__(self, "registers", halves)
        checks.ordered("registers", self.registers, 2, self.lanes, descending=True)
        checks.members("datatypes", self.datatypes, Datatype, kind=tuple, least=1)

    @property
    def plane_bits(self) -> int:
        """Bits of weight between two digit planes."""
        return self.digits.plane_bits

    @property
    def activation_limit(self) -> int:
        """Largest magnitude of an aligned activation."""
        return 2 ** (self.activation_bits - 1) - 1

    def multiple_bits(self, multiple: int) -> int:
        """Width of ``multiple`` times an aligned activation, two's complement."""
        return 1 + (multiple * self.activation_limit).bit_length()

    @cached_property
    def product_bits(self) -> int:
        """Width of a lane's signed multiple."""
        return self.multiple_bits(max(self.digits.multiples))

    @cached_property
    def weight_limit(self) -> int:
        """Largest magnitude of a weight of the datatypes."""
        return max(d.limit for d in self.datatypes)

    @cached_property
    def accumulator_bits(self) -> int:
        """1 + ceil(log2(G * max|w| * max|q| + 1)): every group's sum fits."""
        total = 1 + (self.group_size * self.weight_limit * self.activation_limit).bit_length()
        # A row of the tree must fit as well, whatever the datatypes are.
        return max(total, self.product_bits + self.lanes.bit_length())

    @property
    def beats(self) -> int:
        """Beats of a full group: cycles per plane."""
        return ceil(self.group_size / self.lanes)

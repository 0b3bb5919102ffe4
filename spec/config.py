"""Frozen, validated configurations and the named presets."""

from dataclasses import dataclass, replace

from spec import checks
from spec.packet import GROUP_SIZES

__all__ = ["ACCUMULATOR_BITS", "PRESETS", "ROUNDINGS", "ColumnConfig", "preset"]

ACCUMULATOR_BITS = (15, 16, 17)
"""Widths of the PE's accumulator mantissa: BitMoD's 15, and up to what FP32 holds exactly after rescaling."""

ROUNDINGS = ("trunc", "rne")
"""Rounding of the PE's alignments: toward zero, or to nearest even."""


@dataclass(frozen=True, kw_only=True)
class ColumnConfig:
    """Parameters of a :class:`hw.bitserial.column.PEColumn`.

    Parameters
    ----------
    pes : int
        PEs in the column, one output channel each, 1..8.
    lanes : int
        Weights and activations multiplied per step in each PE: 2, 4 or 8.
    rounding : str
        ``"trunc"`` (toward zero) or ``"rne"``, at every alignment and at the normalizing shift.
    accumulator_bits : int
        Width of the PE's accumulator mantissa: 15 (BitMoD's), 16 or 17.
    digit_bits : int
        Bits of the scaling factor that the dequantizer takes per cycle: 1, 2, 4 or 8.
    group_size : int
        Group size that the packer uses by default (32, 64 or 128), and the smallest at which every datatype runs at
        its full rate. The hardware reads each packet's own group size; a smaller one may wait for the dequantizer.
    signed_special_terms : bool
        Widen the special values to differences of two terms (7 = 8 - 1).

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    pes: int = 8
    lanes: int = 4
    rounding: str = "trunc"
    accumulator_bits: int = 15
    digit_bits: int = 1
    group_size: int = 128
    signed_special_terms: bool = False

    def __post_init__(self):
        checks.choices(
            self,
            pes=range(1, 9),
            lanes=(2, 4, 8),
            rounding=ROUNDINGS,
            accumulator_bits=ACCUMULATOR_BITS,
            digit_bits=(1, 2, 4, 8),
            group_size=GROUP_SIZES,
            signed_special_terms=(False, True),
        )
        shortest = self.group_size // self.lanes  # cycles of a group of one-term codes
        if self.group_interval > shortest:
            raise ValueError(
                f"a group of one-term codes lasts {shortest} cycles at group_size={self.group_size}, "
                f"lanes={self.lanes}, but digit_bits={self.digit_bits} and pes={self.pes} allow one group per "
                f"{self.group_interval} cycles; use more digit_bits, fewer pes or lanes, or a larger group_size"
            )

    @property
    def group_interval(self) -> int:
        """Least number of cycles between a PE's group ends: its dequantizer takes 8 / digit_bits, the shared FP32
        accumulator one per PE, and 3 more lie between reading and writing a sum."""
        return max(8 // self.digit_bits, self.pes + 3)


PRESETS = {
    "paper": ColumnConfig(),
    "tiny": ColumnConfig(pes=2, group_size=32),
}


def preset(name: str, **changes) -> ColumnConfig:
    """The named preset, with ``changes`` applied. Raises ValueError for an unknown name, naming the known ones."""
    return replace(checks.named("preset", name, PRESETS), **changes)

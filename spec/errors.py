"""Run-time error flags of the weight path: bit positions of the sticky error register."""

from enum import IntFlag

__all__ = ["WeightError"]


class WeightError(IntFlag):
    """Sticky bits; each stays set until cleared. A packet with any of the first six set has its result marked."""

    RESERVED_HEADER = 1 << 0
    """Reserved datatype or group size code, or a datatype that this build cannot decode."""
    RESERVED_CODE = 1 << 1
    """Code without a value (ternary 0b10)."""
    PARITY = 1 << 2
    """Odd number of ones in a group."""
    WEIGHT_LENGTH = 1 << 3
    """Weight packet shorter or longer than its row header says, or a wrong short flag."""
    ACTIVATION_LENGTH = 1 << 4
    """Activation packet shorter or longer than the row."""
    NON_FINITE = 1 << 5
    """Inf or NaN among the activations."""
    SPECIAL_REFUSED = 1 << 6
    """A special value that this build's terms cannot represent was written; the old one was kept."""

"""Beats of activations, before and after their alignment."""

from amaranth import signed
from amaranth.lib import data
from amaranth.utils import ceil_log2

from hw.arith.formats import FP16

__all__ = ["MAX_PLANES", "AlignedBeat", "GroupBeat"]

MAX_PLANES = 4
"""Digit planes of a group, that is how often it is read."""


class GroupBeat(data.StructLayout):
    """FP16 activations of one group, lane 0 lowest; unused lanes are 0.

    ``last`` ends the group; ``planes`` - 1 says how often it is wanted and counts with ``last``.
    """

    def __init__(self, lanes):
        super().__init__({"activations": data.ArrayLayout(FP16, lanes), "last": 1, "planes": ceil_log2(MAX_PLANES)})


class AlignedBeat(data.StructLayout):
    """Aligned activations: the value of ``integers[l]`` q is ``q * 2**(exponent - 13 - activation_bits)``.

    Members: ``integers``, ``exponent``, ``poison`` (an Inf or NaN in the group), ``first`` and ``last`` beat of a pass,
    ``final`` (the group's last pass).
    """

    def __init__(self, lanes, activation_bits):
        super().__init__(
            {
                "integers": data.ArrayLayout(signed(activation_bits), lanes),
                "exponent": 5,
                "poison": 1,
                "first": 1,
                "last": 1,
                "final": 1,
            }
        )

"""Groups of codes as channels keep them, and the steps that use them."""

from amaranth.lib import data
from amaranth.utils import ceil_log2

from hw.prealigned.digits import MAX_STEPS
from spec.core import CoreConfig

__all__ = ["SCALES", "SIDES", "CodeGroup", "GroupStep"]

SCALES = 16
"""Channel scales that wait for their results, for each channel."""

SIDES = 4
"""Groups of codes that each channel holds: so many that those of the next pass come in while the last groups of this
one, which may be short, are in use."""


class CodeGroup(data.Struct):
    """A group of codes that is ready: ``scale`` (scale8), ``planes`` minus 1, ``fault``: its outputs are marked."""

    scale: 8
    planes: 2
    fault: 1


class GroupStep(data.StructLayout):
    """A step of all channels: ``beat`` and ``plane`` of the group on ``side``; ``first`` and ``last`` beat."""

    def __init__(self, config: CoreConfig):
        beats = config.datapath.beats
        super().__init__(
            {
                "side": range(SIDES),
                "beat": range(max(2, beats)),
                "plane": ceil_log2(MAX_STEPS),
                "first": 1,
                "last": 1,
            }
        )

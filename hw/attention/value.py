"""P.V straight from packed value codes (docs/attention.md, section 5)."""

from amaranth.lib import wiring

from hw.spec.attention import AttentionConfig

__all__ = ["ValueCore"]


class ValueCore(wiring.Component):
    """Adds value rows, weighted by probabilities, per channel: packets and weights in, a list's FP16 result out.

    Lanes are channels. A group's weights are aligned once to integers y (P1, P2); each channel has a small accumulator
    that adds y times its digit (V1). When a group ends, its sums move to a second set of registers, from which one
    serial multiplier and FP32 adder takes them a channel at a time (V2 to V5) while the next group's rows are added.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__({})

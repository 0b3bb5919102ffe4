"""Dequantization of group sums at a tile's edge: carries resolved, times the scaling factor, to FP32."""

from amaranth import C, Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.carry import add_select
from hw.arith.compressor import compress
from hw.arith.formats import FP32
from hw.arith.fp32_pipeline import IntegerToFp32
from hw.prealigned.pe import RedundantSum
from hw.streams.registers import delay
from spec.prealigned import PrealignedConfig

__all__ = ["GroupDequantizer"]

SCALE_BITS = 8
RESOLVE = 3
"""Cycles in which a carry-save sum becomes one number."""
REDUCTION = (6, 4, 2)
"""Rows of the product of magnitude and scale that are left after each cycle."""


class GroupDequantizer(wiring.Component):
    """Turns a PE's carry-save sum into the FP32 value ``sum * scale8 * 2**(exponent - 13 - W)``.

    Equations Q1 and Q2 of docs/prealigned.md: the product is exact, the conversion rounds once to nearest even.
    Latency ``latency`` cycles, one sum per cycle, no back-pressure. One serves as many PEs as a group lasts cycles.

    Parameters
    ----------
    config : PrealignedConfig

    Members
    -------
    i : RedundantSum, In
    exponent : unsigned 5, In
        Of the group's aligned activations.
    scale : unsigned 8, In
    o : FP32, Out
    """

    latency = RESOLVE + 1 + len(REDUCTION) + RESOLVE + IntegerToFp32.latency

    def __init__(self, config: PrealignedConfig):
        self.config = config
        self.sum_bits = config.accumulator_bits
        self.product_bits = self.sum_bits - 1 + SCALE_BITS
        self._to_fp32 = IntegerToFp32(self.product_bits, 13 + config.activation_bits)
        super().__init__(
            {
                "i": In(RedundantSum(self.sum_bits)),
                "exponent": In(5),
                "scale": In(SCALE_BITS),
                "o": Out(FP32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.to_fp32 = to_fp32 = self._to_fp32

        total = delay(m, add_select(m, self.i.total, self.i.carry, "resolve", cycles=RESOLVE)[: self.sum_bits], "sum")
        scale = delay(m, self.scale, "scale", RESOLVE + 1)
        # The magnitude is the one's complement plus 1 if negative, and that 1 becomes another row of the product.
        sign = total[-1]
        magnitude = delay(m, total[:-1] ^ sign.replicate(self.sum_bits - 1), "magnitude")
        sign = delay(m, sign, "negative")
        width = self.product_bits
        rows = [scale & sign.replicate(SCALE_BITS)]
        for k in range(SCALE_BITS):
            row = Signal(width, name=f"partial{k}")
            m.d.comb += row.eq(Cat(C(0, k), magnitude & scale[k].replicate(self.sum_bits - 1)))
            rows.append(row)
        for step, target in enumerate(REDUCTION):
            while len(rows) > target:
                groups = min(len(rows) // 3, len(rows) - target)
                summed = []
                for k in range(groups):
                    name = f"step{step}_{len(rows)}_{k}"
                    summed += compress(m, *rows[3 * k : 3 * k + 3], width, name, C(0, 1))
                rows = summed + rows[3 * groups :]
            rows = [delay(m, row, f"step{step}_row{k}") for k, row in enumerate(rows)]
        product = delay(m, add_select(m, *rows, "product", cycles=RESOLVE)[:width], "product")
        m.d.comb += [
            to_fp32.magnitude.eq(product),
            to_fp32.sign.eq(delay(m, sign, "sign", len(REDUCTION) + RESOLVE)),
            to_fp32.exponent.eq(delay(m, self.exponent, "exponent", 2 * RESOLVE + 1 + len(REDUCTION))),
            self.o.eq(to_fp32.o),
        ]
        return m

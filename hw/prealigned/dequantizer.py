"""Dequantization of group sums at a tile's edge: carries resolved, times the scaling factor, to FP32."""

from amaranth import C, Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fp32 import FP32
from hw.prealigned.carry import add_select
from hw.prealigned.compressor import compress
from hw.prealigned.fp32_pipeline import IntegerToFp32
from hw.prealigned.pe import RedundantSum
from hw.spec.prealigned import PrealignedConfig

__all__ = ["GroupDequantizer"]

SCALE_BITS = 8
RESOLVE = 2
"""Cycles in which a carry-save sum becomes one number."""


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

    latency = RESOLVE + 3 + RESOLVE + IntegerToFp32.latency

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

        def delay(value, cycles, name):
            for k in range(cycles):
                register = Signal(len(value), name=f"{name}{k}", reset_less=True)
                m.d.sync += register.eq(value)
                value = register
            return value

        total = delay(add_select(m, self.i.total, self.i.carry, "resolve", segment_bits=8)[: self.sum_bits], 1, "sum")
        scale = delay(self.scale, RESOLVE + 1, "scale")
        # The magnitude is the one's complement plus 1 if negative, and that 1 becomes another row of the product.
        sign = total[-1]
        magnitude = delay(total[:-1] ^ sign.replicate(self.sum_bits - 1), 1, "magnitude")
        sign = delay(sign, 1, "negative")
        width = self.product_bits
        rows = [scale & sign.replicate(SCALE_BITS)]
        for k in range(SCALE_BITS):
            row = Signal(width, name=f"partial{k}")
            m.d.comb += row.eq(Cat(C(0, k), magnitude & scale[k].replicate(self.sum_bits - 1)))
            rows.append(row)
        for step, target in enumerate((4, 2)):
            while len(rows) > target:
                groups = min(len(rows) // 3, len(rows) - target)
                summed = []
                for k in range(groups):
                    name = f"step{step}_{len(rows)}_{k}"
                    summed += compress(m, *rows[3 * k : 3 * k + 3], width, name, C(0, 1))
                rows = summed + rows[3 * groups :]
            rows = [delay(row, 1, f"step{step}_row{k}_") for k, row in enumerate(rows)]
        product = delay(add_select(m, *rows, "product", segment_bits=10)[:width], 1, "product")
        m.d.comb += [
            to_fp32.magnitude.eq(product),
            to_fp32.sign.eq(delay(sign, 2 + RESOLVE, "sign")),
            to_fp32.exponent.eq(delay(self.exponent, 2 * RESOLVE + 3, "exponent")),
            self.o.eq(to_fp32.o),
        ]
        return m

"""What the compared route needs besides for exact tokens: INT8 codes to FP16, scales where they cost least."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.formats import FP16, FP32
from hw.arith.fp32_multiplier import Fp32Multiplier, Fp32ToFp16
from hw.arith.rounding import leading_zeros
from studies.attention.baseline import Fp16Product

__all__ = ["ExactElements", "ScaledScore", "ScaledWeight"]

FP16_ONE = 0x3C00


class ExactElements(wiring.Component):
    """A beat of INT8 codes to FP16, exact. Latency 1 cycle, a beat per cycle, no back-pressure.

    Members
    -------
    i : ``lanes`` signed bytes, In
    o : ``lanes`` FP16, Out
    """

    def __init__(self, lanes: int = 16):
        self.lanes = lanes
        super().__init__({"i": In(data.ArrayLayout(signed(8), lanes)), "o": Out(data.ArrayLayout(16, lanes))})

    def elaborate(self, platform):
        m = Module()
        for lane in range(self.lanes):
            code = self.i[lane]
            size, shifted = Signal(8, name=f"size{lane}"), Signal(8, name=f"shifted{lane}")
            zeros = leading_zeros(m, size, f"zeros{lane}")
            out = Signal(16, name=f"out{lane}", reset_less=True)
            m.d.comb += [
                size.eq((code ^ code[-1].replicate(8)) + code[-1]),
                shifted.eq(size << zeros),
                self.o[lane].eq(out),
            ]
            # The top bit weighs 2^7: exponent 15 + 7.
            m.d.sync += out.eq(Mux(size == 0, 0, Cat(C(0, 3), shifted[:7], (22 - zeros)[:5], code[-1])))
        return m


class ScaledScore(wiring.Component):
    """A token's FP32 sum times its FP16 scale, in FP32. One per cycle, no back-pressure.

    Members
    -------
    i : FP32, In
    scale : FP16, In
    o : FP32, Out
    """

    latency = Fp16Product.latency + Fp32Multiplier.latency

    def __init__(self):
        super().__init__({"i": In(FP32), "scale": In(FP16), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.widen = widen = Fp16Product()
        m.submodules.multiplier = multiplier = Fp32Multiplier()
        number = Signal(FP32, reset_less=True)
        m.d.sync += number.eq(self.i)
        m.d.comb += [
            widen.a.eq(self.scale),
            widen.b.eq(FP16_ONE),
            multiplier.a.eq(number),
            # FP16's fraction: the multiplier is no wider than it has to be.
            multiplier.b.eq(Cat(C(0, 13), widen.o.as_value()[13:])),
            self.o.eq(multiplier.o),
        ]
        return m


class ScaledWeight(wiring.Component):
    """A probability times its value's FP16 scale, rounded to FP16. One per cycle, no back-pressure.

    Members
    -------
    i, scale : FP16, In
    o : FP16, Out
    """

    latency = Fp16Product.latency + 1

    def __init__(self):
        super().__init__({"i": In(FP16), "scale": In(FP16), "o": Out(FP16)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.product = product = Fp16Product()
        m.submodules.narrow = narrow = Fp32ToFp16()
        out = Signal(16, reset_less=True)
        m.d.comb += [product.a.eq(self.i), product.b.eq(self.scale), narrow.i.eq(product.o), self.o.eq(out)]
        m.d.sync += out.eq(narrow.o)
        return m

"""Query elements times scales, to integers of one exponent, and on into tables."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit, booth_product, prefix_sum, ripple_sum
from hw.arith.rounding import round_shift
from hw.attention.score.dot import TableWrites
from hw.attention.score.tables import TableBuilder
from spec.attention import AttentionConfig

__all__ = ["SCALE_BIAS", "TOP_BITS", "QueryScaler", "Scale"]

SCALE_BIAS = 26
"""r + 26 is never negative: FP16 scales have r >= -24, integer ones E >= -24, K2 one less."""
TOP_BITS = 7


class Scale(data.StructLayout):
    """A channel's scale, ``g * 2^(r - SCALE_BIAS)``; in builds with minima its FP16 ``minimum``."""

    def __init__(self, config: AttentionConfig):
        super().__init__({"g": 11, "r": 6} | ({"minimum": 16} if config.minima else {}))


class QueryScaler(wiring.Component):
    """Equations F1 to F4 of docs/attention.md for a channel per cycle: product; shift and round; tables, and a sum.

    Members
    -------
    issue, place, exists, counted : In
        A channel; there is one, it is not padding; it is added to ``total``.
    value, scale : In
        Its element and its scale, a cycle later.
    exact, top, minima : In
        F4, without scales; M + SCALE_BIAS; in builds with minima: F3, the minimum in place of the scale. Stable while
        ``busy``.
    set : In
        Of tables.
    tables : TableWrites, Out
    total : Out
    clear : In
        It becomes 0.
    busy : Out
        Channels are on their way, or their tables are.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "issue": In(1),
                "place": In(range(config.channels + 1)),
                "exists": In(1),
                "counted": In(1),
                "value": In(signed(config.transformed_bits)),
                "scale": In(Scale(config)),
                "exact": In(1),
                "top": In(TOP_BITS),
                "set": In(1),
                "tables": Out(TableWrites(config)),
                "total": Out(signed(config.constant_bits)),
                "clear": In(1),
                "busy": Out(1),
            }
            | ({"minima": In(1)} if config.minima else {})
        )

    def elaborate(self, platform):
        m = Module()
        valid, place, counts = [], self.place, self.counted & self.exists
        for k in range(1, 4):
            one, later = Signal(name=f"valid{k}"), Signal.like(place, name=f"place{k}", reset_less=True)
            counted = Signal(name=f"counts{k}", reset_less=True)
            m.d.sync += [one.eq(valid[-1] if valid else self.issue), later.eq(place), counted.eq(counts)]
            valid.append(one)
            place, counts = later, counted
        z = self._round(m, *self._multiply(m))

        bits = len(self.total)
        wide = Cat(z, z[-1].replicate(bits))[:bits]
        grown = ripple_sum(m, self.total.as_unsigned(), wide, bits, "grown")
        with m.If(self.clear):
            m.d.sync += self.total.eq(0)
        with m.Elif(valid[2] & counts):
            m.d.sync += self.total.eq(grown)
        m.submodules.builder = builder = TableBuilder(self.config)
        wiring.connect(m, builder.tables, wiring.flipped(self.tables))
        m.d.comb += [
            builder.valid.eq(valid[2]),
            builder.place.eq(place),
            builder.z.eq(z),
            builder.set.eq(self.set),
            self.busy.eq(Cat(valid).any() | builder.busy),
        ]
        return m

    def _multiply(self, m):
        """(Product of magnitudes, how far to shift it, whether it is negative), a cycle after the element came."""
        config, scale = self.config, self.scale
        length = config.transformed_bits
        exists = Signal(reset_less=True)
        size = Signal(length)
        negative = self.value[-1]
        m.d.comb += size.eq(prefix_sum(m, self.value ^ negative.replicate(length), C(0, 1), length, "size", negative))
        factor = Signal(11)
        weight = Signal(6)
        m.d.comb += [factor.eq(Mux(self.exact, 1, scale.g)), weight.eq(scale.r)]
        flip = Signal(reset_less=True)
        if config.minima:
            with m.If(self.minima):
                field = scale.minimum[10:15]
                m.d.comb += [
                    factor.eq(Cat(scale.minimum[:10], field.any())),
                    weight.eq((field | ~field.any()) + (SCALE_BIAS - 25)),
                ]
            m.d.sync += flip.eq(self.minima & scale.minimum[15])
        product = Signal(length + 11, reset_less=True)
        amount = Signal(7, reset_less=True)
        sign = Signal(reset_less=True)
        width = config.fold_bits
        m.d.sync += [
            exists.eq(self.exists),
            product.eq(Mux(exists, booth_product(m, size, factor, "scaled"), 0)),
            sign.eq(negative),
            # A place that is padding is shifted out, whatever is in its scale and its element.
            amount.eq(
                Mux(self.exact, config.query_bits - width, self.top - weight - (width - 1)) | Cat(C(0, 6), ~exists)
            ),
        ]
        return product, amount, sign ^ flip

    def _round(self, m, product, amount, sign):
        """The integer, a cycle later."""
        width = self.config.fold_bits
        floor, up = round_shift(m, product, amount[:6], "fold")
        rounded = add_bit(m, floor[:width], up, "rounded")
        clamped = Signal(width - 1)
        m.d.comb += clamped.eq(Mux(rounded[-1], (1 << width - 1) - 1, rounded))
        z = Signal(signed(width), reset_less=True)
        m.d.sync += z.eq(Mux(amount[6], 0, add_bit(m, Cat(clamped, C(0, 1)) ^ sign.replicate(width), sign, "signed")))
        return z

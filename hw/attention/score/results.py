"""From carry-save sums to FP32 scores."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.arith.adders import booth_row, prefix_sum
from hw.arith.compressor import compress
from hw.arith.fp32_adder import FP32, Fp32Adder
from hw.arith.fp32_normal import SignedToFp32
from hw.attention.layouts import UNIT_BITS, Score
from hw.prealigned.pe import RedundantSum
from spec.attention import AttentionConfig

__all__ = ["QUEUE", "ScoreOut", "ScoreTag"]

QUEUE = 16
"""Scores that may be under way or wait for the consumer."""
SCALE_BITS = 11
DIGIT_BITS = 4
DIGITS = 3


class ScoreTag(data.Struct):
    """A score's flags, and in exact rows its scale; a bad one marks it."""

    exact: 1
    marked: 1
    last: 1
    final: 1
    scale: 16


class ScoreOut(wiring.Component):
    """Equations S4 and S5 of docs/attention.md: sums resolved, times their scale in exact rows, rounded once to FP32;
    K2's constant added.

    A score per cycle from packed rows; exact ones are multiplied by 4 bits of their scale per cycle and must be 4
    cycles apart. The caller sends a score only while ``room``.

    Members
    -------
    i, tag, valid : In
        A sum and what it is.
    unit, offset : In
        log2 of the sums' unit, and what is added to each; stable while they are under way.
    constant, constant_unit, constant_valid : In
        In builds with minima: what S5 adds from now on.
    room : Out
        Another score may be sent off towards here, whether it arrives now or later.
    sent, value_scale : In
        It has been; what leaves beside it.
    bad_scale : Out
        A scale was negative or not finite.
    o : stream of Score, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "i": In(RedundantSum(config.score_bits)),
                "tag": In(ScoreTag),
                "valid": In(1),
                "unit": In(signed(UNIT_BITS)),
                "offset": In(signed(config.constant_bits)),
                "constant": In(signed(config.constant_bits)),
                "constant_unit": In(signed(UNIT_BITS)),
                "constant_valid": In(1),
                "room": Out(1),
                "sent": In(1),
                "value_scale": In(16),
                "bad_scale": Out(1),
                "o": Out(stream.Signature(Score)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self.config.score_bits
        product_bits = width + SCALE_BITS
        tag = self.tag
        exact = tag.exact

        # Cycle 1: resolve.
        offset = Signal(signed(width))
        m.d.comb += offset.eq(self.offset)
        rows = compress(m, self.i.total, self.i.carry, offset.as_unsigned(), width, "resolve")
        total = Signal(signed(width))
        m.d.comb += total.eq(prefix_sum(m, *rows, width, "resolved"))
        number = Signal(signed(width), reset_less=True)
        about = Signal(ScoreTag, reset_less=True)
        valid = Signal()
        unit = Signal(signed(UNIT_BITS), reset_less=True)
        exponent = tag.scale[10:15]
        m.d.sync += valid.eq(0)
        with m.If(self.valid):
            m.d.sync += [valid.eq(1), number.eq(total), about.eq(tag)]
            # S4: r - 1, r = max(exponent, 1) - 25
            scaled = self.unit + (exponent | ~exponent.any()) - 26
            m.d.sync += unit.eq(Mux(exact, scaled, self.unit))
        constant = Signal()
        if self.config.minima:
            m.d.sync += constant.eq(self.constant_valid)
            with m.If(self.constant_valid):
                m.d.sync += [number.eq(self.constant), unit.eq(self.constant_unit), about.exact.eq(0)]

        # Exact rows: three digits of the scale, the highest first, each of two Booth digits.
        digit = Signal(range(DIGITS + 1))
        busy = digit != 0
        product = Signal(signed(product_bits + 1), reset_less=True)
        significand = Cat(about.scale[:10], about.scale[10:15].any(), C(0, 1))
        bits = Signal(DIGIT_BITS + 1)
        with m.Switch(digit):
            for k in range(DIGITS):
                with m.Case(k + 1):
                    m.d.comb += bits.eq(Cat(C(0, 1), significand)[DIGIT_BITS * k : DIGIT_BITS * k + DIGIT_BITS + 1])
            with m.Default():
                pass
        wide, rows, negatives = product_bits + 1, [(product << DIGIT_BITS).as_unsigned()[: product_bits + 1]], []
        for k in range(DIGIT_BITS // 2):
            multiple, negative = booth_row(Cat(number, number[-1]), bits[2 * k : 2 * k + 3])
            row = Signal(wide, name=f"multiple{k}")
            m.d.comb += row.eq(Cat(C(0, 2 * k), multiple[:-1], multiple[-2].replicate(wide)) ^ negative.replicate(wide))
            rows.append(row)
            negatives.append(negative)
        rows = [row[:wide] for row in compress(m, *rows, wide, "product", negatives[0])]
        more = prefix_sum(m, *rows, wide, "more", negatives[1])
        with m.If(self.valid & exact):
            m.d.sync += [digit.eq(DIGITS), product.eq(0)]
        with m.Elif(busy):
            m.d.sync += [digit.eq(digit - 1), product.eq(more)]
        done = Signal()
        m.d.sync += done.eq(digit == 1)

        m.submodules.convert = convert = SignedToFp32(product_bits)
        bad = about.exact & (about.scale[15] | about.scale[10:15].all())
        passing = (valid & ~about.exact) | done
        m.d.comb += [
            convert.i.eq(Mux(about.exact, product, number)),
            convert.unit.eq(unit),
            self.bad_scale.eq(passing & bad & ~about.marked),
        ]
        ready, flags = passing, Cat(about.marked | bad, about.last, about.final)
        result, latency = convert.o, convert.latency
        if self.config.minima:
            # S5: the constant comes out of the converter before the scores that it belongs to.
            m.submodules.adder = adder = Fp32Adder()
            arrived = constant
            for k in range(convert.latency):
                later = Signal(name=f"arrived{k}")
                m.d.sync += later.eq(arrived)
                arrived = later
            added = Signal(FP32, reset_less=True)
            with m.If(arrived):
                m.d.sync += added.eq(convert.o)
            m.d.comb += [adder.a.eq(convert.o), adder.b.eq(added)]
            result, latency = adder.o, latency + adder.latency
        for k in range(latency):
            after, kept = Signal(name=f"ready{k}"), Signal(len(flags), name=f"flags{k}", reset_less=True)
            m.d.sync += [after.eq(ready), kept.eq(flags)]
            ready, flags = after, kept

        m.submodules.queue = queue = SyncFIFOBuffered(width=len(result.as_value()) + len(flags), depth=QUEUE)
        # What needs no arithmetic goes straight to the end.
        m.submodules.beside = beside = SyncFIFOBuffered(width=len(self.value_scale), depth=QUEUE)
        room = Signal(range(QUEUE + 1), init=QUEUE)
        o = self.o.payload
        m.d.sync += room.eq(room - self.sent + (self.o.valid & self.o.ready))
        m.d.comb += [
            queue.w_data.eq(Cat(result.as_value(), flags)),
            queue.w_en.eq(ready),
            beside.w_data.eq(self.value_scale),
            beside.w_en.eq(self.sent),
            Cat(o.value.as_value(), o.marked, o.last, o.final).eq(queue.r_data),
            o.value_scale.eq(beside.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            beside.r_en.eq(self.o.ready & queue.r_rdy),
            self.room.eq(room != 0),
        ]
        return m

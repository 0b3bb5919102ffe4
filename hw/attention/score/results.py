"""From carry-save sums to FP32 scores."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.arith.adders import booth_row, prefix_sum
from hw.arith.compressor import compress
from hw.arith.formats import FP32, UNIT_BITS
from hw.arith.fp32_adder import Fp32Adder
from hw.arith.fp32_normal import SignedToFp32
from hw.attention.layouts import Score
from hw.prealigned.pe import RedundantSum
from spec.attention import AttentionConfig

__all__ = ["QUEUE", "ScoreOut", "ScoreRequests", "ScoreTag"]

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


class ScoreRequests(wiring.Signature):
    """What scores are made of.

    ``tag``, ``valid``: of the sum that is there now. ``unit``, ``offset``: log2 of the sums' unit, and what is added to
    each; stable while they are under way. In builds with minima ``constant``, ``constant_unit``, ``constant_valid``:
    what S5 adds from now on.

    ``room``: another score may be sent off towards here, whether it arrives now or later; ``sent``: it has been, and
    ``value_scale`` leaves beside it.
    """

    def __init__(self, config: AttentionConfig):
        integer, unit = signed(config.constant_bits), signed(UNIT_BITS)
        constant = {"constant": Out(integer), "constant_unit": Out(unit), "constant_valid": Out(1)}
        super().__init__(
            {
                "tag": Out(ScoreTag),
                "valid": Out(1),
                "unit": Out(unit),
                "offset": Out(integer),
                "room": In(1),
                "sent": Out(1),
                "value_scale": Out(16),
            }
            | (constant if config.minima else {})
        )


class ScoreOut(wiring.Component):
    """Equations S4 and S5 of docs/attention.md: sums resolved, times their scale in exact rows, rounded once to FP32;
    K2's constant added.

    A score per cycle from packed rows; exact ones are multiplied by 4 bits of their scale per cycle and must be 4
    cycles apart.

    Members
    -------
    sums : RedundantSum, In
    requests : ScoreRequests, In
        What becomes of them.
    bad_scale : Out
        A scale was negative or not finite.
    o : stream of Score, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "sums": In(RedundantSum(config.score_bits)),
                "requests": In(ScoreRequests(config)),
                "bad_scale": Out(1),
                "o": Out(stream.Signature(Score)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = self.config.score_bits
        product_bits = width + SCALE_BITS
        tag, requests = self.requests.tag, self.requests
        exact = tag.exact

        # Cycle 1: resolve.
        offset = Signal(signed(width))
        m.d.comb += offset.eq(requests.offset)
        rows = compress(m, self.sums.total, self.sums.carry, offset.as_unsigned(), width, "resolve")
        total = Signal(signed(width))
        m.d.comb += total.eq(prefix_sum(m, *rows, width, "resolved"))
        number = Signal(signed(width), reset_less=True)
        held = Signal(ScoreTag, reset_less=True)
        valid = Signal()
        unit = Signal(signed(UNIT_BITS), reset_less=True)
        exponent = tag.scale[10:15]
        m.d.sync += valid.eq(0)
        with m.If(requests.valid):
            m.d.sync += [valid.eq(1), number.eq(total), held.eq(tag)]
            # S4: r - 1, r = max(exponent, 1) - 25
            scaled = requests.unit + (exponent | ~exponent.any()) - 26
            m.d.sync += unit.eq(Mux(exact, scaled, requests.unit))
        constant = Signal()
        if self.config.minima:
            m.d.sync += constant.eq(requests.constant_valid)
            with m.If(requests.constant_valid):
                m.d.sync += [number.eq(requests.constant), unit.eq(requests.constant_unit), held.exact.eq(0)]

        product, digit = self._product(m, number, held.scale)
        done = Signal()
        m.d.sync += done.eq(digit == 1)

        m.submodules.convert = convert = SignedToFp32(product_bits)
        bad = held.exact & (held.scale[15] | held.scale[10:15].all())
        passing = (valid & ~held.exact) | done
        m.d.comb += [
            convert.i.eq(Mux(held.exact, product, number)),
            convert.unit.eq(unit),
            self.bad_scale.eq(passing & bad & ~held.marked),
        ]
        ready, flags = passing, Cat(held.marked | bad, held.last, held.final)
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

        self._queue(m, Cat(result.as_value(), flags), ready)
        return m

    def _product(self, m, number, scale):
        """(An exact row's number times its scale, how many digits of the scale are left and the one at work.)"""
        requests, wide = self.requests, self.config.score_bits + SCALE_BITS + 1
        # Three digits of the scale, the highest first, each of two Booth digits.
        digit = Signal(range(DIGITS + 1))
        busy = digit != 0
        product = Signal(signed(wide), reset_less=True)
        significand = Cat(scale[:10], scale[10:15].any(), C(0, 1))
        bits = Signal(DIGIT_BITS + 1)
        with m.Switch(digit):
            for k in range(DIGITS):
                with m.Case(k + 1):
                    m.d.comb += bits.eq(Cat(C(0, 1), significand)[DIGIT_BITS * k : DIGIT_BITS * k + DIGIT_BITS + 1])
            with m.Default():
                pass
        rows, negatives = [(product << DIGIT_BITS).as_unsigned()[:wide]], []
        for k in range(DIGIT_BITS // 2):
            multiple, negative = booth_row(Cat(number, number[-1]), bits[2 * k : 2 * k + 3])
            row = Signal(wide, name=f"multiple{k}")
            m.d.comb += row.eq(Cat(C(0, 2 * k), multiple[:-1], multiple[-2].replicate(wide)) ^ negative.replicate(wide))
            rows.append(row)
            negatives.append(negative)
        rows = [row[:wide] for row in compress(m, *rows, wide, "product", negatives[0])]
        more = prefix_sum(m, *rows, wide, "more", negatives[1])
        with m.If(requests.valid & requests.tag.exact):
            m.d.sync += [digit.eq(DIGITS), product.eq(0)]
        with m.Elif(busy):
            m.d.sync += [digit.eq(digit - 1), product.eq(more)]
        return product, digit

    def _queue(self, m, score, valid):
        """Scores and flags wait for the consumer; what needs no arithmetic has gone straight there."""
        requests = self.requests
        m.submodules.queue = queue = SyncFIFOBuffered(width=len(score), depth=QUEUE)
        m.submodules.beside = beside = SyncFIFOBuffered(width=len(requests.value_scale), depth=QUEUE)
        room = Signal(range(QUEUE + 1), init=QUEUE)
        o = self.o.payload
        m.d.sync += room.eq(room - requests.sent + (self.o.valid & self.o.ready))
        m.d.comb += [
            queue.w_data.eq(score),
            queue.w_en.eq(valid),
            beside.w_data.eq(requests.value_scale),
            beside.w_en.eq(requests.sent),
            Cat(o.value.as_value(), o.marked, o.last, o.final).eq(queue.r_data),
            o.value_scale.eq(beside.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
            beside.r_en.eq(self.o.ready & queue.r_rdy),
            requests.room.eq(room != 0),
        ]

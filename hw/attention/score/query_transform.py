"""The query's transforms, in place in a memory: butterflies of sums and differences, and behind them rotations."""

from amaranth import C, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.arith.adders import ripple_sum
from hw.attention.score.query_rfft import QueryRfft, transform_members
from spec.attention import AttentionConfig
from spec.kv_formats import KvTransform

__all__ = ["QueryTransform"]


class QueryTransform(wiring.Component):
    """In-place butterflies, distances 1, 2, .. n / 2, one in two cycles: ``wht``, n log2(n) cycles for n elements.

    ``rfft`` takes its first stage here, the others from :class:`hw.attention.score.query_rfft.QueryRfft`.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    Those of :func:`hw.attention.score.query_rfft.transform_members`, and in builds with ``rfft``:

    fourier : In
        This is one; stable as ``size`` is.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        self.with_rfft = KvTransform.RFFT in config.transforms
        super().__init__(transform_members(config) | ({"fourier": In(1)} if self.with_rfft else {}))

    def elaborate(self, platform):
        m = Module()
        channels, bits = self.config.channels, self.config.transformed_bits
        # Pair number j is index j with a 0 put in at the distance's bit.
        distance = Signal(range(channels))
        pair = Signal(range(channels))
        second = Signal()
        drained = Signal()
        low = Signal(range(channels))
        high = Signal(range(channels))
        mask = distance - 1
        m.d.comb += [
            low.eq(self.base + (((pair & ~mask) << 1) | (pair & mask))),
            high.eq(low + distance),
        ]
        first = Signal(signed(bits), reset_less=True)
        difference = Signal(signed(bits), reset_less=True)
        low_before = Signal.like(low, reset_less=True)
        high_before = Signal.like(high, reset_less=True)
        writing = Signal()
        last_stage = distance << 1 == self.size
        last_before = Signal()
        one, other = first.as_unsigned(), self.read_data.as_unsigned()
        total = ripple_sum(m, one, other, bits, "butterfly_sum")
        less = ripple_sum(m, one, ~other, bits, "butterfly_less", C(1, 1))
        if self.with_rfft:
            m.submodules.rfft = rfft = QueryRfft(self.config)
            m.d.comb += [rfft.size.eq(self.size), rfft.base.eq(self.base), rfft.read_data.eq(self.read_data)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [distance.eq(1), pair.eq(0), second.eq(0), writing.eq(0), drained.eq(0)]
                with m.If(self.start):
                    m.next = "BUTTERFLY"
            with m.State("BUTTERFLY"):
                m.d.sync += second.eq(~second)
                # A pair's sum is written when the next pair's first is read, its difference with the second.
                m.d.comb += [
                    self.read_address.eq(Mux(second, high, low)),
                    self.write_address.eq(Mux(second, high_before, low_before)),
                    self.write_data.eq(Mux(second, difference, total)),
                    self.write.eq(writing),
                    self.final.eq(last_before),
                ]
                with m.If(second):
                    m.d.sync += [first.eq(self.read_data), writing.eq(~drained)]
                    m.d.sync += [low_before.eq(low), high_before.eq(high), last_before.eq(last_stage)]
                    m.d.sync += pair.eq(pair + 1)
                    with m.If(pair + 1 == self.size >> 1):
                        m.d.sync += [pair.eq(0), distance.eq(distance << 1)]
                        with m.If((self.fourier | last_stage) if self.with_rfft else last_stage):
                            m.d.sync += drained.eq(1)
                    with m.If(drained):
                        m.d.comb += self.done.eq(1)
                        m.next = "IDLE"
                        if self.with_rfft:
                            with m.If(self.fourier):
                                m.d.comb += self.done.eq(0)
                                m.next = "ROTATE"
                with m.Else():
                    m.d.sync += difference.eq(less)
            if self.with_rfft:
                with m.State("ROTATE"):
                    m.d.comb += rfft.start.eq(1)
                    m.next = "ROTATING"
                with m.State("ROTATING"):
                    m.d.comb += [
                        self.read_address.eq(rfft.read_address),
                        self.write_address.eq(rfft.write_address),
                        self.write_data.eq(rfft.write_data),
                        self.write.eq(rfft.write),
                        self.final.eq(rfft.final),
                        self.done.eq(rfft.done),
                    ]
                    with m.If(rfft.done):
                        m.next = "IDLE"
        return m

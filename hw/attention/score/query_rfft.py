"""The query's real DFT, in place in a memory, with one multiplier (docs/attention.md, equations Q2a to Q2d)."""

from math import cos, pi

from amaranth import Array, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from spec.attention import AttentionConfig

__all__ = ["QueryRfft", "bit_reversed", "rfft_place", "transform_members"]

PHASES = 8


def bit_reversed(m: Module, index, size, name: str):
    """Where element ``index`` of a segment of ``size`` (16, 32, .. ) elements is stored before the transform."""
    bits = len(size) - 1
    out = Signal(bits, name=name)
    with m.Switch(size):
        for log in range(4, bits + 1):
            with m.Case(1 << log):
                m.d.comb += [out[k].eq(index[log - 1 - k]) for k in range(log)]
        with m.Default():
            pass
    return out


def rfft_place(index, size):
    """Where coefficient ``index`` of the storage order (Re 0, Re 1, Im 1, .. Re n/2) lies after the transform."""
    k = (index + 1) >> 1
    imaginary = ~index[0] & (index != 0)
    return Mux(imaginary, size - k, k)[: len(size) - 1]


def transform_members(config: AttentionConfig) -> dict[str, wiring.Member]:
    """Of a transform in place in a memory.

    start : In
        Begin in the next cycle; ``size`` and ``base`` are stable from now on.
    size, base : In
        n = 16 .. 128, and the segment's first address.
    done : Out
        The last element is written in this cycle.
    final : Out
        What is written is a coefficient.
    read_address, read_data, write_address, write_data, write : Out, In, Out, Out, Out
        The memory; reads take a cycle.
    """
    address, size, element = range(config.channels), range(config.channels + 1), signed(config.transformed_bits)
    return {
        "start": In(1),
        "size": In(size),
        "base": In(size),
        "done": Out(1),
        "final": Out(1),
        "read_address": Out(address),
        "read_data": In(element),
        "write_address": Out(address),
        "write_data": Out(element),
        "write": Out(1),
    }


class QueryRfft(wiring.Component):
    """Stages 2 m = 4 .. n of a real-valued FFT, decimation in time; stage 2, sums and differences, is the caller's.

    Blocks of 2 m elements hold the transforms A and B of their even and odd elements, m each: real part of coefficient
    k at k, imaginary part at m - k. An operation reads A_k and B_k, and writes Y_k and Y_(m - k) to the same four
    places; with k = 0 it does Y_0, Y_m and Y_(m / 2). 8 cycles each, n / 4 operations a stage.

    ```
    phase      0    1      2        3        4        5        6        7
    read       Br   Bi     Ar       Ai
    product         c Br   s Bi     c Bi     s Br
    rounded                                  tr                ti
    write                                    Ar + tr  Ar - tr  ti + Ai  ti - Ai
    ```

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    Those of :func:`transform_members`.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        self.wide = signed(config.transformed_bits)
        super().__init__(transform_members(config))

    def elaborate(self, platform):
        m = Module()
        channels, fraction = self.config.channels, self.config.rotation_bits
        half = Signal(range(channels))  # m
        block = Signal(range(channels))
        k = Signal(range(channels))
        angle = Signal(range(channels // 4 + 1))
        stride = Signal(range(channels // 4 + 1))
        phase = Signal(range(PHASES))
        busy = Signal()
        first = k == 0
        mirror = Signal(range(channels))  # where the imaginary parts are
        m.d.comb += mirror.eq(Mux(first, half >> 1, half - k))

        def place(imaginary, second):
            return (self.base + block + Mux(imaginary, mirror, k) + Mux(second, half, 0))[: len(self.read_address)]

        # cos(2 pi t / channels) in the first quarter; the ends are never asked for.
        quarter = channels // 4
        table = Array(
            Const(round((1 << fraction) * cos(2 * pi * t / channels)) if 0 < t < quarter else 0, fraction)
            for t in range(quarter + 1)
        )
        data = self.read_data
        ar, ai, br, bi = (Signal(self.wide, name=name, reset_less=True) for name in ("ar", "ai", "br", "bi"))
        tr = Signal(self.wide, reset_less=True)
        ti = Signal(self.wide, reset_less=True)
        product = Signal(signed(self.wide.width + fraction), reset_less=True)
        before = Signal.like(product, reset_less=True)
        factor = Signal(self.wide)
        coefficient = Signal(fraction)
        sine = ~phase[0]
        m.d.comb += coefficient.eq(table[Mux(sine, quarter - angle, angle)])
        total = Signal(signed(len(product) + 1))
        m.d.comb += total.eq(Mux(phase == 3, before + product, before - product))
        up = total[fraction - 1] & (total[: fraction - 1].any() | total[fraction])
        rounded = Signal(self.wide)
        m.d.comb += rounded.eq((total >> fraction) + up)
        m.d.sync += [product.eq(factor * coefficient), before.eq(product)]

        m.d.comb += factor.eq(data)
        with m.Switch(phase):
            with m.Case(0):
                m.d.comb += self.read_address.eq(place(0, 1))
            with m.Case(1):
                m.d.comb += self.read_address.eq(place(1, 1))
                m.d.sync += br.eq(data)
            with m.Case(2):
                m.d.comb += self.read_address.eq(place(0, 0))
                m.d.sync += bi.eq(data)
            with m.Case(3):
                m.d.comb += [self.read_address.eq(place(1, 0)), factor.eq(bi)]
                m.d.sync += [ar.eq(data), tr.eq(Mux(first, br, rounded))]
            with m.Case(4):
                m.d.comb += [factor.eq(br), self.write_address.eq(place(0, 0)), self.write_data.eq(ar + tr)]
                m.d.sync += ai.eq(data)
            with m.Case(5):
                m.d.comb += [self.write_address.eq(place(~first, first)), self.write_data.eq(ar - tr)]
                m.d.sync += ti.eq(Mux(first, 0, rounded))
            with m.Case(6):
                m.d.comb += [self.write_address.eq(place(1, ~first)), self.write_data.eq(ti + ai)]
            with m.Default():
                m.d.comb += [
                    self.write_address.eq(place(first, 1)),
                    self.write_data.eq(ti - Mux(first, bi, ai)),
                ]
        last_stage = half == self.size >> 1
        m.d.comb += [self.write.eq(busy & phase[2]), self.final.eq(last_stage)]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), phase.eq(0), half.eq(2), block.eq(0), k.eq(0)]
            m.d.sync += [angle.eq(0), stride.eq(channels // 4)]
        with m.Elif(busy):
            m.d.sync += phase.eq(phase + 1)
            with m.If(phase == PHASES - 1):
                m.d.sync += [k.eq(k + 1), angle.eq(angle + stride)]
                with m.If(k + 1 == half >> 1):
                    m.d.sync += [k.eq(0), angle.eq(0), block.eq(block + (half << 1))]
                    with m.If(block + (half << 1) == self.size):
                        m.d.sync += [block.eq(0), half.eq(half << 1), stride.eq(stride >> 1)]
                        with m.If(last_stage):
                            m.d.comb += self.done.eq(1)
                            m.d.sync += busy.eq(0)
        return m

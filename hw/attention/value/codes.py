"""A step's 2-bit codes out of the byte window: as they lie, or five ternary digits to a byte."""

from amaranth import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import select
from hw.attention.rows import WINDOW_BYTES
from hw.kv.packet.trits import TritDecoder
from spec.attention import BUS_BYTES, LANES, SCALE_BYTES
from spec.kv_block import TRITS_PER_BYTE

__all__ = ["ValueCodes"]

BYTES = -(-LANES // TRITS_PER_BYTE)


class ValueCodes(wiring.Component):
    """Cuts the window into the codes of a step of up to 64 channels. Combinational but for the digits left over.

    Ternary digits run on across steps: of a step's last byte, digits 1..4 are kept, and those that it did not use
    come first in the next.

    Members
    -------
    window : In
        From :class:`hw.attention.rows.ByteWindow`.
    ternary : In
    groups : In
        Groups of 8 channels in this step, minus 1.
    extra : In
        Bytes of the step besides its codes; not with ``ternary``.
    start, take : In
        A packet begins; the step is taken.
    bytes : Out
        Of the window, for this step.
    codes : Out
        2 bits per channel.
    invalid, padding : Out
        A ternary byte of 243 or more; a digit left over is not 1.
    """

    def __init__(self):
        super().__init__(
            {
                "window": In(8 * BUS_BYTES),
                "ternary": In(1),
                "groups": In(range(LANES // 8)),
                "extra": In(range(2 * SCALE_BYTES + 1)),
                "start": In(1),
                "take": In(1),
                "bytes": Out(range(WINDOW_BYTES + 1)),
                "codes": Out(data.ArrayLayout(2, LANES)),
                "invalid": Out(1),
                "padding": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        keep = TRITS_PER_BYTE - 1
        kept = Signal(data.ArrayLayout(2, keep), reset_less=True)
        left = Signal(range(TRITS_PER_BYTE))
        digits, bad, tails = [kept[k] for k in range(keep)], [], []
        for k in range(BYTES):
            m.submodules[f"trits{k}"] = decoder = TritDecoder()
            byte = self.window[8 * k : 8 * k + 8]
            m.d.comb += decoder.byte.eq(byte)
            own = [decoder.digits[d] for d in range(TRITS_PER_BYTE)]
            digits += own
            tails.append(Cat(own[1:]))
            bad.append(byte[4:].all() & (byte[2:4].any() | byte[:2].all()))

        size = Signal(range(BYTES + 1))
        rest = Signal(range(TRITS_PER_BYTE))
        with m.Switch(Cat(left, self.groups)):
            for leftover in range(TRITS_PER_BYTE):
                for groups in range(LANES // 8):
                    missing = 8 * (groups + 1) - leftover
                    count = -(-missing // TRITS_PER_BYTE)
                    with m.Case(leftover | groups << 3):
                        m.d.comb += [
                            size.eq(count),
                            rest.eq(count * TRITS_PER_BYTE - missing),
                            self.invalid.eq(self.ternary & Cat(bad[:count]).any()),
                        ]
            with m.Default():
                pass
        tail = Signal(data.ArrayLayout(2, keep))
        m.d.comb += [
            tail.eq(Array(tails)[(size - 1)[: (BYTES - 1).bit_length()]]),
            self.bytes.eq(Mux(self.ternary, size, Cat(C(1, 1), self.groups) + 1 + self.extra)),
            self.padding.eq(self.ternary & Cat((rest >= keep - k) & (tail[k] != 1) for k in range(keep)).any()),
        ]
        with m.If(self.start):
            m.d.sync += left.eq(0)
        with m.Elif(self.take & self.ternary):
            m.d.sync += [left.eq(rest), kept.eq(tail)]

        chosen = Signal(TRITS_PER_BYTE)
        m.d.comb += chosen.eq((1 << left) & self.ternary.replicate(TRITS_PER_BYTE))
        for lane in range(LANES):
            choices = [(chosen[leftover], digits[keep - leftover + lane]) for leftover in range(TRITS_PER_BYTE)]
            pair = self.window[2 * lane : 2 * lane + 2]
            m.d.comb += self.codes[lane].eq(select([*choices, (~self.ternary, pair)]))
        return m

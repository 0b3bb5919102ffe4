"""Rows of packets cut into steps of up to 64 channels, whatever their alignment in the beats."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Beat
from spec.attention import BUS_BYTES, LANES, SCALE_BYTES

__all__ = ["WINDOW_BYTES", "ByteWindow", "two_bit_codes"]

WINDOW_BYTES = BUS_BYTES + SCALE_BYTES


class ByteWindow(wiring.Component):
    """The next 20 bytes of a packet's rows, from any byte on: a plane of 64 codes and an exact token's scales.

    One beat is held, the next is at the input. Throughput: a beat per cycle. Steps of more than 18 bytes begin at a
    multiple of 4, so that no step needs a third beat.

    Members
    -------
    i : stream of Beat(128), In
        Rows of one packet after another.
    window : Out
    bytes : In
        Bytes of this step, 1..20.
    complete, short : Out
        They are all here; they never will be, the packet ends before.
    ends : Out
        With ``complete``: they end in the packet's last beat.
    take, stay, refill : In
        Move on by ``bytes``; with ``stay`` not beyond the beat in which they end. With ``refill`` a used up beat goes.
    skip : In
        Drop the held beat.
    held, held_last : Out
        A beat is held; it is the packet's last.
    start, half : In
        Begin a packet, with ``half`` at byte 8 of the beat that is held, or with ``skip`` of the next.
    """

    def __init__(self):
        width = 8 * BUS_BYTES
        super().__init__(
            {
                "i": In(stream.Signature(Beat(width))),
                "window": Out(8 * WINDOW_BYTES),
                "bytes": In(range(WINDOW_BYTES + 1)),
                "complete": Out(1),
                "short": Out(1),
                "ends": Out(1),
                "take": In(1),
                "stay": In(1),
                "refill": In(1),
                "skip": In(1),
                "held": Out(1),
                "held_last": Out(1),
                "start": In(1),
                "half": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat = self.i.payload
        held = Signal(8 * BUS_BYTES, reset_less=True)
        # All of the held beat is used up only where nothing more is asked of it.
        position = Signal(range(BUS_BYTES + 1))
        pair = Cat(held, beat.data)
        shifted = pair
        for k in reversed(range(4)):  # the longest shift first: fewer bits are left for the others
            narrower = Signal(8 * (WINDOW_BYTES + (1 << k) - 1), name=f"shifted{k}")
            m.d.comb += narrower.eq(Mux(position[k], shifted >> (8 << k), shifted))
            shifted = narrower
        end = Signal(range(2 * BUS_BYTES + 1))
        crossing = Signal()
        used_up = position[-1]
        m.d.comb += [
            self.window.eq(shifted),
            end.eq(position + self.bytes),
            crossing.eq(end > BUS_BYTES),
            self.complete.eq(self.held & ~used_up & (~crossing | (self.i.valid & ~self.held_last))),
            self.short.eq(self.held & self.held_last & crossing),
            self.ends.eq(Mux(crossing, beat.last, self.held_last)),
        ]
        advance = Signal()
        first = Cat(C(0, 3), self.half)
        with m.If(self.skip):
            m.d.comb += advance.eq(1)
            m.d.sync += position.eq(Mux(self.start, first, 0))
        with m.Elif(self.take):
            m.d.sync += position.eq(end)
            with m.If(crossing | ((end == BUS_BYTES) & ~self.stay & ~self.held_last)):
                m.d.comb += advance.eq(1)
                m.d.sync += position.eq(end - BUS_BYTES)
        with m.Elif(self.refill & used_up & self.held & ~self.held_last):
            m.d.comb += advance.eq(1)
            m.d.sync += position.eq(0)
        with m.Elif(self.start):
            m.d.sync += position.eq(first)
        with m.If(advance | ~self.held):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [self.held.eq(self.i.valid), held.eq(beat.data), self.held_last.eq(beat.last)]
        return m


def two_bit_codes(m, window, doubles):
    """A step's codes as 2-bit codes ``2 b1 + b0`` of multiplier 2c - 3: 1-bit ones become 1 (-1) and 2 (+1).

    ``doubles``: how many of the step's groups of 8 channels have 2-bit codes; they come first.
    """
    codes = Signal(data.ArrayLayout(2, LANES))
    for lane in range(LANES):
        group = lane // 8
        single = Signal(name=f"single{lane}")
        with m.Switch(doubles):
            for count in range(group + 1):
                with m.Case(count):
                    m.d.comb += single.eq(window[lane + 8 * count])
            with m.Default():
                pass
        pair = window[2 * lane : 2 * lane + 2]
        m.d.comb += codes[lane].eq(Mux(doubles > group, pair, Cat(~single, single)))
    return codes

"""A sliding window over the packed rows of a block."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Beat
from hw.spec.kv_block import ALIGN_BYTES, TRITS_PER_BYTE
from hw.spec.kv_config import KvEngineConfig

__all__ = ["RowGeometry", "RowWindow"]


class RowGeometry:
    """How the rows come in: beats of two halves, cut into units."""

    def __init__(self, lanes: int):
        self.unit_bits = min(8, lanes)
        self.half_bits = 2 * lanes
        self.half_units = self.half_bits // self.unit_bits
        self.halves = 8 * ALIGN_BYTES // self.half_bits
        # Trits straddle bytes, so that few lanes may touch a byte more than they fill.
        self.window_bits = max(self.half_bits, 8 * -(-(lanes + TRITS_PER_BYTE - 1) // TRITS_PER_BYTE))
        self.need_shape = range(2 * self.half_units + 1)
        self.units_shape = range(self.half_units + 1)


class RowWindow(wiring.Component):
    """Shows the next bits of the rows, whatever their alignment, and moves on by what the caller takes.

    Beats come in halves of ``2 * lanes`` bits, the most that a beat of elements takes: one half is held, the next is at
    the input, and the window is the pair shifted by the position in the held one. Positions count units of a byte, with
    4 lanes of half a byte. Throughput: a half per cycle.

    Members
    -------
    i : stream of Beat(4 * lanes), In
        Rows of one packet after another, each ending with ``last``.
    window : Out
        The next bits, first in the least significant.
    need : In
        Units that must be there, 1 or more.
    there : Out
        They are.
    short : Out
        They will never be: the packet ends before them.
    take, units, stay : In
        Move on by ``units``, at most a half. With ``stay``, not beyond the held half if that is exactly used up.
    skip : In
        Drop the held half.
    held, held_last, place : Out
        A half is held; it is the packet's last; its number within 16 bytes.
    place_strobe, new_place : In
        Set ``place``.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.geometry = geometry = RowGeometry(config.lanes)
        place = range(geometry.halves)
        super().__init__(
            {
                "i": In(stream.Signature(Beat(config.input_bits))),
                "window": Out(geometry.window_bits),
                "need": In(geometry.need_shape),
                "there": Out(1),
                "short": Out(1),
                "take": In(1),
                "units": In(geometry.units_shape),
                "stay": In(1),
                "skip": In(1),
                "held": Out(1),
                "held_last": Out(1),
                "place": Out(place),
                "place_strobe": In(1),
                "new_place": In(place),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat = self.i.payload
        half, units, unit_bits = self.geometry.half_bits, self.geometry.half_units, self.geometry.unit_bits
        upper = Signal()
        held = Signal(half, reset_less=True)
        position = Signal(range(units + 1))
        following = Mux(upper, beat.data[half:], beat.data[:half])

        pair = Cat(held, following)
        with m.Switch(position):
            for count in range(units):
                with m.Case(count):
                    m.d.comb += self.window.eq(pair[count * unit_bits :])
            with m.Default():
                pass
        beyond = Signal()
        m.d.comb += [
            beyond.eq(position + self.need > units),
            self.there.eq(self.held & (~beyond | (self.i.valid & ~self.held_last))),
            self.short.eq(self.held & self.held_last & beyond),
        ]

        moved = Signal(range(2 * units + 1))
        m.d.comb += moved.eq(position + self.units)
        advance = Signal()
        with m.If(self.skip):
            m.d.comb += advance.eq(1)
            m.d.sync += position.eq(0)
        with m.Elif(self.take):
            exactly = moved == units
            m.d.sync += position.eq(moved)
            with m.If((moved > units) | (exactly & ~self.stay & ~self.held_last)):
                m.d.comb += advance.eq(1)
                m.d.sync += position.eq(moved - units)
        load = advance | ~self.held
        with m.If(load):
            m.d.comb += self.i.ready.eq(upper)
            m.d.sync += self.held.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += [held.eq(following), self.held_last.eq(beat.last & upper), upper.eq(~upper)]
        with m.If(self.place_strobe):
            m.d.sync += self.place.eq(self.new_place)
        with m.Elif(advance):
            m.d.sync += self.place.eq(self.place + 1)
        return m

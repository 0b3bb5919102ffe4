"""Butterflies of the Walsh-Hadamard transform between a beat and a later one."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.streams.delay import DelayLine, ring_counter

__all__ = ["BeatButterfly"]


class BeatButterfly(wiring.Component):
    """Sums of beats ``distance`` apart, then their differences, one adder per lane.

    A ring memory holds the last beats; both operands of the one addition that is due come out of it. So the adder is
    busy all the time, where the usual feedback of differences into the delay line takes two adders half the time, and
    gates choose nothing but an operand's sign.

    Steps: beat t is written at step t; sum t is beat t + beat t + distance, difference t + distance the same two
    subtracted; both come out ``latency`` steps after the beat of their number. A beat without orders comes out
    doubled: both operands are itself.

    Parameters
    ----------
    lanes, width : int
        Words per beat, and their bits.
    distance : int
    passed : int
        Bits of later stages' orders.

    Members
    -------
    i : ArrayLayout(signed(width), lanes), In
    mark : In
        Of the beat ``i``; that of either operand goes with a sum or difference.
    orders : In
        Two bits for this stage, (add, subtract), for beat ``i`` as a number of the output; then later stages'.
    step : In
        A beat enters, one leaves.
    o : ArrayLayout(signed(width + 1), lanes), Out
    o_mark : Out
    o_orders : Out
        Beside ``o``.
    """

    def __init__(self, lanes: int, width: int, distance: int, passed: int):
        self.lanes, self.width, self.distance, self.passed = lanes, width, distance, passed
        self.latency = distance + 2
        super().__init__(
            {
                "i": In(data.ArrayLayout(signed(width), lanes)),
                "mark": In(1),
                "orders": In(passed + 2),
                "step": In(1),
                "o": Out(data.ArrayLayout(signed(width + 1), lanes)),
                "o_mark": Out(1),
                "o_orders": Out(passed),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # An output's operands are read a step before it leaves: the memory's read ports are the pipeline's registers.
        m.submodules.order_line = line = DelayLine(self.passed + 2, self.latency - 1)
        subtract = Signal(reset_less=True)
        later = Signal(self.passed, reset_less=True)
        add_next, subtract_next = line.o[0], line.o[1]
        m.d.comb += [line.i.eq(self.orders), line.step.eq(self.step), self.o_orders.eq(later)]
        with m.If(self.step):
            m.d.sync += [subtract.eq(subtract_next), later.eq(line.o[2:])]

        # Beats 2 * distance + 1 to 0 steps old: one place more than needed: no port reads what is being written.
        depth = 2 * self.distance + 2
        m.submodules.ring = ring = memory.Memory(
            shape=data.StructLayout({"words": self.i.shape(), "mark": 1}), depth=depth, init=[]
        )
        write, first, second = ring.write_port(), ring.read_port(), ring.read_port()
        place, oldest = ring_counter(m, depth, self.step, "place")
        own, _ = ring_counter(m, depth, self.step, "own", self.distance + 1)  # of the output's number
        newest, _ = ring_counter(m, depth, self.step, "newest", depth - 1)
        m.d.comb += [
            write.addr.eq(place),
            write.data.words.eq(self.i),
            write.data.mark.eq(self.mark),
            write.en.eq(self.step),
            first.addr.eq(Mux(subtract_next, oldest, own)),
            first.en.eq(self.step),
            second.addr.eq(Mux(add_next, newest, own)),
            second.en.eq(self.step),
            self.o_mark.eq(first.data.mark | second.data.mark),
        ]
        for k in range(self.lanes):
            term = second.data.words[k].as_unsigned() ^ subtract.replicate(self.width)
            total = Cat(1, first.data.words[k]).as_signed() + Cat(subtract, term).as_signed()
            m.d.comb += self.o[k].eq(total >> 1)
        return m

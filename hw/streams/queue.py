"""A queue in short cycles, for a pipeline that counts what it has under way and never waits."""

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

__all__ = ["BeatQueue"]


class BeatQueue(wiring.Component):
    """First in, first out. The writer keeps count of ``taken``: it must not write more than ``depth`` - 1 ahead of it.

    A beat leaves 2 cycles after it came in at the earliest, one per cycle.

    Parameters
    ----------
    shape : ShapeLike
    depth : int
        A power of two.

    Members
    -------
    i : shape, In
    write : In
    o : stream of shape, Out
    taken : Out
        A beat has left in the cycle before.
    """

    def __init__(self, shape, depth: int):
        self._shape, self.depth = shape, depth
        super().__init__({"i": In(shape), "write": In(1), "o": Out(stream.Signature(shape)), "taken": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=self._shape, depth=self.depth, init=[])
        write, read = store.write_port(), store.read_port()
        # Places are counted modulo 2 * depth. `after` is the place after `head`, `beyond` that after `tail`.
        bits = exact_log2(self.depth) + 1
        head = Signal(bits)
        after = Signal(bits, init=1)
        tail = Signal(bits)
        beyond = Signal(bits, init=1)
        valid = Signal()
        leaves = Signal()
        taken = Signal()
        # One place is always free, and written in every cycle: so nothing but `tail` waits for `write`.
        m.d.comb += [
            write.en.eq(1),
            write.addr.eq(tail),
            write.data.eq(self.i),
            leaves.eq(valid & self.o.ready),
            read.en.eq(1),
            read.addr.eq(Mux(leaves, after, head)),
            self.o.valid.eq(valid),
            self.o.payload.eq(read.data),
            self.taken.eq(taken),
        ]
        # A beat is readable in the cycle after that in which it was written: `tail` is old enough.
        m.d.sync += [
            taken.eq(leaves),
            valid.eq(Mux(leaves, after != tail, head != tail)),
        ]
        with m.If(self.write):
            m.d.sync += [tail.eq(beyond), beyond.eq(beyond + 1)]
        with m.If(leaves):
            m.d.sync += [head.eq(after), after.eq(after + 1)]
        return m

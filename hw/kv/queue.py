"""A small queue in a memory."""

from amaranth import Module, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["WordQueue"]


class WordQueue(wiring.Component):
    """A queue of ``depth`` words, a power of two, without any register for data: it is read one address ahead.

    Latency: 2 cycles. Throughput: a word per cycle.

    Members
    -------
    i, o : stream of shape, In, Out
    """

    def __init__(self, shape, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two from 2 on, not {depth!r}")
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        write, read = store.write_port(), store.read_port()
        # A bit more than an address: they differ by `depth` when the queue is full.
        tail, head, following = (Signal(ceil_log2(self.depth) + 1, name=n) for n in ("tail", "head", "following"))
        full = (tail[:-1] == head[:-1]) & (tail[-1] != head[-1])
        m.d.comb += [
            self.i.ready.eq(~full),
            write.en.eq(self.i.valid & ~full),
            write.addr.eq(tail[:-1]),
            write.data.eq(self.i.payload),
            following.eq(head + (self.o.valid & self.o.ready)),
            read.addr.eq(following[:-1]),
            Value.cast(self.o.payload).eq(Value.cast(read.data)),
        ]
        with m.If(write.en):
            m.d.sync += tail.eq(tail + 1)
        m.d.sync += [head.eq(following), self.o.valid.eq(following != tail)]
        return m

"""Token indices of a block's rows."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import TOKEN_BITS
from hw.spec.kv_block import MAX_SPAN

__all__ = ["TokenIndex"]


class TokenIndex(wiring.Component):
    """Counts the tokens of a block, or finds them in its bitmap (docs/kv-engine.md C2).

    The index itself is the only wide register: it steps from one row's token to the next. While a row leaves, the byte
    of the bitmap that holds the next token is looked for; one step spans up to 15 tokens, more empty bytes are stepped
    over one per cycle between two rows.

    Two bitmaps: one is written while the other is searched.

    Members
    -------
    byte, byte_index, write, write_set : In
        A byte of the bitmap of the block to come.
    start, first, sparse, read_set : In
        Begin with token ``first``; ``sparse``: by the bitmap of ``read_set``.
    token : Out
        Index of the current row's token.
    there : Out
        The next row's token is found; at once without a bitmap.
    next : In
        Go on to the next row: ``token`` changes with the next cycle.
    free : In
        ``token`` is not in use.
    """

    def __init__(self):
        super().__init__(
            {
                "byte": In(8),
                "byte_index": In(6),
                "write": In(1),
                "write_set": In(1),
                "start": In(1),
                "first": In(TOKEN_BITS),
                "sparse": In(1),
                "read_set": In(1),
                "token": Out(TOKEN_BITS),
                "there": Out(1),
                "next": In(1),
                "free": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.bitmaps = bitmaps = memory.Memory(shape=8, depth=2 * MAX_SPAN // 8, init=[])
        write, read = bitmaps.write_port(), bitmaps.read_port()
        index = Signal(6)  # byte at the memory's output
        bits = Signal(8)  # ones of a byte that are still to come
        last = Signal(3)  # place of the last one
        byte_past = Signal()  # that was in the byte before
        fresh = Signal()  # no byte loaded, or without a bitmap no row begun
        empty, load, hop = Signal(), Signal(), Signal()
        offset = Signal(3)
        for k in reversed(range(8)):
            with m.If(bits[k]):
                m.d.comb += offset.eq(k)
        step = Signal(4)
        m.d.comb += [
            empty.eq(bits == 0),
            self.there.eq(~self.sparse | ~empty),
            load.eq(empty & (~byte_past | self.free)),
            # Two empty bytes one after the other: the index hops over the first.
            hop.eq(self.sparse & load & byte_past),
            write.addr.eq(Cat(self.byte_index, self.write_set)),
            write.data.eq(self.byte),
            write.en.eq(self.write),
            read.addr.eq(Cat(Mux(self.start, 0, index + load)[:6], self.read_set)),
        ]
        with m.If(~self.sparse):
            m.d.comb += step.eq(~fresh)
        with m.Elif(hop):
            m.d.comb += step.eq(8)
        with m.Else():
            m.d.comb += step.eq(Cat(offset, byte_past) - last)
        with m.If(self.start):
            m.d.sync += [
                self.token.eq(self.first),
                bits.eq(0),
                last.eq(0),
                byte_past.eq(0),
                fresh.eq(1),
                index.eq(0),
            ]
        with m.Else():
            with m.If(self.next | hop):
                m.d.sync += self.token.eq(self.token + step)
            with m.If(self.next):
                m.d.sync += [fresh.eq(0), last.eq(offset), byte_past.eq(0), bits.eq(bits & (bits - 1))]
            with m.Elif(load & self.sparse):
                m.d.sync += [fresh.eq(0), byte_past.eq(~fresh), bits.eq(read.data), index.eq(index + 1)]
        return m

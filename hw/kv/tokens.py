"""Token indices of a block's rows."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import TOKEN_BITS
from hw.spec.kv_block import MAX_SPAN

__all__ = ["TokenIndex"]


class TokenIndex(wiring.Component):
    """Counts the tokens of a block, or finds them in its bitmap, eight tokens of it per cycle (docs/kv-engine.md C2).

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
        It is right; at once without a bitmap.
    next : In
        Go on to the next row.
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
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.bitmaps = bitmaps = memory.Memory(shape=8, depth=2 * MAX_SPAN // 8, init=[])
        write, read = bitmaps.write_port(), bitmaps.read_port()
        m.d.comb += [
            write.addr.eq(Cat(self.byte_index, self.write_set)),
            write.data.eq(self.byte),
            write.en.eq(self.write),
        ]

        # The current byte's ones still to come; the lowest is the current token. Without a bitmap, always one.
        bits = Signal(8)
        base = Signal(TOKEN_BITS, reset_less=True)  # token of the byte's first bit
        dense, first_byte = Signal(), Signal()
        left, load = Signal(8), Signal()
        m.d.comb += [left.eq(Mux(self.next, bits & (bits - 1), bits)), load.eq(left == 0)]
        with m.If(self.start):
            m.d.sync += [base.eq(self.first), dense.eq(~self.sparse), bits.eq(~self.sparse), first_byte.eq(1)]
        with m.Elif(dense):
            with m.If(self.next):
                m.d.sync += base.eq(base + 1)
        with m.Elif(load):
            m.d.sync += [bits.eq(read.data), first_byte.eq(0)]
            with m.If(~first_byte):
                m.d.sync += base.eq(base + 8)
        with m.Else():
            m.d.sync += bits.eq(left)

        index = Signal(6)  # byte at the memory's output
        address = Mux(self.start, 0, index + load)[:6]
        m.d.sync += index.eq(address)
        offset = Signal(3)
        for k in reversed(range(8)):
            with m.If(bits[k]):
                m.d.comb += offset.eq(k)
        m.d.comb += [
            read.addr.eq(Cat(address, self.read_set)),
            read.en.eq(1),
            self.token.eq(base + offset),
            self.there.eq(bits != 0),
        ]
        return m

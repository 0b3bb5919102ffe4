"""Token indices of a block's rows."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.ripple import add
from hw.kv.layouts import TOKEN_BITS
from spec.kv_block import MAX_ROWS

__all__ = ["TokenIndex", "TokenList"]


class TokenList(wiring.Signature):
    """``write``: row ``row`` of the block to come, in list ``set``, is token ``offset`` of its bitmap."""

    def __init__(self):
        super().__init__({"row": Out(7), "offset": Out(9), "write": Out(1), "set": Out(1)})


class TokenIndex(wiring.Component):
    """Numbers the rows of a block, or looks them up in the list of its bitmap's ones (docs/kv-engine.md C2).

    Two lists: one is written while the other is read. Latency 1 cycle.

    Members
    -------
    i : TokenList, In
    read, read_set, read_row : In
        Go on to this row.
    first, sparse : In
        Index of the block's first token; it has a bitmap. Stable while ``token`` is wanted.
    token : Out
        Index of the row's token.
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(TokenList()),
                "read": In(1),
                "read_set": In(1),
                "read_row": In(7),
                "first": In(TOKEN_BITS),
                "sparse": In(1),
                "token": Out(TOKEN_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.offsets = offsets = memory.Memory(shape=9, depth=2 * MAX_ROWS, init=[])
        write, read = offsets.write_port(), offsets.read_port()
        row = Signal(7, reset_less=True)
        with m.If(self.read):
            m.d.sync += row.eq(self.read_row)
        m.d.comb += [
            write.addr.eq(Cat(self.i.row, self.i.set)),
            write.data.eq(self.i.offset),
            write.en.eq(self.i.write),
            read.addr.eq(Cat(self.read_row, self.read_set)),
            read.en.eq(self.read),
            self.token.eq(add(m, self.first, Mux(self.sparse, read.data, row))),
        ]
        return m

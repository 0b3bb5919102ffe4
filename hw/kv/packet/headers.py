"""The headers of the block that is taken in and of the one whose rows leave."""

from amaranth import Cat, Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import Header

__all__ = ["HeaderStore"]

SLICE = 16
SLICES = 4


class HeaderStore(wiring.Component):
    """Two headers in four memories, 16 bits in each, whose outputs serve as registers.

    Latency 1 cycle from a write, or from a change of ``set`` or ``open_set``.

    Members
    -------
    slice, place, write : In
        Bits ``16 * place`` and following of header ``set``.
    set, open_set : In
    header, open_header : Header, Out
        Headers ``set`` and ``open_set``.
    """

    def __init__(self):
        super().__init__(
            {
                "slice": In(SLICE),
                "place": In(range(SLICES)),
                "write": In(1),
                "set": In(1),
                "open_set": In(1),
                "header": Out(Header),
                "open_header": Out(Header),
            }
        )

    def elaborate(self, platform):
        m = Module()
        mine, opened = [], []
        for k in range(SLICES):
            m.submodules[f"header{k}"] = store = memory.Memory(shape=SLICE, depth=2, init=[])
            write, own, other = store.write_port(), store.read_port(), store.read_port()
            m.d.comb += [
                write.addr.eq(self.set),
                write.data.eq(self.slice),
                write.en.eq(self.write & (self.place == k)),
                own.addr.eq(self.set),
                other.addr.eq(self.open_set),
            ]
            mine.append(own.data)
            opened.append(other.data)
        m.d.comb += [self.header.eq(Cat(mine)), self.open_header.eq(Cat(opened))]
        return m

"""The headers of the block that is taken in and of the one whose rows leave."""

from functools import reduce
from operator import xor

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.layouts import ERROR_BITS, Header
from hw.kv.packet.header import HeaderRules
from spec.kv_block import HEADER_CHECK
from spec.kv_config import KvEngineConfig, KvError

__all__ = ["HeaderStore"]

SLICE = 16
SLICES = 4


class HeaderStore(wiring.Component):
    """Two headers in four memories, 16 bits in each, whose outputs serve as registers; and whether they are legal.

    Latency 1 cycle from a write, or from a change of ``set`` or ``open_set``.

    Members
    -------
    slice, place, write : In
        Bits ``16 * place`` and following of header ``set``.
    set, open_set : In
    header, open_header : Header, Out
        Headers ``set`` and ``open_set``.
    misfit : In
        As of :class:`hw.kv.packet.header.HeaderRules`.
    error : Out
        Of the header written last, :class:`KvError` code; 0 for one that this build can serve.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "slice": In(SLICE),
                "place": In(range(SLICES)),
                "write": In(1),
                "set": In(1),
                "open_set": In(1),
                "header": Out(Header),
                "open_header": Out(Header),
                "error": Out(ERROR_BITS),
            }
            | ({"misfit": In(1)} if config.centre else {})
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
        check = Signal(4, reset_less=True)
        nibbles = reduce(xor, [self.slice[k : k + 4] for k in range(0, SLICE, 4)])
        with m.If(self.write):
            m.d.sync += check.eq(Mux(self.place == 0, 0, check) ^ nibbles)
        m.submodules.rules = rules = HeaderRules(self.config)
        m.d.comb += [
            self.header.eq(Cat(mine)),
            self.open_header.eq(Cat(opened)),
            rules.header.eq(self.header),
            self.error.eq(Mux(check == HEADER_CHECK, rules.error, KvError.HEADER)),
        ]
        if self.config.centre:
            m.d.comb += rules.misfit.eq(self.misfit)
        return m

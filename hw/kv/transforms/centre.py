"""The key centre: two of them in memories, and the adders that put it back."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.fp16_adder import Fp16Adder
from hw.kv.layouts import CHANNEL_BITS, Elements, Tag
from spec.kv_config import KvEngineConfig

__all__ = ["CentreAdder", "CentreNumbers", "CentreStore"]


class CentreNumbers(wiring.Signature):
    """How a centre is loaded.

    ``number``, ``channel``, ``write``: a number of the new centre. ``channels``, ``keep``: the new centre is complete,
    D / 8 - 1 is ``channels``: from now on it is the one in use. ``fits``: there is a centre, of ``channels``.
    """

    def __init__(self):
        super().__init__(
            {
                "number": Out(16),
                "channel": Out(CHANNEL_BITS),
                "write": Out(1),
                "channels": Out(4),
                "keep": Out(1),
                "fits": In(1),
            }
        )


class CentreStore(wiring.Component):
    """The centre in use and the one being loaded, D FP16 numbers each, a memory per lane.

    A reset forgets the centre.

    Members
    -------
    i : CentreNumbers, In
    beat, read : In
        ``values`` of channels ``beat * lanes`` and following, from the next cycle on until the next ``read``.
    values : Out
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        super().__init__(
            {
                "i": In(CentreNumbers()),
                "beat": In(ceil_log2(config.max_channels // config.lanes)),
                "read": In(1),
                "values": Out(data.ArrayLayout(16, config.lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        bits = ceil_log2(lanes)
        used = Signal()
        loaded = Signal()
        size = Signal(4, reset_less=True)
        with m.If(self.i.keep):
            m.d.sync += [used.eq(~used), loaded.eq(1), size.eq(self.i.channels)]
        m.d.comb += self.i.fits.eq(loaded & (size == self.i.channels))
        for k in range(lanes):
            m.submodules[f"lane{k}"] = bank = memory.Memory(shape=16, depth=2 << len(self.beat), init=[])
            write, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                write.addr.eq(Cat(self.i.channel[bits:][: len(self.beat)], ~used)),
                write.data.eq(self.i.number),
                write.en.eq(self.i.write & (self.i.channel[:bits] == k)),
                read.addr.eq(Cat(self.beat, used)),
                read.en.eq(self.read),
                self.values[k].eq(read.data),
            ]
        return m


class CentreAdder(wiring.Component):
    """Adds the centre to elements in channel order, where a block asks for it (docs/kv-engine.md C3); the others pass.

    A sum beyond FP16 is +-65504, and marks from its beat to the end of the block.

    Latency 1, a beat per cycle.

    Members
    -------
    i, o : stream of Elements(lanes), In, Out
    centre : In
        Beside ``i``: the centre of its channels.
    add : In
        Beside ``i``: it is to be added.
    overflow : Out
        An unmarked beat with a sum beyond FP16 is at ``o``.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        elements = stream.Signature(Elements(config.lanes))
        super().__init__(
            {
                "i": In(elements),
                "o": Out(elements),
                "centre": In(data.ArrayLayout(16, config.lanes)),
                "add": In(1),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        full = Signal()
        tag = Signal(Tag, reset_less=True)
        step = Signal()
        m.d.comb += [step.eq(~full | self.o.ready), self.i.ready.eq(step), self.o.valid.eq(full)]
        with m.If(step):
            m.d.sync += [full.eq(self.i.valid), tag.eq(self.i.payload.tag)]
        overflows = []
        for k in range(self.config.lanes):
            m.submodules[f"lane{k}"] = adder = Fp16Adder()
            m.d.comb += [
                adder.a.eq(self.i.payload.data[k]),
                # Adding +0 changes no element: none is -0.
                adder.b.eq(self.centre[k] & self.add.replicate(16)),
                adder.step.eq(step),
                self.o.payload.data[k].eq(adder.value),
            ]
            overflows.append(adder.beyond & tag.groups[k // 8])
        spoiled = Signal()
        m.d.comb += [
            self.overflow.eq(full & Cat(overflows).any() & ~tag.marked & ~spoiled),
            self.o.payload.tag.eq(tag),
            self.o.payload.tag.marked.eq(tag.marked | self.overflow | spoiled),
        ]
        with m.If(full & self.o.ready):
            m.d.sync += spoiled.eq(~tag.last & (spoiled | self.overflow))
        return m

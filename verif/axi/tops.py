"""Blocks of ``hw.axi`` as tops with flat AXI ports, for the tests."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS
from hw.axi.lite import AxiLitePort
from hw.axi.stream import AxiStreamPort
from hw.tops.core_registers import CoreBuild
from spec.datatypes import Datatype

BUILD = CoreBuild(
    rows=3,
    columns=5,
    lanes=16,
    window=14,
    datatypes=(Datatype.FP4, Datatype.FP3, Datatype.INT8),
    group_sizes=(64, 128),
    max_inputs=16384,
    max_outputs=9000,
    chunk=512,
    block_outputs=96,
    token_sets=2,
    special_values=(-16, -10, -3, -6, 3, 6, 10, 16, 7, 0),
    fp4_special_values=(-16, -10, -3, -6, 3, 6, 10, 16, 5, 0),
)


class BehindAxiLite(wiring.Component):
    """A component with a ``bus``, all else brought out as it is."""

    def __init__(self, inner: wiring.Component):
        self._inner = inner
        self._port = AxiLitePort(ADDRESS_BITS)
        self._others = {name: member for name, member in inner.signature.members.items() if name != "bus"}
        super().__init__(ports(self._port, **self._others))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.inner = inner = self._inner
        self._port.connect(m, self, inner.bus)
        outside = wiring.flipped(self)
        for name, member in self._others.items():
            if member.is_port:
                pairs = [(getattr(inner, name), getattr(self, name))]
                if member.dimensions:
                    pairs = list(zip(*pairs[0], strict=True))
                for inside, port in pairs:
                    m.d.comb += inside.eq(port) if member.flow is In else port.eq(inside)
            else:
                wiring.connect(m, getattr(inner, name), getattr(outside, name))
        return m


class Loopback(wiring.Component):
    """Streams with every optional signal, in and out again."""

    def __init__(self):
        shape = {"data_bits": 32, "keep": True, "user_bits": 3, "dest_bits": 2}
        self._in, self._out = AxiStreamPort("s", "", **shape), AxiStreamPort("m", "", **shape)
        self._bare_in = AxiStreamPort("s", "bare", 8, last=False)
        self._bare_out = AxiStreamPort("m", "bare", 8, last=False)
        super().__init__(ports(self._in, self._out, self._bare_in, self._bare_out))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        for source, sink in ((self._in, self._out), (self._bare_in, self._bare_out)):
            incoming, outgoing = source.source(m, self), sink.sink(m, self)
            m.d.comb += [
                outgoing.payload.eq(incoming.payload),
                outgoing.valid.eq(incoming.valid),
                incoming.ready.eq(outgoing.ready),
            ]
        return m

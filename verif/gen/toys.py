"""Small components that hold, between them, everything the generator treats in a way of its own."""

from dataclasses import dataclass, field

from amaranth.hdl import Array, Module, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

SQUARES = [(7 * value * value + 3) % 256 for value in range(16)]


@dataclass(frozen=True)
class ToyTop:
    """The fields of a top that the back ends read."""

    name: str
    component: type
    parameters: dict = field(default_factory=dict)
    latency: dict | None = None
    datapath: bool = True
    on_request: bool = False


class Adder(wiring.Component):
    """Registered sum of two ``width``-bit numbers."""

    def __init__(self, width: int = 6):
        self.width = width
        super().__init__({"a": In(width), "b": In(width), "y": Out(width)})

    def elaborate(self, platform):
        m = Module()
        a, b = Signal(self.width), Signal(self.width)
        m.d.sync += [a.eq(self.a), b.eq(self.b), self.y.eq(a + b)]
        return m


class Negate(wiring.Component):
    """-a, registered, with a reset value that is not zero."""

    def __init__(self):
        super().__init__({"a": In(signed(8)), "o": Out(signed(9), init=5)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(-self.a)
        return m


class Mixture(wiring.Component):
    """ROMs, wide multiplexers, part selects, comparisons with zero, submodules, a state machine.

    Its ports are called ``a``, ``b`` and ``s`` because Yosys uses those names for itself.
    """

    def __init__(self):
        super().__init__(
            {"a": In(4), "b": In(48), "s": In(3), "rom": Out(8), "rom_q": Out(8), "lut": Out(8)}
            | {"part": Out(6), "negative": Out(signed(9)), "state": Out(2)}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.squares = squares = memory.Memory(shape=8, depth=16, init=SQUARES)
        now, later = squares.read_port(domain="comb"), squares.read_port()
        m.d.comb += [now.addr.eq(self.a), later.addr.eq(self.a), self.rom.eq(now.data), self.rom_q.eq(later.data)]
        with m.Switch(self.a):
            for value in range(12):
                with m.Case(value):
                    m.d.comb += self.lut.eq(201 - 13 * value)
            with m.Default():
                m.d.comb += self.lut.eq(self.b[:8])
        m.d.comb += self.part.eq(self.b.word_select(self.s, 6))
        m.submodules.negate = negate = Negate()
        m.d.comb += [negate.a.eq(self.lut), self.negative.eq(negate.o)]
        with m.FSM():
            with m.State("idle"):
                m.d.comb += self.state.eq(1)
                with m.If(self.a == 0):
                    m.next = "run"
            with m.State("run"):
                m.d.comb += self.state.eq(2)
                with m.If(self.b != 0):
                    m.next = "stop"
            with m.State("stop"):
                m.d.comb += self.state.eq(3)
                m.next = "idle"
        return m


class Buffer(wiring.Component):
    """A memory whose read address is a sum; ``flipflops`` makes it of registers instead."""

    def __init__(self, depth: int = 16, width: int = 8, init=(), flipflops: bool = False):
        self.depth, self.width, self.init, self.flipflops = depth, width, init, flipflops
        address = (depth - 1).bit_length()
        super().__init__(
            {"write": In(address), "data": In(width), "enable": In(1), "base": In(address), "offset": In(address)}
            | {"o": Out(width)}
        )

    def elaborate(self, platform):
        m = Module()
        address = (self.base + self.offset)[: len(self.base)]
        if self.flipflops:
            words = Array(Signal(self.width, name=f"word{index}") for index in range(self.depth))
            with m.If(self.enable):
                m.d.sync += words[self.write].eq(self.data)
            m.d.sync += self.o.eq(words[address])
        else:
            m.submodules.store = store = memory.Memory(shape=self.width, depth=self.depth, init=self.init)
            write, read = store.write_port(), store.read_port()
            m.d.comb += [write.addr.eq(self.write), write.data.eq(self.data), write.en.eq(self.enable)]
            m.d.comb += [read.addr.eq(address), self.o.eq(read.data)]
        return m


class Clash(wiring.Component):
    """Two submodules whose flat names are the same."""

    def __init__(self):
        super().__init__({"y": Out(6)})

    def elaborate(self, platform):
        inner, outer = Module(), Module()
        inner.submodules["b"] = Adder()
        outer.submodules["a"] = inner
        outer.submodules["a__b"] = Adder()
        return outer

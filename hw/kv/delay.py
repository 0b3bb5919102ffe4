"""Delay lines."""

from amaranth import Module, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DelayLine"]


class DelayLine(wiring.Component):
    """``o`` is the ``i`` of ``steps`` steps ago. One step is a register, more are a memory, whose contents no reset
    clears.

    Members
    -------
    i, o : In, Out
    step : In
    """

    def __init__(self, width: int, steps: int):
        self.width, self.steps = width, steps
        super().__init__({"i": In(width), "o": Out(width), "step": In(1)})

    def elaborate(self, platform):
        m = Module()
        if self.steps == 1:
            line = Signal(self.width, reset_less=True)
            with m.If(self.step):
                m.d.sync += line.eq(self.i)
            m.d.comb += self.o.eq(line)
            return m
        m.submodules.line = line = memory.Memory(shape=self.width, depth=self.steps, init=[])
        write, read = line.write_port(), line.read_port()
        pointer = Signal(range(self.steps))
        with m.If(self.step):
            m.d.sync += pointer.eq(pointer + 1)
        m.d.comb += [
            write.addr.eq(pointer),
            write.data.eq(self.i),
            write.en.eq(self.step),
            read.addr.eq(pointer + 1),
            read.en.eq(self.step),
            self.o.eq(Value.cast(read.data)),
        ]
        return m

"""Delay lines."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DelayLine", "ring_counter"]


def ring_counter(m: Module, depth: int, step: Value, name: str, init: int = 0) -> tuple[Signal, Value]:
    """A counter modulo ``depth`` that moves with ``step``, and what it will be next."""
    count = Signal(range(depth), name=name, init=init)
    following = count + 1 if depth & (depth - 1) == 0 else Mux(count == depth - 1, 0, count + 1)
    following = following[: len(count)]
    with m.If(step):
        m.d.sync += count.eq(following)
    return count, following


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
        pointer, following = ring_counter(m, self.steps, self.step, "pointer")
        m.d.comb += [
            write.addr.eq(pointer),
            write.data.eq(self.i),
            write.en.eq(self.step),
            read.addr.eq(following),
            read.en.eq(self.step),
            self.o.eq(Value.cast(read.data)),
        ]
        return m

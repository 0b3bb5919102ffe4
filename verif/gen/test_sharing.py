"""hw.sharing: equal components are emitted once, and behave as if they were not shared."""

import re

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from gen.verilog import to_verilog
from hw.sharing import place


class Counter(wiring.Component):
    """Counts ``step``s."""

    step: In(1)
    count: Out(4)
    made = 0

    def elaborate(self, platform):
        type(self).made += 1
        m = Module()
        count = Signal(4)
        m.d.comb += self.count.eq(count)
        with m.If(self.step):
            m.d.sync += count.eq(count + 1)
        return m


class Pair(wiring.Component):
    """Two shared counters; the first can be cleared."""

    clear: In(1)
    steps: In(2)
    counts: Out(8)

    def elaborate(self, platform):
        m = Module()
        first = place(m, platform, "first", "counter", Counter, clear=self.clear)
        second = place(m, platform, "second", "counter", Counter)
        m.d.comb += [first.step.eq(self.steps[0]), second.step.eq(self.steps[1])]
        m.d.comb += [self.counts[:4].eq(first.count), self.counts[4:].eq(second.count)]
        return m


class Nested(wiring.Component):
    """Shared components inside a shared component."""

    clear: In(1)
    steps: In(2)
    counts: Out(8)

    def elaborate(self, platform):
        m = Module()
        pair = place(m, platform, "pair", "pair", Pair)
        m.d.comb += [pair.clear.eq(self.clear), pair.steps.eq(self.steps), self.counts.eq(pair.counts)]
        return m


def test_one_module_for_equal_components():
    Counter.made = 0
    text, ports = to_verilog(Nested(), "top")
    modules = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert sorted(modules) == ["top", "top__counter", "top__pair"]
    assert Counter.made == 1
    resets = re.findall(r"^  top__counter \w+ \(.*?\.rst\((.*?)\)", text, re.MULTILINE | re.DOTALL)
    cleared = next(reset for reset in resets if reset != "rst")
    assert sorted(resets) == sorted(["rst", cleared])
    assert re.search(rf"assign {re.escape(cleared.strip())} *= rst \| clear;", text)
    assert [port["name"] for port in ports] == ["clear", "steps", "clk", "rst", "counts"]
    assert text == to_verilog(Nested(), "top")[0]


def test_clear():
    design = Pair()

    async def bench(ctx):
        ctx.set(design.steps, 0b11)
        await ctx.tick().repeat(3)
        assert ctx.get(design.counts) == 0x33
        ctx.set(design.clear, 1)
        await ctx.tick()
        assert ctx.get(design.counts) == 0x40

    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()

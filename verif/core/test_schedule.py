"""When groups may end and their sums are added: the hardware against the rules, cycle by cycle."""

import random

import pytest
from amaranth.sim import Simulator

from hw.core.schedule import MOST_DELAY, SumSchedule
from hw.prealigned.accumulator import RunningSums
from spec.system import core_preset
from verif.core.configs import SMALL

CONFIGS = {"dense": core_preset("dense"), "edge": core_preset("edge"), **SMALL}


@pytest.mark.parametrize("name", CONFIGS)
def test_schedule(name, rng):
    """R1 and R2 of docs/core.md with plain numbers; ends at random as early as they may or later, few sums or many."""
    config, drawn = CONFIGS[name], random.Random(int(rng.integers(1 << 30)))
    design = SumSchedule(config, 4)
    drain, interval = config.drain_cycles, RunningSums.interval
    ends, adds, planned, waits = [], [], [], set()
    last = {}

    async def bench(ctx):
        many, eager, index = 2, 1.0, 0
        for cycle in range(6000):
            if cycle % 100 == 0:
                many, eager = drawn.choice([1, 2, 3, 16]), drawn.choice([1.0, 0.5, 0.1])
            ctx.set(design.index, index)
            earliest = max(cycle, planned[-1] + drain if planned else 0, last.get(index, -interval) + interval)
            allowed = earliest - cycle <= MOST_DELAY and (not ends or cycle - ends[-1] >= drain)
            assert ctx.get(design.may_end) == allowed, f"cycle {cycle}"
            ended = allowed and drawn.random() < eager
            ctx.set(design.ended, ended)
            if ended:
                ends.append(cycle)
                planned.append(earliest)
                waits.add(earliest - cycle)
                last[index] = earliest
                index = drawn.randrange(many)
            await ctx.tick()
            if ctx.get(design.adds):
                adds.append(cycle)

    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(adds) > 300
    assert adds == [cycle for cycle in planned if cycle < 6000]
    assert waits >= {0, MOST_DELAY}

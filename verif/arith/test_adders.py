"""Adders and multipliers written out: every pair of small numbers, and random wide ones."""

from itertools import product

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw.arith.adders import add_bit, booth_product, prefix_sum, ripple_sum, select


@pytest.mark.parametrize("width", [1, 2, 3, 7, 18, 26, 41])
def test_sums(rng, width):
    m, a, b, carry = Module(), Signal(width), Signal(width), Signal()
    other = b if width < 12 else b[:11]
    product_here = booth_product(m, a, other, "product")
    prefix, ripple = prefix_sum(m, a, b, width, "prefix", carry), ripple_sum(m, a, b, width, "ripple", carry)
    raised, chosen = add_bit(m, a, carry, "raised"), select([(carry, b), (~carry & a[0], a)])
    top = 1 << width
    if width < 4:
        cases = list(product(range(top), range(top), range(2)))
    else:
        cases = [(*(int(x) for x in rng.integers(0, top, 2)), int(rng.integers(2))) for _ in range(300)]
        cases += [(top - 1, 1, 0), (top - 1, 0, 1), (top - 1, top - 1, 1)]

    async def bench(context):
        for x, y, c in cases:
            context.set(a, x)
            context.set(b, y)
            context.set(carry, c)
            assert context.get(prefix) == (x + y + c) % top, (x, y, c)
            assert context.get(ripple) == (x + y + c) % top, (x, y, c)
            assert context.get(raised) == (x + c) % top, (x, c)
            assert context.get(chosen) == (y if c else x if x & 1 else 0), (x, y, c)
            assert context.get(product_here) == x * (y % (1 << len(other))), (x, y)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()

"""cocotb tests for ``test_runner.py``: one for each way a simulation can end."""

import os

import cocotb
import numpy as np
from cocotb.triggers import Timer

from sim import exchange
from sim.bench import Bench


@cocotb.test()
async def passes(dut):
    exchange.save(doubled=exchange.vectors()["values"] * 2, option=np.int64(exchange.options()["option"]))


@cocotb.test()
async def fails(dut):
    expected, got = 3, 4
    await Timer(1, "ns")
    assert got == expected, f"beat 17: got {got}, expected {expected}"


@cocotb.test()
async def crashes(dut):
    os.abort()


@cocotb.test()
async def hangs(dut):
    while True:
        await Timer(1, "ns")


@cocotb.test()
async def power_up(dut):
    """Payload register before any reset or clock."""
    await Timer(1, "ns")
    exchange.save(held=np.int64(int(dut.o__payload.value)), random=exchange.rng(5).integers(0, 1 << 30))


@cocotb.test()
async def continues(dut):
    """Streams served in pieces: nothing is lost or sent twice between them."""
    bench = Bench(dut)
    source = bench.source("i", range(100), idle=0.2)
    sink = bench.sink("o", 100, stall=0.2)
    await bench.reset()
    for cycles in (1, 2, 3, 5, 8, 13):
        await bench.run(cycles)
    await bench.drain()
    assert sink.received.tolist() == list(range(100))
    assert len(source.cycles) == len(set(source.cycles)) == 100

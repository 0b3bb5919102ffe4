"""cocotb side of :mod:`verif.bitserial.player`: drive ports row by row, record others."""

import cocotb
import numpy as np
from cocotb import simulator
from cocotb.triggers import Timer

from sim import beats as form
from sim import exchange
from sim.bench import PERIOD_NS, Bench
from sim.ports import DEPOSIT


@cocotb.test()
async def play(dut):
    outputs = exchange.options()["outputs"]
    rows = {}
    for name, array in exchange.vectors().items():
        port = getattr(dut, name)
        width = len(port)
        put = port._handle.set_signal_val_binstr if width > form.INT_WIDTH else port._handle.set_signal_val_int
        rows[name] = (put, form.to_literals(form.checked(array, width, name), width))
    cycles = len(next(iter(rows.values()))[1])

    bench = Bench(dut)  # for its clock and reset
    for put, literals in rows.values():
        put(DEPOSIT, literals[0])
    await bench.reset()

    gets, taken = [], {}
    for name in outputs:
        port = getattr(dut, name)
        wide = len(port) > form.INT_WIDTH
        get = port._handle.get_signal_val_binstr if wide else port._handle.get_signal_val_long
        taken[name] = []
        gets.append((get, taken[name].append))
    drives = list(rows.values())
    for put, literals in drives:
        put(DEPOSIT, literals[0])
    row = 0

    def tick() -> None:
        nonlocal row
        for get, append in gets:
            append(get())
        row += 1
        if row < cycles:
            for put, literals in drives:
                put(DEPOSIT, literals[row])
            simulator.register_value_change_callback(dut.clk._handle, tick, simulator.RISING)

    simulator.register_value_change_callback(dut.clk._handle, tick, simulator.RISING)
    while row < cycles:
        await Timer(64 * PERIOD_NS, "ns")
    exchange.count_cycles(cycles)
    exchange.save(
        **{name: form.from_literals(values, len(getattr(dut, name))) for name, values in taken.items()},
        ports=np.array(list(taken)),
    )

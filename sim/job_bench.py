"""cocotb side of :mod:`sim.job`."""

import cocotb
import numpy as np

from sim import exchange
from sim.bench import Bench
from sim.ports import Wires
from sim.streams import StreamError


@cocotb.test()
async def jobs(dut):
    bench = Bench(dut)
    for index, options in enumerate(exchange.options()["jobs"]):
        try:
            await job(bench, index, options)
        except StreamError as error:
            raise StreamError(f"job {index}: {error}") from error


async def job(bench: Bench, index: int, options: dict) -> None:
    bench.sources.clear()
    bench.sinks.clear()
    inputs: dict[str, dict[str, np.ndarray]] = {}
    for key, array in exchange.vectors().items():
        number, name, part = key.split("/")
        if int(number) == index:
            inputs.setdefault(name, {})[part] = array
    wires = {name: Wires(**names) for name, names in options["wires"].items()}
    common = {"burst": options["burst"], "salt": index}
    for name, parts in inputs.items():
        idle = options["idle"].get(name)
        bench.source(name, parts.get("", parts), idle=idle, wires=wires.get(name), **common)
    for name, total in options["outputs"].items():
        waits = options["wait_for_valid"]
        stall = options["stall"].get(name)
        bench.sink(name, total, stall=stall, wait_for_valid=waits, wires=wires.get(name), **common)
    for name, value in options["signals"].items():
        getattr(bench.dut, name).value = value

    if options["reset"]:
        await bench.reset()
    for cycles in options["resets"]:
        await bench.run(cycles)
        await bench.reset()
    start = bench.cycle
    cycles = await bench.drain(patience=options["patience"], tail=options["tail"])

    results = {f"{index}/cycles": np.int64(cycles)}
    for name, sink in bench.sinks.items():
        received = sink.received
        parts = received if isinstance(received, dict) else {"": received}
        results |= {f"{index}/beats/{name}/{part}": array for part, array in parts.items()}
    for name, stream in {**bench.sources, **bench.sinks}.items():
        results[f"{index}/cycles/{name}"] = np.array(stream.cycles, np.int64) - start
    for name in options["observe"]:
        results[f"{index}/observed/{name}"] = np.array(str(getattr(bench.dut, name).value))
    exchange.save(**results)

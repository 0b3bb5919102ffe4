"""cocotb test of the core's AXI ports, driven and watched by cocotbext-axi, which knows nothing of this project."""

import logging
import random

import cocotb
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from sim import exchange
from verif.axi.bus import OKAY, Bus, pauses, start_clock

STATUS, ERROR = 0x24, 0x28


def end(dut, kind, name: str, rng: random.Random, pause: float):
    made = kind(AxiStreamBus.from_prefix(dut, name), dut.aclk, dut.aresetn, reset_active_level=False)
    made.log.setLevel(logging.WARNING)
    if pause:
        made.set_pause_generator(pauses(random.Random(rng.random()), pause))
    return made


@cocotb.test(timeout_time=20, timeout_unit="ms")
@cocotb.parametrize(pause=[0.0, 0.6])
async def jobs(dut, pause):
    """Jobs one after the other: packets in, packets out, an interrupt at the end of each."""
    vectors, options = exchange.vectors(), exchange.options()
    rng = random.Random(exchange.seed() + int(10 * pause))
    sources = {name: end(dut, AxiStreamSource, f"s_axis_{name}", rng, pause) for name in ("weights", "activations")}
    results = end(dut, AxiStreamSink, "m_axis_results", rng, pause)
    bus = Bus(dut, rng, pause=pause)
    await start_clock(dut)
    assert await bus.write(0x34, 3) == OKAY
    for number, job in enumerate(options["jobs"]):
        for name, source in sources.items():
            data, position = vectors[f"{number}/{name}"], 0
            for length in job[name]:
                source.send_nowait(AxiStreamFrame(data[position : position + length].tobytes()))
                position += length
        for address, value in job["writes"]:
            assert await bus.write(address, value) == OKAY
        wanted, marks = vectors[f"{number}/results"].tobytes(), vectors[f"{number}/marks"].tolist()
        for length in job["results"]:
            frame = await with_timeout(results.recv(), 200, "us")
            got = bytes(frame.tdata)
            assert got == wanted[:length], f"job {number}: a packet of {len(got)} bytes differs"
            users = frame.tuser if isinstance(frame.tuser, list) else [frame.tuser] * len(got)
            assert [int(user) for user in users] == marks[:length], f"job {number}: marks"
            wanted, marks = wanted[length:], marks[length:]
        assert not wanted
        for _ in range(100):
            if int(dut.irq.value):
                break
            await RisingEdge(dut.aclk)
        assert int(dut.irq.value) == 1, "an interrupt when the job has ended"
        assert await bus.read(STATUS) == (job["status"], OKAY)
        assert await bus.read(ERROR) == (job["error"], OKAY)
        assert await bus.write(0x38, 3) == OKAY
    for _ in range(50):
        await RisingEdge(dut.aclk)
    assert results.empty(), "a result too many"

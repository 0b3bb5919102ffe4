"""cocotb tests of the core's registers: jobs that start, jobs that are refused, errors, counters, interrupts."""

import itertools
import random

import cocotb
from cocotb.triggers import RisingEdge

from sim import exchange
from verif.axi.bus import Bus, reset, start_clock

LIMIT = {"timeout_time": 4, "timeout_unit": "ms"}
# Typed from the documentation, not read from the definition.
BUILD, BUILD_DATATYPES, LIMITS, BUILD_BLOCKS = 0x08, 0x0C, 0x10, 0x14
CONTROL, STATUS, ERROR = 0x20, 0x24, 0x28
ERROR_FLAGS, NUMERIC_FLAGS, IRQ_ENABLE, IRQ_STATUS = 0x2C, 0x30, 0x34, 0x38
TOKENS, INPUTS, OUTPUTS, FORMAT, DATATYPES = 0x40, 0x44, 0x48, 0x4C, 0x50
CYCLES, BUSY, STALL, MACS, SPECIAL = 0x80, 0x88, 0x90, 0x98, 0xC0
START, ABORT, CLEAR = 1, 2, 4
FP4, FP3, INT8, INT4 = 1 << 6, 1 << 7, 1 << 1, 1 << 4
GOOD = {TOKENS: 7, INPUTS: 576, OUTPUTS: 1536, FORMAT: 0x102, DATATYPES: FP4 | INT8}


class Core:
    """Stands in for the core: counts starts and stops; ends a job when told."""

    def __init__(self, dut):
        self.dut = dut
        self.starts = self.stops = 0
        for name in ("done", "errors", "fp32_overflow", "fp16_saturated", "working", "stalled", "macs"):
            getattr(dut, name).value = 0
        cocotb.start_soon(self.watch())

    async def watch(self):
        while True:
            await RisingEdge(self.dut.aclk)
            if int(self.dut.aresetn.value):
                self.starts += int(self.dut.start.value)
                self.stops += int(self.dut.stop.value)

    async def pulse(self, port, value=1, cycles=1):
        getattr(self.dut, port).value = value
        for _ in range(cycles):
            await RisingEdge(self.dut.aclk)
        getattr(self.dut, port).value = 0


async def begin(dut):
    bus, core = Bus(dut, random.Random(exchange.seed()), pause=0.2), Core(dut)
    await start_clock(dut)
    return bus, core


async def get(bus, address):
    data, response = await bus.read(address)
    assert response == 0
    return data


async def put(bus, address, data):
    assert await bus.write(address, data) == 0


async def describe(bus, **changes):
    """Write a good job's registers, some of them otherwise."""
    for address, value in {**GOOD, **{int(key[1:]): value for key, value in changes.items()}}.items():
        await put(bus, address, value)


async def wide(bus, address):
    low = await get(bus, address)
    return low | await get(bus, address + 4) << 32


@cocotb.test(**LIMIT)
async def build(dut):
    bus, _ = await begin(dut)
    assert await get(bus, BUILD) == 3 | 5 << 8 | 16 << 16 | 14 << 24
    assert await get(bus, BUILD_DATATYPES) == FP4 | FP3 | INT8 | 0b110 << 16
    assert await get(bus, LIMITS) == 16384 | 9000 << 16
    assert await get(bus, BUILD_BLOCKS) == 512 | 96 << 16 | 2 << 28
    values = [await get(bus, SPECIAL + 4 * k) for k in range(8)]
    assert values == [v & 0xFF for v in (3, -3, 6, -6, 10, -10, 16, -16)]


@cocotb.test(**LIMIT)
async def a_job(dut):
    """From start to interrupt, with everything counted; twice, so that the counters start afresh."""
    bus, core = await begin(dut)
    await put(bus, IRQ_ENABLE, 1)
    for run in (1, 2):
        await describe(bus)
        await put(bus, CONTROL, START)
        assert await get(bus, STATUS) == 1
        assert core.starts == run
        job = int(dut.job.value)
        assert job == 7 | 576 << 32 | 1536 << 48 | (FP4 | INT8) << 64 | 2 << 80 | 1 << 82
        await core.pulse("working", 1, 10)
        await core.pulse("stalled", 1, 3 + run)
        await core.pulse("macs", 240, 70_000 // 240 + run)
        assert int(dut.irq.value) == 0
        cycles = 0
        assert int(dut.busy.value) == 1
        await core.pulse("done")
        for _ in range(2):
            await RisingEdge(dut.aclk)
        assert int(dut.irq.value) == 1
        assert int(dut.busy.value) == 0
        assert await get(bus, STATUS) == 2
        assert await wide(bus, BUSY) == 10
        assert await wide(bus, STALL) == 3 + run
        assert await wide(bus, MACS) == 240 * (70_000 // 240 + run)
        cycles = await wide(bus, CYCLES)
        assert 10 + 3 + 290 < cycles < 400
        await core.pulse("working", 1, 5)
        assert await wide(bus, BUSY) == 10, "without a job nothing counts"
        assert await wide(bus, CYCLES) == cycles
        assert await get(bus, IRQ_STATUS) == 1
        await put(bus, IRQ_STATUS, 1)
        await RisingEdge(dut.aclk)
        assert int(dut.irq.value) == 0
        assert await get(bus, ERROR) == 0


@cocotb.test(**LIMIT)
async def refused_starts(dut):
    """Each ends in its code without a job, and the next good job starts."""
    bus, core = await begin(dut)
    await put(bus, IRQ_ENABLE, 2)
    cases = [
        (3, TOKENS, 0),
        (3, INPUTS, 0),
        (3, OUTPUTS, 0),
        (4, INPUTS, 16385),
        (4, OUTPUTS, 9001),
        (5, DATATYPES, 0),
        (5, DATATYPES, FP4 | INT4),
        (5, DATATYPES, 1),
        (6, FORMAT, 0),
        (6, FORMAT, 3),
    ]
    for number, (code, address, value) in enumerate(cases):
        await describe(bus, **{f"a{address}": value})
        await put(bus, CONTROL, START)
        assert await get(bus, STATUS) == 4, f"failed, not busy: {address:#x} = {value}"
        assert await get(bus, ERROR) == code | 1 << 16
        assert await get(bus, ERROR_FLAGS) == 1 << code - 1
        assert int(dut.irq.value) == 1
        assert core.starts == number
        await put(bus, IRQ_STATUS, 2)
        await put(bus, ERROR_FLAGS, 0x3FFF)
        await describe(bus, a68=16384, a72=9000)
        await put(bus, CONTROL, START)
        assert await get(bus, STATUS) == 1
        await core.pulse("done")
        assert await get(bus, STATUS) == 2
        assert await get(bus, ERROR) == code | 1 << 16, "kept until cleared"
        await put(bus, CONTROL, CLEAR)
        assert await get(bus, ERROR) == await get(bus, STATUS) == 0


@cocotb.test(**LIMIT)
async def busy(dut):
    """While a job runs it cannot be started again or changed."""
    bus, core = await begin(dut)
    await describe(bus)
    await put(bus, CONTROL, START)
    job = int(dut.job.value)
    await put(bus, CONTROL, START)
    assert await get(bus, ERROR) == 1 | 1 << 16
    for number, address in enumerate((TOKENS, INPUTS, OUTPUTS, FORMAT, DATATYPES, SPECIAL, SPECIAL + 28)):
        await put(bus, address, 0)
        assert await get(bus, ERROR) == 1 | (number + 2) << 16
    assert await get(bus, ERROR_FLAGS) == 0b11
    assert int(dut.job.value) == job
    assert await get(bus, TOKENS) == GOOD[TOKENS]
    assert await get(bus, SPECIAL) == 3
    assert core.starts == 1
    await core.pulse("done")
    await put(bus, TOKENS, 9)
    assert await get(bus, TOKENS) == 9
    await put(bus, CONTROL, START)
    assert core.starts == 2
    assert await get(bus, STATUS) == 1


@cocotb.test(**LIMIT)
async def shape_right_behind_start(dut):
    """The write behind a start is refused, however close it follows."""
    bus, _core = await begin(dut)
    bus.aw.clear_pause_generator()
    bus.w.clear_pause_generator()
    bus.b.clear_pause_generator()
    bus.aw.pause = bus.w.pause = bus.b.pause = False
    await describe(bus)
    start = cocotb.start_soon(bus.write(CONTROL, START))
    change = cocotb.start_soon(bus.write(TOKENS, 99))
    await start
    await change
    assert await get(bus, TOKENS) == GOOD[TOKENS]
    assert await get(bus, ERROR) == 2 | 1 << 16


@cocotb.test(**LIMIT)
async def aborts(dut):
    bus, core = await begin(dut)
    await put(bus, CONTROL, ABORT)
    assert core.stops == 0
    await describe(bus)
    await put(bus, CONTROL, START)
    await put(bus, CONTROL, ABORT)
    assert core.stops == 1
    assert await get(bus, STATUS) == 5, "still busy until the core says so"
    await core.pulse("done")
    assert await get(bus, STATUS) == 6
    assert await get(bus, ERROR) == 8 | 1 << 16


@cocotb.test(**LIMIT)
async def stream_errors(dut):
    """First code kept, all flagged, each counted, several in a cycle too; the counter saturates."""
    bus, core = await begin(dut)
    await describe(bus)
    await put(bus, CONTROL, START)
    for bit, code in enumerate(range(9, 15)):
        await core.pulse("errors", 1 << bit)
        assert await get(bus, ERROR) == code | 1 << 16
        assert await get(bus, ERROR_FLAGS) == 1 << code - 1
        await put(bus, ERROR_FLAGS, 0x3FFF)
        await put(bus, CONTROL, CLEAR)
    await core.pulse("errors", 0b101000)
    await core.pulse("errors", 0b000001, 3)
    assert await get(bus, ERROR) == 12 | 5 << 16
    assert await get(bus, ERROR_FLAGS) == 1 << 11 | 1 << 13 | 1 << 8
    await core.pulse("errors", 0b111111, 65536 // 6 + 1)
    assert await get(bus, ERROR) == 12 | 0xFFFF << 16
    assert await get(bus, STATUS) == 5
    await core.pulse("fp32_overflow")
    assert await get(bus, NUMERIC_FLAGS) == 1
    await core.pulse("fp16_saturated")
    assert await get(bus, NUMERIC_FLAGS) == 3
    await core.pulse("done")
    assert await get(bus, STATUS) == 6


@cocotb.test(**LIMIT)
async def special_values(dut):
    """Taken if the build can represent them; else refused and the old one kept."""
    bus, _ = await begin(dut)
    allowed = [{-16, -10, -3, -6, 3, 6, 10, 16, 7, 0}, {-16, -10, -3, -6, 3, 6, 10, 16, 5, 0}]
    expected = [3, -3, 6, -6, 10, -10, 16, -16]
    refusals = 0
    for value, fp4 in itertools.product(range(-128, 128), range(2)):
        index = value % 4 + 4 * fp4
        await put(bus, SPECIAL + 4 * index, value & 0xFF)
        if value in allowed[fp4]:
            expected[index] = value
        else:
            refusals += 1
        assert await get(bus, SPECIAL + 4 * index) == expected[index] & 0xFF
        assert int(getattr(dut, f"specials__{index}").value.to_signed()) == expected[index]
    assert await get(bus, ERROR) == 7 | refusals << 16


@cocotb.test(**LIMIT)
async def resets(dut):
    """Reset while a job runs: no job, nothing remembered, and the next one runs."""
    bus, core = await begin(dut)
    for _ in range(5):
        await describe(bus)
        await put(bus, SPECIAL, 7)
        await put(bus, CONTROL, START)
        await core.pulse("errors", 1)
        await reset(dut, 1)
        await RisingEdge(dut.aclk)
        assert int(dut.busy.value) == 0
        for address in (STATUS, ERROR, ERROR_FLAGS, TOKENS, CYCLES):
            assert await get(bus, address) == 0
        assert await get(bus, SPECIAL) == 3

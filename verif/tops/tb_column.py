"""cocotb tests of the column's AXI block, driven by cocotbext-axi."""

import logging
import random

import cocotb
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from sim import exchange
from verif.axi.bus import Bus, pauses, reset, start_clock

LIMIT = {"timeout_time": 20, "timeout_unit": "ms"}
STATUS, CONTROL, ERROR_FLAGS, ERROR_COUNT, IRQ_ENABLE, SPECIAL = 0x24, 0x20, 0x28, 0x2C, 0x30, 0x40
RESULT_US = 20


class Column:
    """Sources, sink and manager of the block; packets come from the pytest process."""

    def __init__(self, dut, rng: random.Random, pause: float):
        self.dut, self.rng = dut, rng
        self.vectors, self.options = exchange.vectors(), exchange.options()
        self.pes = self.options["pes"]

        def end(kind, name):
            bus = AxiStreamBus.from_prefix(dut, name)
            made = kind(bus, dut.aclk, dut.aresetn, reset_active_level=False)
            made.log.setLevel(logging.WARNING)
            if pause:
                made.set_pause_generator(pauses(random.Random(rng.random()), rng.random() * pause))
            return made

        self.weights = [end(AxiStreamSource, f"s_axis_weights{k}") for k in range(self.pes)]
        self.activations = end(AxiStreamSource, "s_axis_activations")
        self.results = end(AxiStreamSink, "m_axis_results")
        self.bus = Bus(dut, rng, pause=pause)

    def send(self, row: int) -> None:
        """Queue the packets of a row."""
        for k, source in enumerate(self.weights):
            source.send_nowait(AxiStreamFrame(self.vectors[f"w{row}_{k}"].tobytes()))
        self.activations.send_nowait(AxiStreamFrame(self.vectors[f"a{row}"].tobytes()))

    async def check(self, row: int) -> None:
        """Take the results of a row and compare; each is a packet of its own."""
        expected = self.vectors[f"y{row}"]
        marked = self.vectors[f"m{row}"]
        for _ in range(self.pes):
            frame = await with_timeout(self.results.recv(compact=False), RESULT_US, "us")
            assert len(frame.tdata) == 4, "one result per packet"
            pe = frame.tdest if isinstance(frame.tdest, int) else frame.tdest[0]
            user = frame.tuser if isinstance(frame.tuser, int) else frame.tuser[0]
            got = int.from_bytes(bytes(frame.tdata), "little")
            assert got == int(expected[pe]), f"row {row}, PE {pe}: got {got:#010x}, not {int(expected[pe]):#010x}"
            assert user == int(marked[pe]), f"row {row}, PE {pe}: mark"

    async def special_values(self, row: int) -> None:
        """Write those the row needs, and wait until the column has them."""
        for index, value in enumerate(self.vectors[f"s{row}"].tolist()):
            assert await self.bus.write(SPECIAL + 4 * index, value & 0xFF) == 0
        while (await self.bus.read(STATUS))[0]:
            pass

    def forget(self) -> None:
        for end in (*self.weights, self.activations, self.results):
            end.clear()
        for channel in (self.bus.aw, self.bus.w, self.bus.b, self.bus.ar, self.bus.r):
            channel.clear()


async def begin(dut, pause):
    column = Column(dut, random.Random(exchange.seed() + int(100 * pause)), pause)
    await start_clock(dut)
    return column


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.9])
async def rows(dut, pause):
    """Good rows, all queued at once."""
    column = await begin(dut, pause)
    good = column.options["good"]
    for row in good:
        column.send(row)
    for row in good:
        await column.check(row)
    for _ in range(200):
        await RisingEdge(dut.aclk)
    assert column.results.empty(), "a result too many"
    assert await column.bus.read(ERROR_FLAGS) == await column.bus.read(ERROR_COUNT) == (0, 0)


@cocotb.test(**LIMIT)
async def special_values(dut):
    """Values written between packets hold for the packets after; refused ones are logged and change nothing."""
    column = await begin(dut, 0.3)
    rows = column.options["special"]
    for row in rows:
        await column.special_values(row)
        column.send(row)
        await column.check(row)
    held = column.vectors[f"s{rows[-1]}"].tolist()
    for index in range(8):
        await column.bus.write(SPECIAL + 4 * index, 7)
        assert await column.bus.read(SPECIAL + 4 * index) == (held[index] & 0xFF, 0)
    assert await column.bus.read(ERROR_FLAGS) == (1 << 6, 0)
    assert await column.bus.read(ERROR_COUNT) == (8, 0)
    column.send(rows[-1])
    await column.check(rows[-1])
    # In the midst of a packet a new value waits.
    column.send(rows[-1])
    column.activations.pause = True
    column.activations.clear_pause_generator()
    column.activations.pause = False
    while not int(dut.s_axis_activations_tready.value & dut.s_axis_activations_tvalid.value):
        await RisingEdge(dut.aclk)
    column.activations.pause = True
    for _ in range(40):
        await RisingEdge(dut.aclk)
    await column.bus.write(SPECIAL, 6)
    await column.bus.write(SPECIAL, 4)
    assert await column.bus.read(STATUS) == (1, 0)
    assert await column.bus.read(SPECIAL) == (4, 0)
    column.activations.pause = False
    await column.check(rows[-1])
    assert await column.bus.read(STATUS) == (0, 0)


@cocotb.test(**LIMIT)
async def bad_rows(dut):
    """Marked, flagged, counted, signalled; the rows around them are exact."""
    column = await begin(dut, 0.4)
    await column.bus.write(IRQ_ENABLE, 1)
    good, total, flags = column.options["good"], 0, 0
    for place, (row, flag) in enumerate(column.options["bad"]):
        column.send(good[place % len(good)])
        await column.check(good[place % len(good)])
        assert (await column.bus.read(ERROR_FLAGS))[0] == flags
        column.send(row)
        await column.check(row)
        flags |= flag
        total += int(column.vectors[f"m{row}"].sum())
        assert await column.bus.read(ERROR_FLAGS) == (flags, 0)
        assert await column.bus.read(ERROR_COUNT) == (total, 0)
        assert int(dut.irq.value) == 1
    await column.bus.write(CONTROL, 1)
    assert await column.bus.read(ERROR_FLAGS) == await column.bus.read(ERROR_COUNT) == (0, 0)
    assert int(dut.irq.value) == 0


@cocotb.test(**LIMIT)
async def resets(dut):
    """Reset in the midst of packets and register accesses at random cycles, then exact rows."""
    column = await begin(dut, 0.3)
    rng, good = column.rng, column.options["good"]
    for attempt in range(10):
        for row in good:
            column.send(row)
        access = cocotb.start_soon(column.bus.write(SPECIAL + 4 * rng.randrange(8), rng.choice([4, 7])))
        for _ in range(rng.randrange(400)):
            await RisingEdge(dut.aclk)
        await reset(dut, 1 + rng.randrange(3))
        access.cancel()
        column.forget()
        row = good[attempt % len(good)]
        column.send(row)
        await column.check(row)
        assert (await column.bus.read(STATUS))[0] == 0

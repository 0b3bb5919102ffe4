"""cocotb tests of the address generator's AXI block, driven by cocotbext-axi."""

import logging
import random

import cocotb
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from sim import exchange
from verif.axi.bus import Bus, pauses, reset, start_clock

LIMIT = {"timeout_time": 20, "timeout_unit": "ms"}
BUILD, CONTROL, OPEN, ERROR_FLAGS, ERROR_COUNT, IRQ_ENABLE, FREE_BLOCKS = 8, 0x20, 0x24, 0x28, 0x2C, 0x30, 0x34
POOLS = {
    "full_base": 0x40,
    "full_areas": 0x48,
    "window_base": 0x50,
    "window_areas": 0x58,
    "block_base": 0x60,
    "blocks": 0x68,
}
ADDRESS_FLAG = 1 << 6
ANSWER_US = 50


class Generator:
    """Source, sink and manager of the block; operations and expected commands come from the pytest process."""

    def __init__(self, dut, rng: random.Random, pause: float):
        self.dut, self.rng = dut, rng
        self.vectors, self.options = exchange.vectors(), exchange.options()

        def end(kind, name):
            made = kind(AxiStreamBus.from_prefix(dut, name), dut.aclk, dut.aresetn, reset_active_level=False)
            made.log.setLevel(logging.WARNING)
            if pause:
                made.set_pause_generator(pauses(random.Random(rng.random()), rng.random() * pause))
            return made

        self.operations = end(AxiStreamSource, "s_axis_operations")
        self.commands = end(AxiStreamSink, "m_axis_commands")
        self.bus = Bus(dut, rng, pause=pause)

    async def set_pools(self, **changes) -> None:
        for name, value in (self.options["pools"] | changes).items():
            assert await self.bus.write(POOLS[name], value & 0xFFFFFFFF) == 0
            if name.endswith("_base"):
                assert await self.bus.write(POOLS[name] + 4, value >> 32) == 0

    def send(self, case: str) -> None:
        for row in self.vectors[f"{case}_i"]:
            self.operations.send_nowait(AxiStreamFrame(row.tobytes()))

    async def check(self, case: str) -> None:
        """Every command of a case, a packet per operation, bit for bit."""
        expected, lengths = self.vectors[f"{case}_o"], self.vectors[f"{case}_n"]
        first = 0
        for index, length in enumerate(lengths.tolist()):
            frame = await with_timeout(self.commands.recv(compact=False), ANSWER_US, "us")
            wanted = expected[first : first + length].tobytes()
            assert bytes(frame.tdata) == wanted, (
                f"{case}, operation {index}: {bytes(frame.tdata).hex()}, not {wanted.hex()}"
            )
            first += length
        assert first == len(expected) > 0

    async def check_status(self, case: str) -> None:
        errors, count, opened, free = (int(value) for value in self.vectors[f"{case}_s"])
        assert await self.bus.read(ERROR_FLAGS) == (errors, 0)
        assert await self.bus.read(ERROR_COUNT) == (count, 0)
        assert await self.bus.read(OPEN) == (opened, 0)
        assert await self.bus.read(FREE_BLOCKS) == (free, 0)
        assert int(self.dut.irq.value) == int(errors != 0)


async def begin(dut, pause):
    generator = Generator(dut, random.Random(exchange.seed() + int(100 * pause)), pause)
    await start_clock(dut)
    await generator.bus.write(IRQ_ENABLE, 1)
    await generator.set_pools()
    return generator


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.8])
async def cases(dut, pause):
    """Decoding as it should be, then anything in any order."""
    generator = await begin(dut, pause)
    assert await generator.bus.read(BUILD) == (generator.options["build"], 0)
    for case in ("disciplined", "wild"):
        if case == "wild":
            await reset(dut)
            await generator.bus.write(IRQ_ENABLE, 1)
            await generator.set_pools()
        generator.send(case)
        await generator.check(case)
        await generator.check_status(case)
    await generator.bus.write(CONTROL, 1)
    assert await generator.bus.read(ERROR_FLAGS) == await generator.bus.read(ERROR_COUNT) == (0, 0)
    assert int(dut.irq.value) == 0


@cocotb.test(**LIMIT)
async def pools_beyond_the_build(dut):
    """A base or a count with more bits than the build fails the OPEN; with good pools the next one is exact."""
    generator = await begin(dut, 0.3)
    generator.send("policy")
    await generator.check("policy")
    # All else zero: what is too large must be seen even if nothing lies there.
    await generator.set_pools(**dict.fromkeys(POOLS, 0))
    for name, value in generator.options["beyond"]:
        at, word = POOLS[name] + 4 * (value >> 32 != 0), value >> 32 or value
        await generator.bus.write(at, word)
        generator.send("open")
        frame = await with_timeout(generator.commands.recv(compact=False), ANSWER_US, "us")
        assert bytes(frame.tdata) == generator.vectors["refused_o"].tobytes(), f"{name} = {value:#x}"
        assert await generator.bus.read(ERROR_FLAGS) == (ADDRESS_FLAG, 0)
        await generator.bus.write(CONTROL, 1)
        await generator.bus.write(at, 0)
    await generator.set_pools()
    generator.send("disciplined")
    await generator.check("disciplined")
    await generator.check_status("disciplined")


@cocotb.test(**LIMIT)
async def resets(dut):
    """Reset at random cycles in the midst of operations, then an exact case."""
    generator = await begin(dut, 0.3)
    for _ in range(4):
        generator.send("wild")
        for _ in range(generator.rng.randrange(20, 2000)):
            await RisingEdge(dut.aclk)
        await reset(dut, 1 + generator.rng.randrange(3))
        generator.operations.clear()
        generator.commands.clear()
        await generator.bus.write(IRQ_ENABLE, 1)
        await generator.set_pools()
        generator.send("disciplined")
        await generator.check("disciplined")
        await generator.check_status("disciplined")

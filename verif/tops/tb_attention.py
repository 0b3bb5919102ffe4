"""cocotb tests of both attention cores behind AXI, driven by cocotbext-axi, which knows nothing of this project."""

import logging
import random

import cocotb
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from sim import exchange
from verif.axi.bus import OKAY, SLVERR, Bus, pauses, reset, start_clock

LIMIT = {"timeout_time": 40, "timeout_unit": "ms"}
FRAME_US = 200
CLEAR, CLEAR_COUNTERS = 1, 2


def frames(vectors, case: str, stream: str):
    """(bytes, TUSER of each byte) of each packet."""
    data, last = vectors[f"{case}/{stream}/tdata"], vectors[f"{case}/{stream}/tlast"]
    width = data.shape[1]
    user = vectors.get(f"{case}/{stream}/tuser")
    start = 0
    for end in last.nonzero()[0].tolist():
        own = slice(start, end + 1)
        users = [] if user is None else [int(u) for u in user[own].tolist() for _ in range(width)]
        yield data[own].tobytes(), users
        start = end + 1


class Core:
    """Sources, sink and manager of a core; what to send and what must come is the pytest process's."""

    def __init__(self, dut, rng: random.Random, pause: float):
        self.dut, self.rng = dut, rng
        self.vectors, self.options = exchange.vectors(), exchange.options()
        self.address = self.options["registers"]

        def end(kind, name):
            made = kind(AxiStreamBus.from_prefix(dut, name), dut.aclk, dut.aresetn, reset_active_level=False)
            made.log.setLevel(logging.WARNING)
            if pause:
                made.set_pause_generator(pauses(random.Random(rng.random()), rng.random() * pause))
            return made

        self.sources = {name: end(AxiStreamSource, name) for name in self.options["sources"]}
        self.sink = end(AxiStreamSink, self.options["sink"])
        self.bus = Bus(dut, rng, pause=pause)
        cocotb.start_soon(self._watch())

    def send(self, case: str) -> None:
        for name, source in self.sources.items():
            for data, user in frames(self.vectors, case, name):
                source.send_nowait(AxiStreamFrame(data, tuser=user or None))

    async def check(self, case: str) -> None:
        """Every packet that must come: length, TUSER, and TDATA where it is not marked."""
        for number, (data, users) in enumerate(frames(self.vectors, case, self.options["sink"])):
            frame = await with_timeout(self.sink.recv(), FRAME_US, "us")
            got = bytes(frame.tdata)
            assert len(got) == len(data), f"{case}, packet {number}: {len(got)} bytes, not {len(data)}"
            have = frame.tuser if isinstance(frame.tuser, list) else [frame.tuser] * len(got)
            assert [int(u) for u in have] == users, f"{case}, packet {number}: TUSER"
            for at, (one, wanted, user) in enumerate(zip(got, data, users, strict=True)):
                assert user & 1 or one == wanted, f"{case}, packet {number}, byte {at}: {one:#x}, not {wanted:#x}"

    async def quiet(self) -> None:
        for _ in range(200):
            await RisingEdge(self.dut.aclk)
        assert self.sink.empty(), "a packet too many"

    async def read(self, name: str) -> int:
        value, response = await self.bus.read(self.address[name])
        assert response == OKAY
        return value

    async def write(self, name: str, value: int) -> None:
        assert await self.bus.write(self.address[name], value) == OKAY

    async def check_status(self, case: str) -> None:
        wanted = self.options["cases"][case]
        assert await self.read("ERROR") == wanted["code"] | wanted["count"] << 16
        assert int(self.dut.irq.value) == int(wanted["count"] != 0)
        assert await self.read("STATUS") & 1 == 0
        assert await self.read("LISTS") == wanted["lists"]
        assert await self.read("BEATS") == wanted["beats"]
        assert 0 < await self.read("BUSY_CYCLES") < 1 << 32

    async def _watch(self):
        """TVALID and the payload stay until the transfer (a reset may drop them)."""
        dut, name, held = self.dut, self.options["sink"], None
        payload = [getattr(dut, f"{name}_{part}") for part in ("tdata", "tlast", "tuser")]
        while True:
            await RisingEdge(dut.aclk)
            if not int(dut.aresetn.value):
                held = None
                continue
            now = tuple(str(s.value) for s in payload) if int(getattr(dut, f"{name}_tvalid").value) else None
            assert held is None or now == held, f"{name} changed before the transfer"
            held = None if int(getattr(dut, f"{name}_tready").value) else now

    def forget(self) -> None:
        for end in (*self.sources.values(), self.sink):
            end.clear()


async def begin(dut, pause: float) -> Core:
    core = Core(dut, random.Random(exchange.seed() + int(100 * pause)), pause)
    await start_clock(dut)
    await core.write("IRQ_ENABLE", 1)
    return core


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.5, 0.9])
async def good_and_bad(dut, pause):
    """Lists, bad ones among them; registers and counters; a clear; then good ones only."""
    core = await begin(dut, pause)
    assert await core.read("ID") == core.options["id"]
    assert await core.read("BUILD") == core.options["build"]
    for case in core.options["cases"]:
        core.send(case)
        await core.check(case)
        await core.quiet()
        await core.check_status(case)
        await core.write("CONTROL", CLEAR | CLEAR_COUNTERS)
        for name in ("ERROR", "LISTS", "BEATS", "BUSY_CYCLES"):
            assert await core.read(name) == 0
        assert int(dut.irq.value) == 0
    assert (await core.bus.read(0xFFC))[1] == SLVERR


@cocotb.test(**LIMIT)
async def resets(dut):
    """Reset in the midst of packets at random cycles, then exact lists."""
    core = await begin(dut, 0.4)
    for _attempt in range(8):
        core.send("mixed")
        for _cycle in range(core.rng.randrange(1500)):
            await RisingEdge(dut.aclk)
        await reset(dut, 1 + core.rng.randrange(3))
        core.forget()
        await core.write("IRQ_ENABLE", 1)
        core.send("good")
        await core.check("good")
        await core.quiet()
        await core.check_status("good")


@cocotb.test(**LIMIT)
async def head_dim(dut):
    """ValueCore: HEAD_DIM takes what the build can do, between lists; then lists of that head dim are exact."""
    core = await begin(dut, 0.2)
    if "HEAD_DIM" not in core.address:
        return
    largest = core.options["build"] & 0xFF
    assert await core.read("HEAD_DIM") == largest
    for wrong in (0, 4, largest + 8, 0xF8, largest - 1):
        await core.write("HEAD_DIM", wrong)
        assert (await core.read("HEAD_DIM"), await core.read("STATUS")) == (largest, 2), f"HEAD_DIM = {wrong}"
        assert int(dut.irq.value) == 1
        await core.write("CONTROL", CLEAR)
        assert await core.read("STATUS") == int(dut.irq.value) == 0
    # Probabilities alone, packets alone: a list is under way in either case.
    for name in core.sources:
        data, user = next(frames(core.vectors, "good", name))
        core.sources[name].send_nowait(AxiStreamFrame(data, tuser=user))
        for _ in range(40):
            await RisingEdge(dut.aclk)
        assert await core.read("STATUS") == 1
        await core.write("HEAD_DIM", core.options["other"])
        assert (await core.read("HEAD_DIM"), await core.read("STATUS")) == (largest, 3)
        await reset(dut)
        core.forget()
    for case, dim in (("other", core.options["other"]), ("good", largest)):
        await core.write("HEAD_DIM", dim)
        assert (await core.read("HEAD_DIM"), await core.read("STATUS")) == (dim, 0)
        core.send(case)
        await core.check(case)
        await core.quiet()

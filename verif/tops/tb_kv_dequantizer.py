"""cocotb tests of the KV engine's AXI block, driven by cocotbext-axi."""

import logging
import random

import cocotb
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from sim import exchange
from verif.axi.bus import pauses, reset, start_clock

LIMIT = {"timeout_time": 40, "timeout_unit": "ms"}
PACKET_US = 40


class Blocks:
    """Source and sink of the block; packets and what must follow from them come from the pytest process."""

    def __init__(self, dut, rng: random.Random, pause: float):
        self.dut = dut
        self.vectors, self.options = exchange.vectors(), exchange.options()
        self.lanes = self.options["lanes"]

        def end(kind, name):
            bus = AxiStreamBus.from_prefix(dut, name)
            made = kind(bus, dut.aclk, dut.aresetn, reset_active_level=False)
            made.log.setLevel(logging.WARNING)
            if pause:
                made.set_pause_generator(pauses(random.Random(rng.random()), rng.random() * pause))
            return made

        self.source = end(AxiStreamSource, "s_axis")
        self.sink = end(AxiStreamSink, "m_axis")
        cocotb.start_soon(self._watch())

    def send(self, number: int) -> None:
        self.source.send_nowait(AxiStreamFrame(self.vectors[f"p{number}"].tobytes()))

    async def check(self, number: int) -> None:
        """Take one packet and compare every beat: TDATA where it means something, TKEEP, TUSER and the length."""
        if not len(self.vectors[f"u{number}"]):
            return  # a centre leaves nothing
        frame = await with_timeout(self.sink.recv(compact=False), PACKET_US, "us")
        width = 2 * self.lanes
        keep, user, data = (self.vectors[f"{kind}{number}"].tolist() for kind in "kud")
        got = bytes(frame.tdata)
        assert len(got) == width * len(user), f"packet {number}: {len(got) // width} beats, not {len(user)}"
        users = frame.tuser if isinstance(frame.tuser, list) else [frame.tuser] * len(got)
        for beat in range(len(user)):
            own = slice(beat * width, beat * width + width)
            marked = user[beat] & 1
            mask = 3 if marked else 0xFFFFFFFF
            assert users[own.start] & mask == user[beat] & mask, f"packet {number}, beat {beat}: TUSER"
            if not marked:
                kept = sum(bool(k) << i for i, k in enumerate(frame.tkeep[own]))
                assert kept == keep[beat], f"packet {number}, beat {beat}: TKEEP"
                size = kept.bit_length()
                assert list(got[own][:size]) == data[beat][:size], f"packet {number}, beat {beat}: TDATA"

    async def _watch(self):
        """TVALID and the payload stay until the transfer (a reset may drop them)."""
        dut, held = self.dut, None
        payload = (dut.m_axis_tdata, dut.m_axis_tkeep, dut.m_axis_tlast, dut.m_axis_tuser)
        while True:
            await RisingEdge(dut.aclk)
            if not int(dut.aresetn.value):
                held = None
                continue
            now = tuple(str(s.value) for s in payload) if int(dut.m_axis_tvalid.value) else None
            assert held is None or now == held, "m_axis changed before the transfer"
            held = None if int(dut.m_axis_tready.value) else now

    def forget(self) -> None:
        self.source.clear()
        self.sink.clear()


async def begin(dut, pause: float) -> Blocks:
    dut.error_clear.value = 0
    dut.add_centre.value = 0
    blocks = Blocks(dut, random.Random(exchange.seed() + int(100 * pause)), pause)
    await start_clock(dut)
    return blocks


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.5, 0.95])
async def good_and_bad(dut, pause):
    """All packets, queued at once; then the sticky code, the count, and a clear."""
    blocks = await begin(dut, pause)
    for number in range(blocks.options["count"]):
        blocks.send(number)
    for number in range(blocks.options["count"]):
        await blocks.check(number)
    for _ in range(200):
        await RisingEdge(dut.aclk)
    assert blocks.sink.empty(), "a packet too many"
    assert int(dut.error_code.value) == blocks.options["first_error"]
    assert int(dut.error_count.value) == blocks.options["bad"]
    dut.error_clear.value = 1
    await RisingEdge(dut.aclk)
    dut.error_clear.value = 0
    await RisingEdge(dut.aclk)
    await RisingEdge(dut.aclk)
    assert (int(dut.error_code.value), int(dut.error_count.value)) == (0, 0)


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.6])
async def centres(dut, pause):
    """Keys with the centre added, good and bad centres among them; then keys without it."""
    blocks = await begin(dut, pause)
    dut.add_centre.value = 1
    numbers = range(blocks.options["count"], blocks.options["count"] + blocks.options["centred"])
    for number in numbers:
        blocks.send(number)
    for number in numbers:
        await blocks.check(number)
    dut.add_centre.value = 0
    for number in range(3):
        blocks.send(number)
    for number in range(3):
        await blocks.check(number)


@cocotb.test(**LIMIT)
async def resets(dut):
    """Reset in the midst of packets at random cycles, then exact packets."""
    blocks = await begin(dut, 0.4)
    rng = random.Random(exchange.seed())
    for _attempt in range(20):
        for number in range(blocks.options["count"]):
            blocks.send(number)
        for _cycle in range(rng.randrange(600)):
            await RisingEdge(dut.aclk)
        await reset(dut, 1 + rng.randrange(3))
        blocks.forget()
        await RisingEdge(dut.aclk)
        assert (int(dut.error_code.value), int(dut.error_count.value)) == (0, 0)
        for number in rng.sample(range(blocks.options["count"]), 2):
            blocks.send(number)
            await blocks.check(number)

"""AXI4-Lite by its five channels, so that address, data and response come in every order and at every pace."""

import logging
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import axil_channels as channels

__all__ = ["Bus", "pauses", "start_clock"]

OKAY, SLVERR = 0, 2
PERIOD_NS = 2


def pauses(rng: random.Random, probability: float):
    """Endless choice of cycles to wait in."""
    while True:
        yield rng.random() < probability


async def start_clock(dut) -> None:
    """Clock, and a first reset."""
    cocotb.start_soon(Clock(dut.aclk, PERIOD_NS, "ns").start())
    await reset(dut)


async def reset(dut, cycles: int = 3) -> None:
    dut.aresetn.value = 0
    for _ in range(cycles):
        await RisingEdge(dut.aclk)
    dut.aresetn.value = 1


class Bus:
    """A manager for ``s_axil`` with one access under way in each direction, and the checks of a monitor.

    Responses must be held until they are taken, and none may come unasked.
    """

    def __init__(self, dut, rng: random.Random, *, pause: float = 0.0):
        self.dut, self.rng, self.pause = dut, rng, pause

        def channel(kind, bus):
            made = kind(bus.from_prefix(dut, "s_axil"), dut.aclk, dut.aresetn, reset_active_level=False)
            made.log.setLevel(logging.WARNING)
            if pause:
                made.set_pause_generator(pauses(random.Random(rng.random()), pause))
            return made

        self.aw = channel(channels.AxiLiteAWSource, channels.AxiLiteAWBus)
        self.w = channel(channels.AxiLiteWSource, channels.AxiLiteWBus)
        self.b = channel(channels.AxiLiteBSink, channels.AxiLiteBBus)
        self.ar = channel(channels.AxiLiteARSource, channels.AxiLiteARBus)
        self.r = channel(channels.AxiLiteRSink, channels.AxiLiteRBus)
        cocotb.start_soon(self._watch())

    async def write(self, address: int, data: int, strobes: int = 0xF) -> int:
        """Returns the response."""
        dut, rng = self.dut, self.rng
        address = channels.AxiLiteAWTransaction(awaddr=address, awprot=rng.randrange(8))
        word = channels.AxiLiteWTransaction(wdata=data, wstrb=strobes)
        order = [(self.aw, address), (self.w, word)]
        rng.shuffle(order)
        await order[0][0].send(order[0][1])
        for _ in range(rng.choice([0, 0, 1, 5]) if self.pause else 0):
            await RisingEdge(dut.aclk)
        await order[1][0].send(order[1][1])
        return int((await self.b.recv()).bresp)

    async def read(self, address: int) -> tuple[int, int]:
        """Returns data and response."""
        await self.ar.send(channels.AxiLiteARTransaction(araddr=address, arprot=self.rng.randrange(8)))
        answer = await self.r.recv()
        return int(answer.rdata), int(answer.rresp)

    async def _watch(self):
        dut = self.dut
        asked = {"b": 0, "r": 0}
        words = 0
        held = {"b": None, "r": None}
        while True:
            await RisingEdge(dut.aclk)
            if not int(dut.aresetn.value):
                asked, words, held = {"b": 0, "r": 0}, 0, {"b": None, "r": None}
                continue
            for name, payload in (("b", (dut.s_axil_bresp,)), ("r", (dut.s_axil_rdata, dut.s_axil_rresp))):
                valid = int(getattr(dut, f"s_axil_{name}valid").value)
                now = tuple(int(signal.value) for signal in payload) if valid else None
                assert held[name] is None or now == held[name], f"{name}: {held[name]} was not held, now {now}"
                taken = valid and int(getattr(dut, f"s_axil_{name}ready").value)
                held[name] = now if valid and not taken else None
                asked[name] -= bool(taken)
                assert asked[name] >= 0, f"{name}: a response nobody asked for"
            assert words >= 0
            asked["b"] += int(dut.s_axil_awvalid.value) and int(dut.s_axil_awready.value)
            words += int(dut.s_axil_wvalid.value) and int(dut.s_axil_wready.value)
            asked["r"] += int(dut.s_axil_arvalid.value) and int(dut.s_axil_arready.value)

"""The C driver on the simulated core: it runs in a thread, its platform is cocotb.

Memory is as unkind as the interface allows: what the driver does not clean its DMA does not see, and results that it
does not invalidate it does not see itself.
"""

import ctypes
import logging
import random

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, First, RisingEdge
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSource

from sim import exchange
from verif.axi.bus import OKAY, PERIOD_NS, Bus, pauses, start_clock
from verif.core.driver import Counters, Device, Image, Job, Platform, load_driver

START, CONTROL = 1, 0x20
STREAMS = ("weights", "activations")
CLOCK_START = 0xFFFF_FF00
"""What the driver's clock begins with: it wraps in the first job."""


class Machine:
    """The platform: registers, two DMA channels out and one in, memory behind caches; ``fault`` is what goes wrong."""

    def __init__(self, dut, rng: random.Random, *, sleeps: bool):
        self.dut, self.rng, self.fault = dut, rng, None
        self.bus = Bus(dut, rng, pause=0.2)
        self.sources = {name: self.source(f"s_axis_{name}") for name in STREAMS}
        self.received, self.target, self.memory = bytearray(), None, {}
        self.cleaned, self.asked, self.listening = False, 0, True
        functions = {"read": self.read, "write": self.write, "poll": self.poll, "settle": self.settle}
        functions |= {"sleep": self.sleep} if sleeps else {}
        plain = {"now": self.now, "clean": self.clean, "barrier": self.barrier, "invalidate": self.invalidate}
        plain |= {"send": self.send, "receive": self.receive}
        waiting = {name: resume(call) for name, call in functions.items()}
        self.platform = Platform.of(**waiting, **plain)

    async def check(self):
        """After every call of the driver."""
        await ClockCycles(self.dut.aclk, 8)
        if self.platform.raised:
            raise self.platform.raised[0]
        assert not int(self.dut.irq.value), "an interrupt that nobody acknowledges"

    def source(self, name: str) -> AxiStreamSource:
        bus = AxiStreamBus.from_prefix(self.dut, name)
        source = AxiStreamSource(bus, self.dut.aclk, self.dut.aresetn, reset_active_level=False)
        source.log.setLevel(logging.WARNING)
        source.set_pause_generator(pauses(random.Random(self.rng.random()), 0.2))
        return source

    async def take_results(self):
        """The DMA channel in: the bytes that TKEEP names."""
        dut, ready = self.dut, self.dut.m_axis_results_tready
        while True:
            ready.value = int(self.listening and self.rng.random() < 0.8)
            await RisingEdge(dut.aclk)
            if int(ready.value) and int(dut.m_axis_results_tvalid.value):
                keep = int(dut.m_axis_results_tkeep.value)
                data = int(dut.m_axis_results_tdata.value)
                self.received += bytes(data >> 8 * k & 255 for k in range(keep.bit_length()))

    async def read(self, offset):
        value, response = await self.bus.read(offset)
        assert response == OKAY
        return value

    async def write(self, offset, value):
        assert not (offset == CONTROL and value & START and self.cleaned), "a start without a barrier behind the caches"
        assert await self.bus.write(offset, value) == OKAY

    def now(self):
        return (CLOCK_START + int(get_sim_time("ns")) // PERIOD_NS) & 0xFFFF_FFFF

    async def sleep(self, ticks):
        if not int(self.dut.irq.value):
            await First(RisingEdge(self.dut.irq), ClockCycles(self.dut.aclk, ticks))

    def clean(self, address, size):
        self.memory[address], self.cleaned = ctypes.string_at(address, size), True

    def barrier(self):
        self.cleaned = False

    def invalidate(self, address, size):
        ctypes.memmove(address, self.memory.get(address, bytes([0xA5]) * size), size)

    def send(self, stream, image, first, count):
        self.asked += 1
        if self.fault == "send" and self.asked == 4:
            return -1
        if self.fault == "full" and self.asked % 3:
            return 1
        image, name = image.contents, STREAMS[stream]
        ends = np.ctypeslib.as_array(ctypes.cast(image.end, ctypes.POINTER(ctypes.c_uint32)), (image.packets,)) + 1
        data = self.memory[image.bytes]
        width = len(data) // int(ends[-1])
        for packet in range(first, first + count):
            start = int(ends[packet - 1]) if packet else 0
            self.sources[name].send_nowait(AxiStreamFrame(data[width * start : width * int(ends[packet])]))
        if self.fault == "hold" and name == "activations":
            self.sources[name].clear_pause_generator()
            self.sources[name].pause = True
        return 0

    def receive(self, address, size):
        self.received.clear()
        self.target, self.asked, self.listening = (address, size), 0, self.fault != "deaf"
        self.memory.pop(address, None)
        return 0

    async def poll(self):
        await RisingEdge(self.dut.aclk)
        if self.fault == "poll":
            return -1
        address, size = self.target
        if len(self.received) > size:
            return -1
        if len(self.received) < size or not all(source.idle() for source in self.sources.values()):
            return 1
        self.memory[address] = bytes(self.received)
        return 0

    async def settle(self):
        """Packets that wait are dropped, those that have begun end; so do results."""
        if self.fault == "stuck":
            return -1
        self.listening = True
        for source in self.sources.values():
            source.clear()
            source.pause = False
        for source in self.sources.values():
            while not source.idle():
                await RisingEdge(self.dut.aclk)
        await ClockCycles(self.dut.aclk, 20)
        return 0


def image_of(vectors, name: str) -> tuple[Image, list]:
    """An image in memory of its own, and what keeps it there."""
    data, ends = vectors[name], vectors[f"{name}.ends"].astype(np.uint32)
    return Image(data.ctypes.data, data.size, ends.ctypes.data, len(ends)), [data, ends]


@cocotb.test(timeout_time=40, timeout_unit="ms")
async def driver(dut):
    """The steps of the test, one call of the driver each: what it returned, its results and its counters."""
    vectors, options = exchange.vectors(), exchange.options()
    machine = Machine(dut, random.Random(exchange.seed()), sleeps=options["sleeps"])
    await start_clock(dut)
    cocotb.start_soon(machine.take_results())
    library, device, codes = load_driver(options["library"]), Device(), []

    def play():
        codes.append(library.bitmosaic_open(ctypes.byref(device), ctypes.byref(machine.platform), 1000))
        exchange.save(device=np.array([getattr(device, name) for name, _ in Device._fields_[1:]]))
        for number, step in enumerate(options["steps"]):
            machine.fault = step.get("fault")
            if "specials" in step:
                values = (ctypes.c_int8 * 8)(*step["specials"])
                codes.append(library.bitmosaic_set_specials(ctypes.byref(device), values))
                resume(machine.check)()
                continue
            images = [image_of(vectors, f"{step['job']}.{name}") for name in STREAMS]
            results = np.zeros(step["size"], np.uint8)
            kept = [image for image, _ in images]
            job = Job(*step["registers"], *kept, results.ctypes.data, results.size, step["ticks"])
            codes.append(library.bitmosaic_run(ctypes.byref(device), ctypes.byref(job)))
            resume(machine.check)()
            counters = Counters()
            library.bitmosaic_read_counters(ctypes.byref(device), ctypes.byref(counters))
            row = np.array([getattr(counters, name) for name, _ in Counters._fields_], np.uint64)
            exchange.save(**{f"{number}.results": results, f"{number}.counters": row})

    await bridge(play)()
    exchange.save(codes=np.array(codes))

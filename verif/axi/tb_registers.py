"""cocotb tests of a register block: everything its SystemRDL file promises, over AXI4-Lite."""

import random

import cocotb
from cocotb.triggers import ReadOnly, RisingEdge, Timer
from cocotbext.axi import AxiLiteBus, AxiLiteMaster
from cocotbext.axi.axil_channels import AxiLiteARTransaction, AxiLiteAWTransaction, AxiLiteWTransaction

from sim import exchange
from verif.axi.bus import SLVERR, Bus, reset, start_clock
from verif.axi.model import WINDOW, RegisterModel

LIMIT = {"timeout_time": 4, "timeout_unit": "ms"}


class Surroundings:
    """The hardware around the registers: drives its inputs, watches its outputs."""

    def __init__(self, dut, model: RegisterModel, rng: random.Random):
        self.dut, self.model, self.rng = dut, model, rng
        self.seen: dict[str, int] = {}
        self.locks = sorted({f["lock"] for r in model.registers for f in r["fields"]} - {""})
        for register, field in model.of_kind("sticky"):
            self.port(register, field, "set").value = 0
        for register, field in model.of_kind("counter"):
            self.port(register, field, "increment").value = 0
            self.port(register, field, "clear").value = 0
        for lock in self.locks:
            self.drive(lock, 0)
        self.drive_all()

    def port(self, register, field, part=None):
        return getattr(self.dut, "__".join(filter(None, (register["name"], field["name"], part))))

    def drive(self, port: str, value: int) -> None:
        getattr(self.dut, port).value = value
        self.model.hardware[port] = value

    def drive_all(self) -> None:
        """New values for whatever is read as it is."""
        for register in self.model.registers:
            if register["external"]:
                self.drive(f"{register['name']}__value", self.rng.getrandbits(register["width"]))
                continue
            for field in register["fields"]:
                if field["driven"]:
                    self.drive(f"{register['name']}__{field['name']}", self.rng.getrandbits(field["width"]))

    async def happen(self) -> None:
        """One cycle or more of events."""
        rng, model = self.rng, self.model
        self.drive_all()
        times = rng.choice([1, 1, 2, 7])
        active = []
        for register, field in model.of_kind("sticky"):
            bits = rng.getrandbits(field["width"]) & rng.getrandbits(field["width"])
            active.append((self.port(register, field, "set"), bits))
            model.set_sticky(register, field, bits)
        for register, field in model.of_kind("counter"):
            step = rng.getrandbits(field["step"]) if rng.random() < 0.5 else 0
            if rng.random() < 0.1:  # cleared in one cycle, with an increment in the same
                self.port(register, field, "clear").value = 1
                self.port(register, field, "increment").value = step
                await RisingEdge(self.dut.aclk)
                model.state[register["name"], field["name"]] = step
                self.port(register, field, "clear").value = 0
                self.port(register, field, "increment").value = 0
                continue
            active.append((self.port(register, field, "increment"), step))
            model.count(register, field, step, times)
        for port, value in active:
            port.value = value
        for _ in range(times):
            await RisingEdge(self.dut.aclk)
        for port, _ in active:
            port.value = 0

    async def watch(self) -> None:
        """Count cycles of every strobe, and compare registers that the hardware sees."""
        strobes = ["refused"] + [f"{r['name']}__{f['name']}" for r, f in self.model.of_kind("pulse")]
        strobes += [f"{r['name']}__write" for r in self.model.registers if r["external"]]
        strobes = [name for name in strobes if hasattr(self.dut, name)]
        self.seen = dict.fromkeys(strobes, 0)
        while True:
            await RisingEdge(self.dut.aclk)
            for name in strobes:
                if int(getattr(self.dut, name).value) and int(self.dut.aresetn.value):
                    self.seen[name] += 1
                    if name.endswith("__write"):
                        ports = (getattr(self.dut, name[:-5] + part) for part in ("data", "strobes"))
                        self.external = name, *(int(port.value) for port in ports)

    def check_registers(self) -> None:
        for register in self.model.registers:
            for field in register["fields"] if not register["external"] else ():
                expected = self.model.state[register["name"], field["name"]]
                if field["writable"] and not field["pulse"]:
                    port = self.port(register, field, "value" if field["sticky"] else None)
                    assert int(port.value) == expected, f"{register['name']}.{field['name']} beside the bus"


async def begin(dut, pause: float):
    rng = random.Random(exchange.seed() * 7919 + int(pause * 100))
    model = RegisterModel(exchange.options()["registers"])
    around = Surroundings(dut, model, rng)
    bus = Bus(dut, rng, pause=pause)
    cocotb.start_soon(around.watch())
    await start_clock(dut)
    return rng, model, around, bus


async def write(model, around, bus, address, data, strobes) -> None:
    """Write and compare response, strobes beside the bus, and registers."""
    around.seen = {name: 0 for name in around.seen}
    before = dict(around.seen)
    await_pulses = around.seen
    response, pulses, refused = model.write(address, data, strobes)
    assert await bus.write(address, data, strobes) == response, f"response to a write at {address:#x}"
    for _ in range(2):
        await RisingEdge(bus.dut.aclk)
    expected = before | dict.fromkeys(pulses, 1) | ({"refused": 1} if refused else {})
    if address in model.words and model.words[address][0]["external"]:
        name = f"{model.words[address][0]['name']}__write"
        expected[name] = 1
        assert around.external == (name, data, strobes)
    assert await_pulses == expected, f"strobes of a write at {address:#x}"
    around.check_registers()


async def read(model, bus, address) -> None:
    got = await bus.read(address)
    expected = model.read(address)
    assert got == expected, f"read at {address:#x}: got {got[0]:#x}, {got[1]}, not {expected[0]:#x}, {expected[1]}"


@cocotb.test(**LIMIT)
async def reset_values(dut):
    """Every address of the window, mapped or not, straight after a reset of a device that powered up with garbage."""
    _rng, model, _around, bus = await begin(dut, 0)
    for address in range(0, WINDOW, 4):
        got = await bus.read(address)
        if address in model.words and model.words[address][1]:
            model.read(address - 4)
        assert got == model.read(address), f"{address:#x}"


@cocotb.test(**LIMIT)
async def every_field(dut):
    """Each writable register takes ones, zeros and patterns; each read-only one ignores them."""
    rng, model, around, bus = await begin(dut, 0)
    for register in model.registers:
        for offset in range(0, register["width"] // 8, 4):
            for data in (0xFFFFFFFF, 0, 0x55555555, 0xAAAAAAAA, rng.getrandbits(32)):
                await around.happen()
                await write(model, around, bus, register["address"] + offset, data, 0xF)
                await read(model, bus, register["address"])
                await read(model, bus, register["address"] + offset)


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.4, 0.8])
async def random_accesses(dut, pause):
    """Reads, writes with strobes, unmapped and misaligned addresses, locks and events in random order."""
    rng, model, around, bus = await begin(dut, pause)
    mapped = sorted(model.words)
    for _ in range(exchange.options()["accesses"]):
        if rng.random() < 0.3:
            await around.happen()
        if rng.random() < 0.1 and around.locks:
            around.drive(rng.choice(around.locks), rng.randrange(2))
        address = rng.choice(mapped)
        if rng.random() < 0.15:
            address = rng.choice([rng.randrange(WINDOW), address + rng.randrange(1, 4)]) % WINDOW
        if rng.random() < 0.5:
            await write(model, around, bus, address, rng.getrandbits(32), rng.choice([0xF, 0xF, rng.randrange(16)]))
        else:
            await read(model, bus, address)


@cocotb.test(**LIMIT)
async def counters_saturate(dut):
    _rng, model, around, bus = await begin(dut, 0)
    for register, field in model.of_kind("counter"):
        step = (1 << field["step"]) - 1
        cycles = (1 << field["width"]) // step + 2
        if cycles > 20_000:
            continue
        port = around.port(register, field, "increment")
        port.value = step
        for _ in range(cycles):
            await RisingEdge(dut.aclk)
        port.value = 0
        model.count(register, field, step, cycles)
        assert model.state[register["name"], field["name"]] == (1 << field["width"]) - 1
        for offset in range(0, register["width"] // 8, 4):
            await read(model, bus, register["address"] + offset)


@cocotb.test(**LIMIT)
async def events_win(dut):
    """A sticky bit that is set and cleared in the same cycle stays set."""
    _rng, model, around, bus = await begin(dut, 0)
    for register, field in model.of_kind("sticky"):
        full = (1 << field["width"]) - 1
        around.port(register, field, "set").value = full
        await RisingEdge(dut.aclk)
        clearing = cocotb.start_soon(bus.write(register["address"], 0xFFFFFFFF))
        while not clearing.done():
            await RisingEdge(dut.aclk)
            held = int(around.port(register, field, "value").value)
            assert held == full, f"{register['name']}.{field['name']} was cleared while it is set"
        around.port(register, field, "set").value = 0
        model.set_sticky(register, field, full)
        for other in register["fields"]:
            if other is not field and other["clears"]:
                model.state[register["name"], other["name"]] = 0
            elif other["writable"] and not other["pulse"] and not other["clears"]:
                model.state[register["name"], other["name"]] = (1 << other["width"]) - 1
        await read(model, bus, register["address"])


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.5])
async def concurrent(dut, pause):
    """Reads and writes under way at the same time, of registers that do not depend on each other."""
    rng, model, _around, bus = await begin(dut, pause)
    fixed = [r for r in model.registers if not any(f["writable"] for f in r["fields"]) and r["width"] == 32]
    plain = [
        (r, sum(((1 << f["width"]) - 1) << f["low"] for f in r["fields"]))
        for r in model.registers
        if not r["external"] and all(f["writable"] and not f["clears"] and not f["pulse"] for f in r["fields"])
    ]

    async def writer():
        for _ in range(150):
            register, _mask = rng.choice(plain)
            data, strobes = rng.getrandbits(32), rng.randrange(16)
            response, _, _ = model.write(register["address"], data, strobes)
            assert await bus.write(register["address"], data, strobes) == response

    async def reader():
        for _ in range(150):
            await read(model, bus, rng.choice(fixed)["address"])

    tasks = [cocotb.start_soon(writer()), cocotb.start_soon(reader())]
    for task in tasks:
        await task
    for register, _mask in plain:
        await read(model, bus, register["address"])


@cocotb.test(**LIMIT)
@cocotb.parametrize(pause=[0.0, 0.6])
async def queued(dut, pause):
    """A manager that does not wait for responses: all of them come, in order."""
    rng, model, _around, bus = await begin(dut, pause)
    addresses = [rng.choice([rng.choice(sorted(model.words)), rng.randrange(WINDOW)]) for _ in range(150)]
    expected = []
    for address in addresses:
        data, strobes = rng.getrandbits(32), rng.randrange(16)
        expected.append(model.write(address, data, strobes)[0])
        bus.aw.send_nowait(AxiLiteAWTransaction(awaddr=address, awprot=0))
        bus.w.send_nowait(AxiLiteWTransaction(wdata=data, wstrb=strobes))
    assert [int((await bus.b.recv()).bresp) for _ in addresses] == expected
    for address in addresses:
        bus.ar.send_nowait(AxiLiteARTransaction(araddr=address, arprot=0))
    answers = [await bus.r.recv() for _ in addresses]
    assert [(int(answer.rdata), int(answer.rresp)) for answer in answers] == [model.read(a) for a in addresses]


@cocotb.test(**LIMIT)
async def resets(dut):
    """Reset in the midst of accesses: afterwards everything is as after power-up, and nothing answers late."""
    rng, model, around, bus = await begin(dut, 0.3)
    writable = [r["address"] for r in model.registers if any(f["writable"] for f in r["fields"])]
    for _ in range(25):
        tasks = []
        if rng.random() < 0.8:
            tasks.append(cocotb.start_soon(bus.write(rng.choice(writable), rng.getrandbits(32))))
        if rng.random() < 0.8:
            tasks.append(cocotb.start_soon(bus.read(rng.choice(sorted(model.words)))))
        for _ in range(rng.randrange(12)):
            await RisingEdge(dut.aclk)
        await reset(dut, 1 + rng.randrange(3))
        for task in tasks:
            task.cancel()
        for channel in (bus.aw, bus.w, bus.b, bus.ar, bus.r):
            channel.clear()
        model.reset()
        for register in model.registers:
            await read(model, bus, register["address"])
        await write(model, around, bus, rng.choice(writable), rng.getrandbits(32), 0xF)


@cocotb.test(**LIMIT)
async def no_combinational_paths(dut):
    """No output of the bus follows an input within a cycle."""
    rng, _model, _around, _bus = await begin(dut, 0)
    inputs = ("awaddr", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arvalid", "rready")
    outputs = ("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")
    for _ in range(300):
        await RisingEdge(dut.aclk)
        await Timer(100, "ps")
        values = None
        for _ in range(2):
            for name in inputs:
                port = getattr(dut, f"s_axil_{name}")
                port.value = rng.getrandbits(len(port))
            await Timer(100, "ps")
            await ReadOnly()
            now = [int(getattr(dut, f"s_axil_{name}").value) for name in outputs]
            assert values in (None, now)
            values = now
            await Timer(100, "ps")


@cocotb.test(**LIMIT)
async def as_a_manager_would(dut):
    """cocotbext-axi's own manager: words and parts of words."""
    rng = random.Random(exchange.seed())
    model = RegisterModel(exchange.options()["registers"])
    Surroundings(dut, model, rng)
    manager = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.aclk, dut.aresetn, reset_active_level=False)
    await start_clock(dut)
    for address in sorted(model.words):
        register, shift = model.words[address]
        if not shift:
            assert (await manager.read(address, 4)).data == model.read(address)[0].to_bytes(4, "little")
        if any(field["writable"] for field in register["fields"]):
            data = rng.randbytes(rng.randrange(1, 5))
            model.write(address, int.from_bytes(data, "little"), (1 << len(data)) - 1)
            assert (await manager.write(address, data)).resp == 0
            assert (await manager.read(address, 4)).data == model.read(address)[0].to_bytes(4, "little")
    unmapped = next(address for address in range(0, WINDOW, 4) if address not in model.words)
    assert (await manager.read(unmapped, 4)).resp == SLVERR

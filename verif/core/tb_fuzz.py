"""cocotb side of :mod:`verif.core.fuzz`: plays scenarios, and leaves what came back."""

import cocotb
import numpy as np

from hosts.core import LITE
from sim import exchange
from sim.bench import Bench
from sim.streams import StreamError

PATIENCE = 6000
"""Cycles without a transfer on any stream after which the core hangs."""
QUIET = 150
"""Cycles to watch for surplus results."""
CONTROL, STATUS, ABORT = 0x20, 0x24, 2
STATUS_WORDS = (0x24, 0x28, 0x2C, 0x30, 0x38, 0x80, 0x84, 0x88, 0x8C, 0x90, 0x94, 0x98, 0x9C)


class Player:
    """Plays scenarios on one bench."""

    def __init__(self, dut):
        self.dut, self.bench, self.saved = dut, Bench(dut), {}
        self.dropping = False

    async def serve(self, finished, what: str) -> None:
        """Let the streams go on until ``finished()``; an error if they come to a halt."""
        bench = self.bench
        moved, since = -1, bench.cycle
        while not finished():
            await bench.run(8)
            now = sum(len(stream.cycles) for stream in bench.streams)
            if now != moved:
                moved, since = now, bench.cycle
            elif bench.cycle - since > PATIENCE:
                raise StreamError(f"{what}: nothing has moved for {PATIENCE} cycles: {bench.progress()}")

    async def access(self, writes=(), reads=()) -> tuple[list[int], list[tuple[int, int]]]:
        """Write (address, value, strobes), then read; responses, and (data, response). Other streams go on."""
        bench, responses, words = self.bench, [], []
        if writes:
            address, value, strobes = (np.array(column, np.uint64) for column in zip(*writes, strict=True))
            aw = {"s_axil_awaddr": address, "s_axil_awprot": np.zeros(len(writes), np.uint64)}
            w = {"s_axil_wdata": value, "s_axil_wstrb": strobes}
            found = await self._exchange({"s_axil_aw": aw, "s_axil_w": w}, "s_axil_b", len(writes))
            responses = found["s_axil_bresp"].tolist()
        if len(reads):
            ar = {"s_axil_araddr": np.array(reads, np.uint64), "s_axil_arprot": np.zeros(len(reads), np.uint64)}
            found = await self._exchange({"s_axil_ar": ar}, "s_axil_r", len(reads))
            words = list(zip(found["s_axil_rdata"].tolist(), found["s_axil_rresp"].tolist(), strict=True))
        assert bench.cycle
        return responses, words

    async def _exchange(self, sources, sink: str, count: int):
        bench = self.bench
        for name, beats in sources.items():
            bench.source(name, beats, wires=LITE[name])
        taken = bench.sink(sink, count, wires=LITE[sink])
        await self.serve(lambda: taken.done, "registers")
        for name in sources:
            bench.sources.pop(name).pause()
        bench.sinks.pop(sink).pause()
        return taken.received

    async def words(self, address: int) -> int:
        _, ((word, response),) = await self.access(reads=[address])
        assert response == 0
        return word

    async def idle(self, what: str) -> None:
        """Wait until STATUS.busy is 0."""
        for _ in range(300):
            if not await self.words(STATUS) & 1:
                return
        raise StreamError(f"{what}: still busy")

    async def play(self, number: int, options: dict) -> None:
        bench, what = self.bench, f"scenario {number} ({options['kind']})"
        for address, value, strobes, response in options["prelude"]:
            if value is None:
                _, ((_word, found),) = await self.access(reads=[address])
            else:
                (found,), _ = await self.access(writes=[(address, value, strobes)])
            assert found == response, f"{what}: address {address:#x} answered {found}, not {response}"
        for name, code, writes in options["refused"]:
            await self.access(writes=[(*write, 15) for write in writes])
            assert await self.words(STATUS) == 4, f"{what}: start with {name} not refused"
            error, flags = await self.words(0x28), await self.words(0x2C)
            assert (error & 0xFF, flags) == (code, 1 << code - 1), f"{what}: {name}: error {error:#x}, flags {flags:#x}"

        vectors = exchange.vectors()
        beats = {
            name: {part: vectors[f"{number}/{name}/{part}"] for part in ("tdata", "tlast")}
            for name in ("s_axis_weights", "s_axis_activations")
        }
        held = options["held"]
        common = {"burst": options["burst"], "salt": number}
        total = options["results"] if options["kind"] == "run" else None
        results = bench.sink("m_axis_results", total, stall=options["stall"], **common)
        if self.dropping:  # until the start: what was sent before it would be lost
            responses, _ = await self.access(writes=[(*write, 15) for write in options["writes"]])
        for name, parts in beats.items():
            now = {part: array[: len(array) - held * name.endswith("weights")] for part, array in parts.items()}
            bench.source(name, now, idle=options["idle"][name], **common)
        if not self.dropping:
            responses, _ = await self.access(writes=[(*write, 15) for write in options["writes"]])
        self.dropping = options["kind"] == "abort"
        assert not any(responses), what

        if options["kind"] == "reset":
            await bench.run(options["stop"])
            received = results.received
            await bench.reset(1 + number % 3)
            bench.sources.clear()
            bench.sinks.clear()
            _, words = await self.access(reads=[0x24, 0x28, 0x2C, 0x40, 0xC0])
            assert [word for word, _ in words] == [0, 0, 0, 0, 3], f"{what}: registers {words}"
        else:
            if options["kind"] == "abort":
                await bench.run(options["stop"])
                await self.access(writes=[(CONTROL, ABORT, 15)])
                await self.idle(what)
            for address, value in options["disturbances"]:
                if value is None:
                    await self.access(reads=[address])
                else:
                    await self.access(writes=[(address, value, 15)])
            if held:
                await self.serve(lambda: bench.sources["s_axis_weights"].done, what)
                rest = {part: array[len(array) - held :] for part, array in beats["s_axis_weights"].items()}
                bench.sources.pop("s_axis_weights").pause()
                bench.source("s_axis_weights", rest, idle=options["idle"]["s_axis_weights"], **common)
            sources = list(bench.sources.values())
            await self.serve(lambda: all(source.done for source in sources), f"{what}, inputs")
            if total is not None:
                await self.serve(lambda: results.done, f"{what}, results")
            await bench.run(QUIET)
            await self.idle(what)
            received = results.received
            bench.sources.clear()
            bench.sinks.clear()
            results.pause()
            self.saved[f"{number}/irq"] = np.int64(int(self.dut.irq.value))
            _, words = await self.access(reads=STATUS_WORDS)
            self.saved[f"{number}/status"] = np.array([word for word, _ in words], np.int64)
        self.saved |= {f"{number}/results/{part}": array for part, array in received.items()}


@cocotb.test()
async def scenarios(dut):
    player = Player(dut)
    for name in ("aw", "w", "ar"):
        getattr(dut, f"s_axil_{name}valid").value = 0
    for name in ("b", "r"):
        getattr(dut, f"s_axil_{name}ready").value = 0
    dut.s_axis_weights_tvalid.value = dut.s_axis_activations_tvalid.value = dut.m_axis_results_tready.value = 0
    await player.bench.reset()
    for number, options in enumerate(exchange.options()["scenarios"]):
        try:
            await player.play(number, options)
        except AssertionError as error:  # what comes after it would tell nothing
            player.saved["halt"] = np.array(f"scenario {number}: {error}")
            break
    exchange.save(**player.saved)

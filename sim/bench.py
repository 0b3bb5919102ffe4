"""Clock, reset and streams of one design, served together.

One callback per rising edge serves every stream, on raw simulator handles: a coroutine per stream and value objects
cost 5 to 50 times more. What is sampled at an edge is the value from before it; what is written appears after it.
"""

import zlib

import cocotb
import numpy as np
from cocotb import simulator
from cocotb.clock import Clock
from cocotb.triggers import Timer

from sim import exchange
from sim.ports import QUIET, UNKNOWN, UnknownError, Wires, flag_writer, known_flag, late_writes
from sim.streams import Sink, Source, StreamError

__all__ = ["Bench"]

PERIOD_NS = 2
WATCH = 1024
"""Cycles between looks at whether anything still moves."""


class Bench:
    """Clock, reset and streams of one design.

    Parameters
    ----------
    dut : cocotb handle of the top
    seed : int
        Everything random in the bench follows from it. Default: the seed of the run.
    clock, reset : str
        Port names; default ``clk`` and ``rst``, or else ``aclk`` and ``aresetn``. A reset in ``n`` is active low.
    """

    def __init__(self, dut, *, seed: int | None = None, clock: str | None = None, reset: str | None = None):
        # In this order: a simulator may show the inner clk and rst of an AXI block, too.
        clock = clock or ("aclk" if hasattr(dut, "aclk") else "clk")
        reset = reset or ("aresetn" if hasattr(dut, "aresetn") else "rst")
        self.dut = dut
        self.seed = exchange.seed() if seed is None else seed
        self.sources: dict[str, Source] = {}
        self.sinks: dict[str, Sink] = {}
        self.cycle = 0
        self._clock = getattr(dut, clock)
        self._reset = flag_writer(getattr(dut, reset))
        self._active = 0 if reset.endswith("n") else 1
        self._started = False
        # An interrupt has no handshake: in a four-state simulator it is looked at in every cycle.
        self._irq = known_flag(dut.irq, "irq") if UNKNOWN and hasattr(dut, "irq") else None
        for name in QUIET:
            getattr(dut, name).value = 0

    def rng(self, name: str, salt: int = 0) -> np.random.Generator:
        """A random generator of its own for ``name`` and ``salt``."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), salt])

    def source(
        self, name: str, beats, *, idle=None, burst: float = 1.0, wires: Wires | None = None, salt: int = 0
    ) -> Source:
        """Send ``beats`` into stream ``name``; ``idle`` and ``burst`` as in :func:`sim.streams.pattern`.

        ``wires`` (:class:`sim.streams.Wires`) names ports that are not named after the stream; ``salt`` gives a stream
        that is set up again patterns of its own.
        """
        rng = self.rng(name, salt)
        self.sources[name] = Source(self.dut, name, beats, idle=idle, burst=burst, wires=wires, rng=rng)
        return self.sources[name]

    def sink(
        self,
        name: str,
        total: int | None = None,
        *,
        stall=None,
        burst: float = 1.0,
        wait_for_valid: bool = False,
        wires: Wires | None = None,
        salt: int = 0,
    ) -> Sink:
        """Take beats from stream ``name``.

        Parameters
        ----------
        total : int or None
            How many; more is an error. None: any number, and :meth:`drain` does not wait for them.
        stall, burst
            Back-pressure, as in :func:`sim.streams.pattern`.
        wait_for_valid : bool
            Raise ready only after valid was seen, which hangs a design whose valid waits for ready.
        wires : Wires
            Ports that are not named after the stream.
        salt : int
            Gives a stream that is set up again patterns of its own.
        """
        rng = self.rng(name, salt)
        options = {"stall": stall, "burst": burst, "wait_for_valid": wait_for_valid, "wires": wires}
        self.sinks[name] = Sink(self.dut, name, total, **options, rng=rng)
        return self.sinks[name]

    @property
    def streams(self) -> list[Source | Sink]:
        return [*self.sources.values(), *self.sinks.values()]

    async def _write_late(self) -> None:
        while True:
            await self._clock.falling_edge
            for port, value in late_writes:
                port.value = value
            late_writes.clear()

    def _steps(self) -> list:
        steps = [stream.step for stream in self.streams]
        return [*steps, lambda _cycle: self._irq()] if self._irq else steps

    async def reset(self, cycles: int = 2) -> None:
        """Reset for ``cycles`` cycles with garbage on every stream, then rewind all streams."""
        rng = self.rng("reset", self.cycle)
        if not self._started:
            Clock(self._clock, PERIOD_NS, "ns").start()
            if UNKNOWN:
                cocotb.start_soon(self._write_late())
            self._started = True
        self._reset(self._active)
        for _ in range(cycles):
            for stream in self.streams:
                stream.scramble(rng)
            await self._clock.rising_edge
            exchange.count_cycles(1)
            self.cycle += 1
        self._reset(1 - self._active)
        for stream in self.streams:
            stream.rewind()

    async def run(self, cycles: int) -> None:
        """Serve the streams for exactly ``cycles`` cycles."""
        steps = self._steps()
        edge = self._clock.rising_edge
        for _ in range(cycles):
            await edge
            for step in steps:
                step(self.cycle)
            self.cycle += 1
        exchange.count_cycles(cycles)

    async def drain(self, *, patience: int = 20_000, tail: int = 64) -> int:
        """Serve the streams until every source and sink is done, then ``tail`` cycles more to catch surplus beats.

        Returns the number of cycles it took, tail excluded. Raises `StreamError` when a stream breaks its rules or
        sends too much, or when nothing has moved on any stream for ``patience`` cycles.
        """
        start = self.cycle
        steps, waiting = self._steps(), self.streams
        handle, register, rising = self._clock._handle, simulator.register_value_change_callback, simulator.RISING
        finished: int | None = None
        running = True
        error: BaseException | None = None
        moved, moved_at = -1, start

        def watch(cycle: int) -> None:
            nonlocal moved, moved_at
            transfers = sum(len(stream.cycles) for stream in self.streams)
            if transfers != moved:
                moved, moved_at = transfers, cycle
            elif cycle - moved_at >= patience:
                raise StreamError(f"nothing has moved for {cycle - moved_at} cycles: {self.progress()}")

        def tick() -> None:
            nonlocal finished, running, error
            cycle = self.cycle
            try:
                for step in steps:
                    step(cycle)
                while waiting and waiting[-1].done:
                    waiting.pop()
                self.cycle = cycle = cycle + 1
                if finished is None:
                    if not waiting:
                        finished = cycle - start
                    elif not cycle % WATCH:
                        watch(cycle)
                elif cycle - start >= finished + tail:
                    running = False
            except BaseException as caught:
                error = UnknownError(f"cycle {cycle}: {caught}") if isinstance(caught, UnknownError) else caught
                running = False
            if running:
                register(handle, tick, rising)
            else:
                for stream in self.streams:
                    stream.pause()

        register(handle, tick, rising)
        while running:
            await Timer(16 * PERIOD_NS, "ns")
        exchange.count_cycles(self.cycle - start)
        if error is not None:
            raise error
        return finished

    def progress(self) -> str:
        """How far each stream has come."""
        sent = [f"{name} sent {len(source.cycles)}/{source.total}" for name, source in self.sources.items()]
        taken = [f"{name} received {len(sink.cycles)}/{sink.total}" for name, sink in self.sinks.items()]
        return ", ".join(sent + taken)

"""Stream drivers and monitors for cocotb: :class:`Source` drives a stream, :class:`Sink` takes from one and checks it.

:class:`sim.bench.Bench` serves them; :mod:`sim.ports` says which ports they find.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sim.ports import Port, Wires, flag_writer, known_flag

__all__ = ["Sink", "Source", "StreamError", "pattern"]

PATTERN_LENGTH = 8191
"""Cycles before a random pattern repeats: prime, so that the patterns of a run do not fall into step with a design."""


class StreamError(AssertionError):
    """A design broke the rules of streams, or came to a halt."""


def pattern(spec: float | Iterable[bool] | None, rng: np.random.Generator, burst: float = 1.0) -> bytes:
    """Per-cycle choice as bytes of 0 and 1, repeated for ever.

    Parameters
    ----------
    spec : float, sequence of bool, or None
        A probability in [0, 1); or the pattern itself; None is never.
    rng : numpy.random.Generator
    burst : float
        Mean length in cycles of the runs of ones, for a probability.
    """
    if spec is None or (isinstance(spec, int | float) and spec == 0):
        return b"\0"
    if not isinstance(spec, int | float):
        chosen = np.asarray(list(spec), dtype=bool)
        if chosen.all():
            raise ValueError("a pattern must hold at least one False, or its stream never moves")
        return chosen.astype(np.uint8).tobytes()
    if not 0 <= spec < 1:
        raise ValueError(f"a probability of idling must be in [0, 1), not {spec!r}")
    if burst <= 1:
        return (rng.random(PATTERN_LENGTH) < spec).astype(np.uint8).tobytes()
    runs: list[int] = []
    while len(runs) < PATTERN_LENGTH:
        runs += [0] * int(rng.geometric(min(1.0, spec / ((1 - spec) * burst))))
        runs += [1] * int(rng.geometric(1 / burst))
    return bytes(runs[:PATTERN_LENGTH])


def started(process: Iterator[None]) -> Callable[[int], None]:
    """The function that takes ``process`` through one clock edge, given the number of the cycle."""
    next(process)
    return process.send


class Source(Port):
    """Sends payloads into stream ``name`` of the design: valid is held until the transfer, garbage is sent while idle.

    Attributes
    ----------
    total : int
        Beats to send.
    cycles : list[int]
        Cycle of each transfer so far, as the bench counts.
    """

    def __init__(
        self,
        dut,
        name: str,
        beats,
        *,
        idle=None,
        burst: float = 1.0,
        wires: Wires | None = None,
        rng: np.random.Generator,
    ):
        super().__init__(dut, name, wires)
        self._literals = self.literals(beats)
        self._idle = pattern(idle, rng, burst)
        self._noise = self.garbage(rng)
        self.total = len(self._literals)
        self.rewind()

    def rewind(self) -> None:
        """Start again from the first payload (after a reset)."""
        self.cycles: list[int] = []
        self.done = not self.total
        self.pause()

    def scramble(self, rng: np.random.Generator) -> None:
        """Drive garbage (in reset)."""
        self.writer()(self._noise[int(rng.integers(len(self._noise)))])
        flag_writer(self.valid)(int(rng.integers(2)))

    def pause(self) -> None:
        """Stop moving until the next step."""
        flag_writer(self.valid)(0)
        self.step = started(self._process())

    def _process(self) -> Iterator[None]:
        literals, idle, noise, cycles, total = self._literals, self._idle, self._noise, self.cycles, self.total
        write_payload, write_valid = self.writer(), flag_writer(self.valid)
        read_ready = known_flag(self.ready, f"ready of stream {self.name}") if self.ready is not None else lambda: 1
        period, noises = len(idle), len(noise)
        index = len(cycles)
        valid = 0
        cycle = yield
        while not self.done:
            ready = read_ready()
            if valid and ready:
                cycles.append(cycle)
                index += 1
                if index == total or idle[cycle % period]:
                    self.done = index == total
                    valid = 0
                    write_valid(0)
                    write_payload(noise[cycle % noises])
                else:
                    write_payload(literals[index])
            elif not valid and not idle[cycle % period]:
                valid = 1
                write_payload(literals[index])
                write_valid(1)
            cycle = yield
        while True:
            yield


class Sink(Port):
    """Takes payloads from stream ``name`` and checks the rules: once valid, hold valid and payload until the transfer.

    Attributes
    ----------
    total : int or None
        Beats to take; None for any number.
    cycles : list[int]
        Cycle of each transfer so far, as the bench counts.
    """

    def __init__(
        self,
        dut,
        name: str,
        total: int | None,
        *,
        stall=None,
        burst: float = 1.0,
        wait_for_valid: bool = False,
        wires: Wires | None = None,
        rng: np.random.Generator,
    ):
        super().__init__(dut, name, wires)
        if self.ready is None and (stall or wait_for_valid):
            raise ValueError(f"stream {name!r} has no ready, so it cannot be stalled")
        self.total = total
        self._stall = pattern(stall, rng, burst)
        self._wait = wait_for_valid
        self.rewind()

    def rewind(self) -> None:
        """Forget what was received (after a reset)."""
        self._literals: list = []
        self.cycles: list[int] = []
        self.done = not self.total
        self.pause()

    @property
    def received(self) -> np.ndarray | dict[str, np.ndarray]:
        """The beats received so far."""
        return self.beats(self._literals)

    def scramble(self, rng: np.random.Generator) -> None:
        """Drive garbage (in reset)."""
        if self.ready is not None:
            flag_writer(self.ready)(int(rng.integers(2)))

    def pause(self) -> None:
        """Stop moving until the next step."""
        if self.ready is not None:
            flag_writer(self.ready)(0)
        self.step = started(self._process())

    def _process(self) -> Iterator[None]:
        stall, wait, literals, cycles, name = self._stall, self._wait, self._literals, self.cycles, self.name
        read_payload, read_valid = self.reader(), known_flag(self.valid, f"valid of stream {name}")
        write_ready = flag_writer(self.ready) if self.ready is not None else None
        limit = -1 if self.total is None else self.total
        period = len(stall)
        ready = write_ready is None
        held = None
        cycle = yield
        while True:
            if read_valid():
                payload = read_payload()
                if held is not None and payload != held:
                    raise StreamError(f"cycle {cycle}: stream {name} changed its payload before the transfer")
                if ready:
                    held = None
                    if len(literals) == limit:
                        raise StreamError(f"cycle {cycle}: stream {name} sent more than {limit} beats")
                    literals.append(payload)
                    cycles.append(cycle)
                    if len(literals) == limit:
                        self.done = True
                else:
                    held = payload
            elif held is not None:
                raise StreamError(f"cycle {cycle}: stream {name} dropped valid before the transfer")
            want = not stall[cycle % period] and (not wait or held is not None)
            if want != ready and write_ready is not None:
                ready = want
                write_ready(1 if want else 0)
            cycle = yield

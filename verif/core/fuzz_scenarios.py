"""Random scenarios for the core: what a host does, in which order, and what must come of it."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from golden.core import CoreJob, Packets, activation_stream, job_model, result_beats, weight_stream
from golden.core.job import JobResult
from hw.axi.definitions import load_map
from hw.core.parts import parts
from spec.core import CoreConfig
from spec.datatypes import Datatype, default_special_values, special_value_allowed
from verif.core.fuzz_defects import reserved_code, spoil
from verif.golden.weights_helpers import random_activations, random_weight

__all__ = ["KINDS", "REFUSALS", "Host", "Scenario"]

KINDS = ("run", "abort", "reset")
ADDRESS = {r.name if r.index is None else f"{r.name}[{r.index}]": r.address for r in load_map("core").registers}
CONTROL, START, ABORT, CLEAR = ADDRESS["CONTROL"], 1, 2, 4
JOB = ("TOKENS", "INPUTS", "OUTPUTS", "FORMAT", "DATATYPES")
START_WHILE_BUSY, WRITE_WHILE_BUSY, ABORTED = 1, 2, 8

REFUSALS = {
    "no_tokens": (3, "TOKENS", lambda rng, config: 0),
    "no_inputs": (3, "INPUTS", lambda rng, config: 0),
    "no_outputs": (3, "OUTPUTS", lambda rng, config: 0),
    "inputs_limit": (4, "INPUTS", lambda rng, config: int(rng.integers(config.max_inputs + 1, 1 << 16))),
    "outputs_limit": (4, "OUTPUTS", lambda rng, config: int(rng.integers(config.max_outputs + 1, 1 << 16))),
    "no_datatype": (5, "DATATYPES", lambda rng, config: 0),
    "unknown_datatype": (5, "DATATYPES", lambda rng, config: 1 << int(rng.choice([0, 12, 13, 14, 15])) | 64),
    "reserved_group_size": (6, "FORMAT", lambda rng, config: 3 | int(rng.integers(2)) << 8),
}
"""Starts that must be refused: code, the register that is wrong, its value."""


@dataclass(kw_only=True)
class Scenario:
    """One job and what happens around it.

    Attributes
    ----------
    kind : str
        ``run`` to its end, ``abort`` or ``reset`` in its midst.
    prelude : list of (address, value, strobes, response)
        Writes before the job, and the response that each must get; value None reads.
    refused : list of (name, code, writes)
        Starts to be refused, the error each must give, and the writes that lead to it.
    writes : list of (address, value)
        Flags cleared, the job described and started.
    disturbances : list of (address, value or None)
        Accesses while the job runs, None to read.
    held : int
        Beats of the weights that are sent only after the disturbances.
    stop : int
        Cycles after which an abort or a reset comes.
    defects : list of str
    expected : JobResult
    disturbed_codes : list of int
        Errors that the disturbances make.
    """

    kind: str
    job: CoreJob
    weights: Packets
    activations: Packets
    expected: JobResult
    results: dict[str, np.ndarray]
    prelude: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    writes: list = field(default_factory=list)
    disturbances: list = field(default_factory=list)
    disturbed_codes: list = field(default_factory=list)
    held: int = 0
    stop: int = 0
    defects: list = field(default_factory=list)
    idle: dict = field(default_factory=dict)
    stall: float = 0.0
    burst: float = 1.0
    irq_enable: int = 0


class Host:
    """Draws one scenario after the other, and knows what state each leaves the core in.

    Parameters
    ----------
    config : CoreConfig
    rng : numpy.random.Generator
        Everything follows from it.
    """

    def __init__(self, config: CoreConfig, rng: np.random.Generator):
        self.config, self.rng = config, rng
        both = set.intersection(*map(set, parts(config.datapath).specials.values()))
        self.allowed = sorted(value for value in both if special_value_allowed(value, signed_terms=True))
        self.specials = default_special_values()

    def scenario(self) -> Scenario:
        """The next one."""
        rng = self.rng
        kind = str(rng.choice(KINDS, p=(0.8, 0.1, 0.1)))
        special_writes = self._special_writes() if rng.random() < 0.3 else []
        one = self._job(kind)
        one.irq_enable = int(rng.integers(4))
        one.prelude = self._noise(int(rng.integers(0, 6))) if rng.random() < 0.5 else []
        one.refused = [self._refusal(one.job) for _ in range(int(rng.integers(1, 3)))] if rng.random() < 0.25 else []
        registers = list(one.job.registers().items())
        rng.shuffle(registers)
        clear = [("ERROR_FLAGS", 0x3FFF), ("NUMERIC_FLAGS", 3), ("CONTROL", CLEAR), ("IRQ_STATUS", 3)]
        enable = [("IRQ_ENABLE", one.irq_enable)]
        start = [("CONTROL", START)]
        one.writes = [
            (ADDRESS[name], int(value)) for name, value in [*special_writes, *registers, *enable, *clear, *start]
        ]
        if kind == "run" and rng.random() < 0.25:
            self._disturb(one)
        if kind == "reset":
            self.specials = default_special_values()
        return one

    def _special_writes(self) -> list[tuple[str, int]]:
        """New values for some registers; values that are refused change nothing (the job's own flags come later)."""
        rng, writes = self.rng, []
        held = [*self.specials[Datatype.FP3], *self.specials[Datatype.FP4]]
        for index in rng.permutation(8)[: int(rng.integers(1, 9))].tolist():
            if rng.random() < 0.2:
                writes.append((f"SPECIAL[{index}]", int(rng.integers(17, 128))))
            else:
                held[index] = int(rng.choice(self.allowed))
                writes.append((f"SPECIAL[{index}]", held[index] & 0xFF))
        self.specials = {Datatype.FP3: tuple(held[:4]), Datatype.FP4: tuple(held[4:])}
        return writes

    def _job(self, kind: str) -> Scenario:
        rng, config = self.rng, self.config
        unit, rows = config.datapath.group_size, config.rows
        tokens = int(rng.choice([1, 2, config.block_tokens, rng.integers(1, 2 * config.block_tokens + 2)]))
        inputs = int(rng.choice([rng.integers(1, unit), unit, rng.integers(1, 2 * config.chunk + unit), config.chunk]))
        outputs = int(rng.choice([1, rows, rng.integers(1, 2 * config.block_outputs + rows), config.block_outputs]))
        size = int(rng.choice(config.group_sizes))
        some = list(rng.permutation([int(d) for d in config.datapath.datatypes]))[: int(rng.integers(1, 4))]
        datatypes = tuple(Datatype(int(d)) for d in some)
        ternary = rng.random() < 0.05  # the one datatype with a reserved code, whose defect needs it
        datatypes = (Datatype.TERNARY,) if ternary else datatypes
        weight = random_weight(rng, outputs, inputs, size, datatypes, self.specials)
        scales = np.ldexp(1 + rng.random(outputs), rng.integers(-12, 3, outputs)).astype(np.float32)
        odd = rng.random(outputs) < 0.1
        scales[odd] = rng.choice(np.array([0, 1e38, -1e38, 1e-40], np.float32), odd.sum())
        job = CoreJob.of(config, weight, tokens, fp16=bool(rng.integers(2)))
        if rng.random() < 0.05:
            job = replace(job, datatypes=frozenset({Datatype.INT8}))
        object.__setattr__(weight, "channel_scale", torch.from_numpy(scales))
        activations = random_activations(rng, tokens, inputs)
        weights = weight_stream(config, weight, tokens).split()
        vectors = activation_stream(config, activations, outputs).split()
        defects = spoil(rng, weights, vectors) if rng.random() < 0.4 else []
        if ternary:
            weights[0], defects = reserved_code(rng, weights[0].copy()), [*defects, "weights.reserved_code"]
        expected = job_model(config, job, weights, vectors, self.specials)
        pauses = [0.0, 0.0, 0.2, 0.7]
        one = Scenario(
            kind=kind,
            job=job,
            weights=Packets.join(weights),
            activations=Packets.join(vectors),
            expected=expected,
            results=result_beats(config, expected.result, inputs),
            defects=defects,
            idle={"s_axis_weights": float(rng.choice(pauses)), "s_axis_activations": float(rng.choice(pauses))},
            stall=float(rng.choice([0.0, 0.0, 0.3, 0.8])),
            burst=float(rng.choice([1.0, 6.0])),
        )
        if kind != "run":
            macs = tokens * inputs * outputs / (config.rows * config.columns * config.datapath.lanes)
            one.stop = int(rng.integers(1, 60 + int(3 * macs)))
            if kind == "abort" and rng.random() < 0.5:  # a host that has no more to send
                one.weights, one.activations = (self._cut(packets) for packets in (one.weights, one.activations))
        return one

    def _cut(self, packets: Packets) -> Packets:
        """The first beats of a stream; it may end within a packet, without TLAST."""
        beats = int(self.rng.integers(1, len(packets.beats) + 1))
        ends = np.cumsum(packets.lengths)
        return Packets(packets.beats[:beats], np.diff(ends[ends <= beats], prepend=0))

    def _noise(self, count: int) -> list[tuple[int, int | None, int, int]]:
        """Accesses that must not matter: any address, but no start, and no special value."""
        rng, accesses = self.rng, []
        known = {r.address + 4 * k for r in load_map("core").registers for k in range(r.width // 32)}
        for _ in range(count):
            address = int(rng.choice([rng.integers(1 << 12), 4 * rng.integers(1 << 10), rng.choice(sorted(known))]))
            value, strobes = int(rng.integers(1 << 32)), int(rng.integers(16))
            if address & ~3 == CONTROL:
                value &= ~START
            write = rng.random() < 0.6 and not ADDRESS["SPECIAL[0]"] <= address <= ADDRESS["SPECIAL[7]"] + 3
            response = 0 if address in known else 2
            accesses.append((address, value if write else None, strobes, response))
        return accesses

    def _refusal(self, job: CoreJob) -> tuple[str, int, list[tuple[int, int]]]:
        """A start that is refused: its name, its code, and the writes that lead to it."""
        name = str(self.rng.choice(list(REFUSALS)))
        code, register, value = REFUSALS[name]
        wrong = job.registers() | {register: value(self.rng, self.config)}
        writes = [(ADDRESS["ERROR_FLAGS"], 0x3FFF), (CONTROL, CLEAR)]
        writes += [(ADDRESS[register], value) for register, value in wrong.items()]
        return name, code, [*writes, (CONTROL, START)]

    def _disturb(self, one: Scenario) -> None:
        """Accesses while the job certainly runs, for the last weights are not sent before they are over."""
        rng = self.rng
        one.held = int(rng.integers(1, len(one.weights.beats) + 1))
        for _ in range(int(rng.integers(1, 5))):
            what = rng.integers(4)
            if what == 0:
                one.disturbances.append((CONTROL, START))
                one.disturbed_codes.append(START_WHILE_BUSY)
            elif what == 1:
                name = str(rng.choice([*JOB, "SPECIAL[0]", "SPECIAL[5]"]))
                one.disturbances.append((ADDRESS[name], int(rng.integers(1 << 32))))
                one.disturbed_codes.append(WRITE_WHILE_BUSY)
            elif what == 2:
                one.disturbances.append((ADDRESS["CYCLES"], int(rng.integers(1 << 32))))
            else:
                one.disturbances.append((int(rng.choice(sorted(ADDRESS.values()))), None))

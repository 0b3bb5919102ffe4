"""The commonest simulation: send arrays into streams, take arrays out, compare outside.

Nothing needs to be written for cocotb: the test bench is :mod:`sim.job_bench`. Several jobs can share one simulator
process, which takes longer to start than a small job to run.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.build import Built
from sim.ports import Wires
from sim.runner import RunResult, run

__all__ = ["Beats", "Job", "JobResult", "run_job", "run_jobs"]

Beats = np.ndarray | Mapping[str, np.ndarray]
Pattern = float | Sequence[bool]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to send and what to expect.

    Parameters
    ----------
    inputs : mapping of stream name to beats
        An array in the form of :mod:`sim.beats`; for AXI4-Stream a mapping of signal to array (:mod:`sim.streams`).
    outputs : mapping of stream name to int
        Number of beats to take; more is an error. The job ends when all inputs are sent and all outputs taken.
    wires : mapping of stream name to Wires
        Ports of the streams that are not named like streams.
    signals : mapping of port name to int
        Other input ports, held constant.
    observe : sequence of port names
        Other output ports, read when the job has ended.
    idle, stall : float, or mapping of stream name to float or pattern
        Probability, per cycle, that a source holds back a beat, or a sink its ready. A sequence of bool is repeated.
    burst : float
        Mean length in cycles of the runs of idle or stalled cycles.
    wait_for_valid : bool
        Sinks raise ready only after they saw valid, which hangs a design whose valid waits for ready.
    reset : bool
        Reset first (the first job of a run always does).
    resets : sequence of int
        Before the job proper: for each number, run the job for so many cycles and reset in the midst of it.
    patience : int
        Cycles without a transfer on any stream after which the job has failed.
    tail : int
        Cycles to watch for surplus beats after the last expected one.
    """

    inputs: Mapping[str, Beats]
    outputs: Mapping[str, int]
    wires: Mapping[str, Wires] = field(default_factory=dict)
    signals: Mapping[str, int] = field(default_factory=dict)
    observe: Sequence[str] = ()
    idle: Pattern | Mapping[str, Pattern] = 0.0
    stall: Pattern | Mapping[str, Pattern] = 0.0
    burst: float = 1.0
    wait_for_valid: bool = False
    reset: bool = True
    resets: Sequence[int] = ()
    patience: int = 20_000
    tail: int = 64


@dataclass(frozen=True)
class JobResult:
    """Outcome of a job.

    Attributes
    ----------
    outputs : dict[str, Beats]
        Beats received per output stream.
    input_cycles, output_cycles : dict[str, numpy.ndarray]
        Cycle of each transfer, int64; cycle 0 is the first edge of the job after its last reset.
    observed : dict[str, int]
        Output ports named in ``observe``.
    cycles : int
        Cycles from the start of the job to its last transfer.
    run : RunResult
        The simulator run the job was part of.
    """

    outputs: dict[str, Beats]
    input_cycles: dict[str, np.ndarray]
    output_cycles: dict[str, np.ndarray]
    observed: dict[str, int]
    cycles: int
    run: RunResult


def run_job(built: Built, inputs: Mapping[str, Beats], outputs: Mapping[str, int], **options) -> JobResult:
    """Run one :class:`Job`. ``options`` are further fields of it, and ``seed``, ``timeout``... of `sim.runner.run`."""
    fields = {name: options.pop(name) for name in list(options) if name in Job.__dataclass_fields__}
    return run_jobs(built, [Job(inputs=inputs, outputs=outputs, **fields)], **options)[0]


def run_jobs(built: Built, jobs: Sequence[Job], **options) -> list[JobResult]:
    """Run jobs one after the other in one simulator process; ``options`` as for :func:`sim.runner.run`.

    Raises
    ------
    SimulationError
        A stream broke the rules, a job came to a halt, or the simulator failed. The message says in which job.
    """
    vectors: dict[str, np.ndarray] = {}
    described = []
    for index, job in enumerate(jobs):
        for name, beats in job.inputs.items():
            parts = beats if isinstance(beats, Mapping) else {"": beats}
            vectors |= {f"{index}/{name}/{part}": np.asarray(array) for part, array in parts.items()}
        described.append(
            {
                "outputs": dict(job.outputs),
                "wires": {name: dataclasses.asdict(wires) for name, wires in job.wires.items()},
                "signals": {name: int(value) for name, value in job.signals.items()},
                "observe": list(job.observe),
                "idle": spread(job.idle, job.inputs, "idle"),
                "stall": spread(job.stall, job.outputs, "stall"),
                "burst": job.burst,
                "wait_for_valid": job.wait_for_valid,
                "reset": job.reset or index == 0,
                "resets": [int(cycles) for cycles in job.resets],
                "patience": job.patience,
                "tail": job.tail,
            }
        )
    result = run(built, "sim.job_bench", vectors=vectors, options={"jobs": described}, **options)
    return [read_back(index, job, result) for index, job in enumerate(jobs)]


def read_back(index: int, job: Job, result: RunResult) -> JobResult:
    data = result.data

    def beats(name: str) -> Beats:
        prefix = f"{index}/beats/{name}/"
        parts = {key.removeprefix(prefix): array for key, array in data.items() if key.startswith(prefix)}
        return parts[""] if set(parts) == {""} else parts

    return JobResult(
        outputs={name: beats(name) for name in job.outputs},
        input_cycles={name: data[f"{index}/cycles/{name}"] for name in job.inputs},
        output_cycles={name: data[f"{index}/cycles/{name}"] for name in job.outputs},
        observed={name: int(str(data[f"{index}/observed/{name}"]), 2) for name in job.observe},
        cycles=int(data[f"{index}/cycles"]),
        run=result,
    )


def spread(choice, names, what: str) -> dict:
    """One choice per stream, from one for all or a mapping with an entry for some."""
    if not isinstance(choice, Mapping):
        choice = dict.fromkeys(names, choice)
    if unknown := sorted(set(choice) - set(names)):
        raise ValueError(f"{what}: no stream named {', '.join(unknown)}; there are {', '.join(names)}")
    return {
        name: float(value) if isinstance(value, int | float) else [bool(bit) for bit in value]
        for name, value in choice.items()
    }

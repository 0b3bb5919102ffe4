"""Jobs on a simulated accelerator core (docs/core.md): registers over AXI4-Lite, packets in, results out.

Every channel of AXI4-Lite is a stream like others, so a job needs no test bench of its own: :mod:`sim.job` runs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from golden.core.job import CoreJob
from golden.core.streams import Packets
from hw.axi.definitions import load_map
from sim.build import Built
from sim.job import Job, JobResult, Pattern, run_jobs
from sim.ports import Wires
from spec.core import CoreConfig
from spec.datatypes import Datatype

__all__ = ["CoreRequest", "CoreRun", "accesses", "octets", "run_core", "status_reads", "stream_beats"]

START, CLEAR = 1, 4
SIZES = {"aw": ("addr", "prot"), "w": ("data", "strb"), "b": ("resp",), "ar": ("addr", "prot"), "r": ("data", "resp")}
LITE = {
    f"s_axil_{channel}": Wires(
        tuple(f"s_axil_{channel}{part}" for part in parts),
        f"s_axil_{channel}valid",
        f"s_axil_{channel}ready",
    )
    for channel, parts in SIZES.items()
}
"""Ports of each channel of AXI4-Lite as a stream."""

STATUS = ("STATUS", "ERROR", "ERROR_FLAGS", "NUMERIC_FLAGS", "IRQ_STATUS")
STATUS += ("CYCLES", "BUSY_CYCLES", "STALL_CYCLES", "MACS")


@dataclass(frozen=True, kw_only=True)
class CoreRequest:
    """A job and its packets.

    Parameters
    ----------
    job : CoreJob
    weights, activations : Packets
        Everything that the job's streams take.
    results : int
        Beats of the result stream.
    special_values : mapping, optional
        What to write to the special-value registers; by default they are left alone.
    idle, stall : float or pattern, or mapping of stream to such
        As in :class:`sim.job.Job`.
    resets : sequence of int
        Resets in the midst of the job, before it runs whole; as in :class:`sim.job.Job`.
    """

    job: CoreJob
    weights: Packets
    activations: Packets
    results: int
    special_values: Mapping[Datatype, Sequence[int]] | None = None
    idle: Pattern | Mapping[str, Pattern] = 0.0
    stall: Pattern | Mapping[str, Pattern] = 0.0
    resets: Sequence[int] = ()


@dataclass(frozen=True)
class CoreRun:
    """What came of a job.

    Attributes
    ----------
    beats : dict
        Result beats: tdata uint8 [beats, 4 P], tkeep uint8 [beats, 4 P] (a byte for a bit), tuser uint8 [beats, 2 P]
        (the same), tlast uint8 [beats].
    registers : dict[str, int]
        After the job, by name: those of ``STATUS``.
    seconds : float
        Wall time of the simulator process, which all jobs of a run share.
    cycles : int
        Simulated clock cycles of the process, all jobs together.
    """

    beats: dict[str, np.ndarray]
    registers: dict[str, int]
    seconds: float
    cycles: int = field(default=0)


def accesses(writes: Sequence[tuple[str | int, int]]) -> dict[str, dict[str, np.ndarray]]:
    """Register writes (name, ``SPECIAL[3]`` or byte address; value) as beats of AXI4-Lite's two write channels."""
    found = [(_address(where), value & 0xFFFFFFFF) for where, value in writes]
    addresses, values = (np.array(column, np.uint64) for column in zip(*found, strict=True))
    return {
        "s_axil_aw": {"s_axil_awaddr": addresses, "s_axil_awprot": np.zeros(len(found), np.uint64)},
        "s_axil_w": {"s_axil_wdata": values, "s_axil_wstrb": np.full(len(found), 15, np.uint64)},
    }


def status_reads() -> tuple[list[str], list[int]]:
    """Names and byte addresses of the words that tell how a job ended; a 64-bit register is two words, low first."""
    registers = {register.name: register for register in load_map("core").registers}
    words = [(name, registers[name].address + 4 * k) for name in STATUS for k in range(registers[name].width // 32)]
    return [name for name, _ in words], [address for _, address in words]


def _address(where: str | int) -> int:
    if isinstance(where, int):
        return where
    labels = {r.name if r.index is None else f"{r.name}[{r.index}]": r.address for r in load_map("core").registers}
    return labels[where]


def start_writes(request: CoreRequest) -> list[tuple[str, int]]:
    """What a driver writes to clear the last job's flags, describe a job and start it."""
    writes = [("ERROR_FLAGS", 0xFFFFFFFF), ("NUMERIC_FLAGS", 3), ("IRQ_STATUS", 3), ("CONTROL", CLEAR)]
    if request.special_values is not None:
        values = [*request.special_values[Datatype.FP3], *request.special_values[Datatype.FP4]]
        writes += [(f"SPECIAL[{index}]", value & 0xFF) for index, value in enumerate(values)]
    return [*writes, *request.job.registers().items(), ("CONTROL", START)]


def stream_beats(packets: Packets) -> dict[str, np.ndarray]:
    """Packets in the form of :mod:`sim.beats`."""
    data = packets.octets()
    if data.shape[1] <= 8:
        data = np.pad(data, ((0, 0), (0, 8 - data.shape[1]))).view("<u8")[:, 0].astype(np.uint64)
    return {"tdata": data, "tlast": packets.last.astype(np.uint64)}


def octets(beats: np.ndarray, width: int) -> np.ndarray:
    """Payloads of ``width`` bits in the form of :mod:`sim.beats` as uint8 [beats, ceil(width / 8)]."""
    size = -(-width // 8)
    if beats.ndim == 1:
        beats = np.ascontiguousarray(beats.astype("<u8")).view(np.uint8).reshape(len(beats), 8)
    return np.ascontiguousarray(beats[:, :size])


def _results(config: CoreConfig, beats: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    lanes = config.result_lanes
    widths = {"tdata": 32 * lanes, "tkeep": 4 * lanes, "tuser": 2 * lanes}
    found = {name: octets(beats[name], width) for name, width in widths.items()}
    bits = {
        name: np.unpackbits(found[name], axis=1, bitorder="little", count=widths[name]) for name in ("tkeep", "tuser")
    }
    return {**found, **bits, "tlast": beats["tlast"].astype(np.uint8)}


def run_core(built: Built, config: CoreConfig, requests: Sequence[CoreRequest], **options) -> list[CoreRun]:
    """Run jobs one after the other, in one simulator process, on a core that is reset once.

    ``options`` as for :func:`sim.runner.run`.

    Raises
    ------
    SimulationError
        A stream broke the rules, the core came to a halt or sent too much, or an access was answered with an error.
    """
    names, addresses = status_reads()
    jobs = []
    for index, request in enumerate(requests):
        writes = accesses(start_writes(request))
        streams = {
            "s_axis_weights": stream_beats(request.weights),
            "s_axis_activations": stream_beats(request.activations),
        }
        streams = {name: beats for name, beats in streams.items() if len(beats["tlast"])}
        idle = {name: request.idle for name in streams} if not isinstance(request.idle, Mapping) else request.idle
        stall = request.stall if isinstance(request.stall, Mapping) else {"m_axis_results": request.stall}
        jobs.append(
            Job(
                inputs={**writes, **streams},
                outputs={"s_axil_b": len(writes["s_axil_aw"]["s_axil_awaddr"]), "m_axis_results": request.results},
                wires={name: LITE[name] for name in ("s_axil_aw", "s_axil_w", "s_axil_b")},
                signals={"s_axil_arvalid": 0, "s_axil_araddr": 0, "s_axil_arprot": 0, "s_axil_rready": 0},
                idle=idle,
                stall=stall,
                reset=index == 0,
                resets=request.resets,
            )
        )
        ask = np.array(addresses, np.uint64)
        jobs.append(
            Job(
                inputs={"s_axil_ar": {"s_axil_araddr": ask, "s_axil_arprot": np.zeros(len(ask), np.uint64)}},
                outputs={"s_axil_r": len(ask)},
                wires={name: LITE[name] for name in ("s_axil_ar", "s_axil_r")},
                reset=False,
            )
        )
    results = run_jobs(built, jobs, **options)
    return [_run(config, names, *results[2 * k : 2 * k + 2]) for k in range(len(requests))]


def _run(config: CoreConfig, names: Sequence[str], done: JobResult, read: JobResult) -> CoreRun:
    responses = [done.outputs["s_axil_b"]["s_axil_bresp"], read.outputs["s_axil_r"]["s_axil_rresp"]]
    if any(response.any() for response in responses):
        raise AssertionError(f"an access was answered with an error: write {responses[0]}, read {responses[1]}")
    registers: dict[str, int] = {}
    for name, word in zip(names, read.outputs["s_axil_r"]["s_axil_rdata"].tolist(), strict=True):
        registers[name] = word if name not in registers else registers[name] | word << 32
    beats = _results(config, done.outputs["m_axis_results"])
    return CoreRun(beats, registers, done.run.seconds, done.run.cycles)

"""The core behind its AXI ports, bit for bit against exact arithmetic: ragged shapes, datatypes, traffic, rates."""

import numpy as np
import pytest

from golden.core.job import CoreJob
from golden.core.streams import Packets
from hosts.core import CoreRequest, run_core
from hw.tops.core import AcceleratorCoreAxi
from sim.design import build_design
from spec.core import CoreConfig
from spec.datatypes import Datatype
from spec.system import core_preset
from verif.core.configs import small_core
from verif.core.reference import Group, Problem, products, scaled
from verif.core.streams import activation_packets, read_results, result_beats, weight_packets

TRAFFIC = [
    {},
    {"idle": {"s_axis_weights": 0.6, "s_axis_activations": 0.0}},
    {"idle": {"s_axis_weights": 0.0, "s_axis_activations": 0.6}},
    {"stall": 0.9},
    {"idle": {"s_axis_weights": 0.3, "s_axis_activations": 0.3}, "stall": 0.3},
]


def core(name: str):
    return build_design(AcceleratorCoreAxi(small_core(name)), "accelerator_core_axi")


def drawn(
    rng: np.random.Generator,
    sizes: tuple[int, int, int],
    group_size: int,
    datatypes: list[Datatype],
    *,
    fp16: bool = False,
    wild: float = 0.4,
) -> Problem:
    """A job with normal activations, ``wild`` of them any finite FP16 number, and any codes, scales and selects."""
    tokens, inputs, outputs = sizes
    halves = rng.standard_normal((tokens, inputs)).astype(np.float16).view(np.uint16)
    any_half = rng.integers(0, 0x7C00, (tokens, inputs), np.uint16) | rng.integers(0, 2, (tokens, inputs)) << 15
    halves = np.where(rng.random((tokens, inputs)) < wild, any_half, halves).astype(np.uint16)

    def group(count):
        datatype = datatypes[rng.integers(len(datatypes))]
        codes = rng.integers(0, 1 << datatype.bits, count)
        if datatype == Datatype.TERNARY:
            codes[codes == 2] = 3
        return Group(datatype, int(rng.integers(4)), int(rng.integers(256)), codes.tolist())

    rows = [[group(min(group_size, inputs - start)) for start in range(0, inputs, group_size)] for _ in range(outputs)]
    span = rng.choice([1.0, 1e-12, 1e-38, 1e25], outputs, p=[0.7, 0.1, 0.1, 0.1])
    scales = (rng.random(outputs) * span).astype(np.float32).view(np.uint32)
    return Problem(group_size, halves, rows, scales.tolist(), fp16)


def request(rng: np.random.Generator, config: CoreConfig, problem: Problem, **traffic) -> CoreRequest:
    tokens, inputs, outputs = problem.sizes
    kinds = frozenset(group.datatype for row in problem.rows for group in row)
    job = CoreJob(
        tokens=tokens,
        inputs=inputs,
        outputs=outputs,
        group_size=problem.group_size,
        datatypes=kinds,
        fp16=problem.fp16,
    )
    weights, activations = weight_packets(problem, config, rng), activation_packets(problem, config, rng)
    return CoreRequest(
        job=job,
        weights=Packets.join(weights),
        activations=Packets.join(activations),
        results=len(result_beats(config, problem)),
        **traffic,
    )


def check(config: CoreConfig, problem: Problem, run) -> None:
    """Every bit of the results, and what the registers say of the job."""
    results, marks = read_results(run.beats, config, problem)
    sums, want_marks = products(problem, config)
    np.testing.assert_array_equal(results, scaled(problem, sums, want_marks))
    np.testing.assert_array_equal(marks, want_marks)
    registers = run.registers
    assert registers["ERROR"] == registers["ERROR_FLAGS"] == 0
    assert registers["STATUS"] == 2
    assert registers["MACS"] == np.prod(problem.sizes)
    assert registers["BUSY_CYCLES"] + registers["STALL_CYCLES"] <= registers["CYCLES"]


@pytest.mark.sim
@pytest.mark.parametrize(
    ("name", "jobs"), [("tiny", 40), ("tiny-chains", 20), pytest.param("edge", 8, marks=pytest.mark.full)]
)
def test_any_job(name, jobs, rng, seed):
    """Sizes below, at and above every block size, one datatype or any mixture, each stream held up in turn."""
    config = small_core(name)
    problems, requests = [], []
    for index in range(jobs):
        most = (10, (40 if index % 4 else 210) * config.chunk // 64, 3 * config.block_outputs)
        tokens, inputs, outputs = (int(rng.integers(1, limit)) for limit in most)
        size = int(rng.choice(config.group_sizes))
        kinds = list(Datatype) if index % 2 else [Datatype(int(rng.integers(1, 12)))]
        problem = drawn(rng, (tokens, inputs, outputs), size, kinds, fp16=bool(rng.integers(2)))
        problems.append(problem)
        requests.append(request(rng, config, problem, **TRAFFIC[index % len(TRAFFIC)]))
    for problem, run in zip(problems, run_core(core(name), config, requests, seed=seed), strict=True):
        check(config, problem, run)


@pytest.mark.full
@pytest.mark.sim
def test_dense(rng, seed):
    """The whole array: a ragged job of every datatype, and the rates of two 576 x 576 layers."""
    config = core_preset("dense")
    problems = [
        drawn(rng, (19, 700, 21), 64, list(Datatype), fp16=True),
        drawn(rng, (32, 576, 576), 128, [Datatype.FP4], wild=0.01),
        drawn(rng, (8, 576, 144), 128, [Datatype.INT8], wild=0.01),
    ]
    requests = [request(rng, config, problem) for problem in problems]
    runs = run_core(core("dense"), config, requests, seed=seed)
    for problem, run in zip(problems, runs, strict=True):
        check(config, problem, run)
    assert runs[1].registers["BUSY_CYCLES"] >= 0.95 * runs[1].registers["CYCLES"]

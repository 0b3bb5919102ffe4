"""sim.job: every spelling of a stream, several jobs in a run, ports beside the streams, mistakes in the request."""

from pathlib import Path

import numpy as np
import pytest

from sim.build import build
from sim.job import Job, run_job, run_jobs
from sim.ports import Wires
from sim.runner import SimulationError
from sim.streams import pattern

HERE = Path(__file__).parent
COUNT = 400

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def axi_stage():
    return build(HERE / "spellings.v", "axi_stage")


@pytest.fixture(scope="module")
def defects():
    return build(HERE / "defects.v", "defects")


def packets(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "tdata": rng.integers(0, 1 << 39, COUNT),
        "tlast": rng.integers(0, 2, COUNT),
        "tuser": rng.integers(0, 4, COUNT),
    }


def test_axi_stream_and_other_ports(axi_stage, rng, seed):
    sent = packets(rng)
    result = run_job(
        axi_stage, {"s_axis": sent}, {"m_axis": COUNT}, signals={"offset": 200}, observe=["packets"],
        idle=0.3, stall=0.4, burst=3, resets=[10, 50], seed=seed,
    )  # fmt: skip
    np.testing.assert_equal(result.outputs["m_axis"], sent | {"tdata": sent["tdata"] + 200})
    count = int(sent["tlast"].sum())
    assert result.observed["packets"] == count | (count & 1) << 99


def test_jobs_follow_each_other(axi_stage, rng, seed):
    """The second goes on from the first, the third resets."""
    common = {"outputs": {"m_axis": COUNT}, "signals": {"offset": 0}, "observe": ["packets"], "stall": 0.2}
    jobs = [Job(inputs={"s_axis": packets(rng)}, reset=reset, **common) for reset in (True, False, True)]
    results = run_jobs(axi_stage, jobs, seed=seed)
    ends = [int(job.inputs["s_axis"]["tlast"].sum()) for job in jobs]
    for job, result in zip(jobs, results, strict=True):
        np.testing.assert_equal(result.outputs["m_axis"], job.inputs["s_axis"])
        assert result.output_cycles["m_axis"][-1] == result.cycles - 1
    low = [result.observed["packets"] % (1 << 99) for result in results]
    assert low == [ends[0], ends[0] + ends[1], ends[2]]
    assert not np.array_equal(results[0].output_cycles["m_axis"], results[1].output_cycles["m_axis"])


def test_streams_without_ready(rng, seed):
    a, b = rng.integers(0, 1 << 33, COUNT), rng.integers(0, 256, COUNT)
    wires = {"operands": Wires(("a", "b"), "valid"), "result": Wires(("sum",), "sum_valid")}
    built = build(HERE / "no_ready.v", "no_ready")
    result = run_job(
        built, {"operands": {"a": a, "b": b}}, {"result": COUNT}, wires=wires, idle=0.4, resets=[7], seed=seed
    )
    np.testing.assert_array_equal(result.outputs["result"]["sum"], a.astype(np.uint64) + b.astype(np.uint64))
    np.testing.assert_array_equal(result.output_cycles["result"] - result.input_cycles["operands"], 1)
    with pytest.raises(SimulationError, match="stream 'result' has no ready, so it cannot be stalled"):
        run_job(built, {"operands": {"a": a, "b": b}}, {"result": COUNT}, wires=wires, stall=0.4, seed=seed)


def test_same_seed_same_cycles(defects, seed):
    def cycles(which: int) -> list[int]:
        result = run_job(defects, {"i": range(50)}, {"o": 50}, idle=0.3, stall=0.3, seed=which)
        return result.output_cycles["o"].tolist()

    assert cycles(seed) == cycles(seed) != cycles(seed + 1)


def test_explicit_pattern(defects, seed):
    result = run_job(defects, {"i": range(20)}, {"o": 20}, stall={"o": [1, 1, 1, 0]}, seed=seed)
    assert set(np.diff(result.output_cycles["o"])) == {4}


@pytest.mark.parametrize(
    ("inputs", "outputs", "error"),
    [
        ({"x": [1]}, {"o": 1}, "the design has no stream 'x': neither x__valid nor x_tvalid is a port"),
        ({"i": [1 << 16]}, {"o": 1}, r"i must be below 2\*\*16, not 65536"),
        ({"i": {"tdata": [1]}}, {"o": 1}, r"i: beats must have exactly \['payload'\], not \['tdata'\]"),
    ],
)
def test_mistakes_are_named(defects, inputs, outputs, error):
    with pytest.raises(SimulationError, match=error):
        run_job(defects, inputs, outputs)


def test_unknown_stream_in_a_choice(defects):
    with pytest.raises(ValueError, match="stall: no stream named p; there are o"):
        run_job(defects, {"i": [1]}, {"o": 1}, stall={"p": 0.5})


@pytest.mark.parametrize(
    ("spec", "error"), [(1.0, r"must be in \[0, 1\), not 1.0"), (-0.1, "not -0.1"), ([True], "at least one False")]
)
def test_bad_pattern(spec, error, rng):
    with pytest.raises(ValueError, match=error):
        pattern(spec, rng)


@pytest.mark.parametrize("burst", [1, 5, 40])
def test_pattern_has_the_asked_density_and_length(burst, rng):
    bits = np.frombuffer(pattern(0.4, rng, burst), np.uint8)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], bits, [0]]).astype(int))))[::2]
    assert abs(bits.mean() - 0.4) < (0.03 if burst < 40 else 0.12)
    assert abs(runs.mean() / max(burst, 1 / 0.6) - 1) < (0.12 if burst < 40 else 0.3)

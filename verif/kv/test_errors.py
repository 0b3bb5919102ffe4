"""Every error code provoked in many ways: marks, sticky code and counter, and the next block exact."""

import numpy as np
import pytest

from hw.kv.errors import ErrorLog
from sim.design import build_design
from sim.job import run_jobs
from spec.kv_config import KvEngineConfig, KvError
from verif.bitserial.coverage import Coverage
from verif.bitserial.player import play
from verif.kv.bench import build_engine, compare, engine_job
from verif.kv.defects import defects
from verif.kv.expected import expect

ERRORS = [error for error in KvError if error]


@pytest.mark.sim
def test_every_defect(engine, rng, seed):
    """A bad packet, then a good one, each pair after a reset: the code is the defect's, and one packet is counted."""
    config, built = engine
    coverage = Coverage(f"kv-errors-{config.lanes}-lanes", {"error": [error.name for error in ERRORS]})
    jobs, names = [], []
    for number, defect in enumerate(defects(rng, config)):
        traffic = [{}, {"idle": 0.5, "stall": 0.3}, {"stall": 0.6, "burst": 4.0}][number % 3]
        job, expected = engine_job([defect.packet, defect.good], config, **traffic)
        assert [packet.error for packet in expected] == [defect.error, KvError.NONE], defect.name
        assert expected[0].marked[-1]
        coverage.hit("error", defect.error.name)
        jobs.append((job, expected))
        names.append(defect.name)
    results = run_jobs(built, [job for job, _ in jobs], seed=seed)
    for result, (_, expected), name in zip(results, jobs, names, strict=True):
        try:
            compare(result, expected, config)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        assert (result.observed["error"], result.observed["error_count"]) == (expected[0].error, 1), name
    coverage.close()


@pytest.mark.sim
def test_every_defect_of_a_stalled_engine_without_transforms(rng, seed):
    """Nothing stands behind its tables: what leaves must not change while it waits, whatever became of its block."""
    config = KvEngineConfig(lanes=4, max_channels=64, transforms=frozenset())
    packets = [packet for defect in defects(rng, config) for packet in (defect.packet, defect.good)]
    jobs = [engine_job(packets, config, **traffic) for traffic in ({"stall": 0.8}, {"stall": 0.6, "burst": 5.0})]
    results = run_jobs(build_engine(config), [job for job, _ in jobs], seed=seed)
    for result, (_, expected) in zip(results, jobs, strict=True):
        compare(result, expected, config)


@pytest.mark.sim
def test_code_is_sticky_until_cleared(engine, rng, seed):
    config, built = engine
    found = list(defects(rng, config))
    one_each = [next(d for d in found if d.error is error) for error in ERRORS]
    jobs, expectations = [], []
    for first, second in zip(one_each, [*one_each[1:], one_each[0]], strict=True):
        for packets, clear, reset in (
            ([first.good, first.packet, second.packet, second.good, second.packet], 0, True),
            ([first.good], 1, False),
            ([first.good, second.packet, first.packet, first.good], 0, False),
        ):
            signals = {"error_clear": clear}
            job, expected = engine_job(packets, config, signals=signals, reset=reset, idle=0.2, stall=0.2)
            jobs.append(job)
            expectations.append((expected, (first.error, 3), (KvError.NONE, 0), (second.error, 2)))
    for number, (result, (expected, *states)) in enumerate(
        zip(run_jobs(built, jobs, seed=seed), expectations, strict=True)
    ):
        compare(result, expected, config)
        assert (result.observed["error"], result.observed["error_count"]) == states[number % 3]


@pytest.mark.sim
def test_bad_packets_back_to_back(engine, rng, seed):
    """All defects in one stream in random order, good blocks among them: nothing leaks from one packet to another."""
    config, built = engine
    found = list(defects(rng, config))
    jobs, expectations = [], []
    for options in ({}, {"idle": 0.3, "stall": 0.5}, {"idle": 0.6, "stall": 0.2, "burst": 5.0}):
        packets = []
        for k in rng.permutation(len(found)):
            packets += [found[k].packet] + ([found[k].good] if rng.random() < 0.3 else [])
        job, expected = engine_job(packets, config, **options)
        jobs.append(job)
        expectations.append(expected)
    for result, expected in zip(run_jobs(built, jobs, seed=seed), expectations, strict=True):
        compare(result, expected, config)
        assert result.observed["error"] == next(packet.error for packet in expected if packet.error)


@pytest.mark.sim
def test_garbage_never_hangs(engine, rng, seed):
    """Noise in packets of any length, a good block after each: exact, whatever came before."""
    config, built = engine
    size = config.input_bits // 8
    good = next(defects(rng, config)).good
    packets = []
    for _ in range(60):
        noise = bytearray(rng.bytes(size * int(rng.integers(1, 80))))
        if rng.random() < 0.7 and len(noise) >= 8:  # a header that looks right
            noise[:8] = good[:8]
        packets += [bytes(noise), good]
    job, expected = engine_job(packets, config, idle=0.2, stall=0.2)
    assert not any(packet.error for packet in expected[1::2])
    compare(run_jobs(built, [job], seed=seed)[0], expected, config)


@pytest.mark.sim
def test_reset_in_mid_packet_after_errors(engine, rng, seed):
    config, built = engine
    found = list(defects(rng, config))
    packets = [packet for k in rng.permutation(len(found))[:12] for packet in (found[k].packet, found[k].good)]
    job, expected = engine_job(packets, config, idle=0.2, stall=0.3, resets=[int(x) for x in rng.integers(1, 700, 12)])
    compare(run_jobs(built, [job], seed=seed)[0], expected, config)


@pytest.mark.sim
def test_counter_stops_at_its_largest(rng, seed):
    """65,535 and no further; a clear in the cycle of an error keeps that error."""
    built = build_design(ErrorLog(), "kv_error_log")
    cycles = 65_700
    clear = np.zeros(cycles, np.uint64)
    clear[[100, cycles - 20]] = 1
    inputs = {"bad": np.ones(cycles, np.uint64), "clear": clear}
    inputs |= {"strobe": np.ones(cycles, np.uint64), "code": rng.integers(1, 11, cycles).astype(np.uint64)}
    inputs |= {"late": np.full(cycles, 7, np.uint64), "late_strobe": np.ones(cycles, np.uint64)}
    got = play(built, inputs, ["error", "count"], seed=seed)
    since = np.arange(cycles)
    for at in (100, cycles - 20):
        since[at + 1 :] = np.arange(1, cycles - at)
    np.testing.assert_array_equal(got["count"], np.minimum(since, 65535))
    first = np.repeat(inputs["code"][[0, 100, cycles - 20]], [100, cycles - 120, 20])
    np.testing.assert_array_equal(got["error"][1:], first[:-1])


def test_the_oracle_sees_each_defect_alone(rng):
    """`expect` and the packets agree on what is wrong without any simulator, and the good packets are good."""
    from verif.kv.bench import CONFIGS

    for config in CONFIGS.values():
        for defect in defects(rng, config):
            assert expect(defect.packet, config).error is defect.error, (config.lanes, defect.name)
            assert not expect(defect.good, config).error

"""Fuzzing of the core: 300 scenarios in which everything occurs, and that a wrong core would not pass."""

import copy
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.beats import from_ints
from verif.bitserial.coverage import Coverage
from verif.core import fuzz
from verif.core.configs import SMALL
from verif.core.fuzz_defects import ACTIVATION_DEFECTS, WEIGHT_DEFECTS
from verif.core.fuzz_scenarios import KINDS, REFUSALS, Host

TINY = SMALL["tiny"]
BATCHES = 6


@pytest.mark.sim
@pytest.mark.parametrize("name", [name for name in SMALL if name != "tiny"])
def test_fuzz_of_other_cores(name, seed):
    """The same with two drain chains, and with bit-serial PEs."""
    config, outcome = SMALL[name], fuzz.Outcome()
    built = fuzz.build_core(config)
    for batch in range(2):
        outcome.add(fuzz.play_batch(built, config, seed, batch))
    assert not outcome.failures, "\n".join(f"{f['what']}\nreplay: {f['replay']}" for f in outcome.failures[:3])
    assert outcome.counts["scenarios"] == 2 * fuzz.BATCH
    assert outcome.counts["results compared"] > 1000


@pytest.mark.sim
def test_batch_that_once_failed():
    """A row packet cut in the midst of a group, behind a code without a value: the model had not seen the code."""
    outcome = fuzz.play_batch(fuzz.build_core(TINY), TINY, 1, 43)
    assert not outcome.failures, outcome.failures[0]["what"]
    assert outcome.counts["scenarios"] == fuzz.BATCH


@pytest.mark.sim
def test_fuzz(seed):
    """Never hangs, never silently wrong, the next job exact; every kind of scenario, defect and error among them."""
    built = fuzz.build_core(TINY)
    outcome = fuzz.Outcome()
    for batch in range(BATCHES):
        outcome.add(fuzz.play_batch(built, TINY, seed, batch))
    assert not outcome.failures, "\n".join(f"{f['what']}\nreplay: {f['replay']}" for f in outcome.failures[:3])
    assert outcome.counts["scenarios"] == BATCHES * fuzz.BATCH
    coverage = Coverage(
        "core-fuzz",
        {
            "kind": KINDS,
            "results": ("fp16", "fp32"),
            "packets": ("good", "defective"),
            "refused": REFUSALS,
            "defect": [*(f"weights.{name}" for name in WEIGHT_DEFECTS)]
            + [f"activations.{name}" for name in ACTIVATION_DEFECTS],
            # Of refused starts and values, and aborts, the other points tell.
            "error": (1, 2, 9, 10, 11, 12, 13, 14),
        },
    )
    for name, count in outcome.counts.items():
        point, _, value = name.partition(": ")
        if value:
            coverage.hit(point, int(value) if value.isdigit() else value, count)
    coverage.close()


def answer(one):
    """What a core that is right leaves."""
    lanes, beats = TINY.result_lanes, one.results
    bits = {part: np.packbits(beats[part], axis=1, bitorder="little") for part in ("tkeep", "tuser")}
    widths = {"tdata": 32 * lanes, "tkeep": 4 * lanes, "tuser": 2 * lanes}
    octets = {"tdata": beats["tdata"], **bits}
    data = {
        f"results/{part}": from_ints([int.from_bytes(row.tobytes(), "little") for row in octets[part]], width)
        for part, width in widths.items()
    }
    events = [*one.expected.errors, *({code} for code in one.disturbed_codes)]
    codes = [min(event) for event in events]
    macs = one.job.tokens * one.job.inputs * one.job.outputs
    result = one.expected.result
    pending = 1 | bool(events) << 1
    words = [
        0b110 if events else 0b010,
        len(codes) << 16 | (codes[0] if codes else 0),
        sum(1 << code - 1 for code in set(codes)),
        result.fp32_overflow | result.fp16_saturated << 1,
        pending,
        *(100, 0, 60, 0, 20, 0, macs & 0xFFFFFFFF, macs >> 32),
    ]
    return {
        **data,
        "results/tlast": beats["tlast"].astype(np.uint64),
        "status": np.array(words, np.int64),
        "irq": np.int64(bool(pending & one.irq_enable)),
    }


def test_what_a_wrong_core_gives_is_noticed(seed):
    host = Host(TINY, np.random.default_rng([seed, 77]))
    seen = 0
    while seen < 8:
        one = host.scenario()
        if one.kind != "run":
            continue
        seen += 1
        right = answer(one)
        assert fuzz.check(TINY, one, right) == []
        for part in ("tdata", "tkeep", "tuser", "tlast"):
            wrong = copy.deepcopy(right)
            wrong[f"results/{part}"][len(one.results["tlast"]) // 2] ^= np.uint64(1)
            assert f"{part} of beat" in fuzz.check(TINY, one, wrong)[0]
        short = {name: array[:-1] if name.startswith("results") else array for name, array in right.items()}
        assert "beats of results" in fuzz.check(TINY, one, short)[0]
        spoiled = {0: 1, 1: 1 << 16, 2: 1 << 7, 3: 1, 4: 1, 5: 100}
        for word, bits in spoiled.items():
            wrong = copy.deepcopy(right)
            wrong["status"][word] ^= bits
            assert fuzz.check(TINY, one, wrong), f"status word {word}"
        if not one.expected.errors:
            wrong = copy.deepcopy(right)
            wrong["status"][11] += 1
            assert "MACs" in fuzz.check(TINY, one, wrong)[0]


def test_scenarios_follow_from_the_seed():
    first, again, other = (Host(TINY, np.random.default_rng(key)).scenario() for key in ([3, 0], [3, 0], [3, 1]))
    assert first.writes == again.writes
    assert np.array_equal(first.weights.beats, again.weights.beats)
    assert not (first.writes == other.writes and np.array_equal(first.weights.beats, other.weights.beats))


def test_command_reports_failures(tmp_path, monkeypatch):
    """Counts of all batches, the replay of each failure, and an exit status."""
    import typer

    def played(_built, _config, seed, batch, count):
        failures = [{"what": "bad", "batch": batch, "replay": fuzz.replay(TINY, seed, batch)}] if batch == 1 else []
        return fuzz.Outcome(fuzz.Counter({"scenarios": count}), failures, 10)

    class Pool:
        def __init__(self, _jobs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        map = staticmethod(lambda f, *arguments: [f(*one) for one in zip(*arguments, strict=True)])

    monkeypatch.setattr(fuzz, "build_core", lambda _config: None)
    monkeypatch.setattr(fuzz, "play_batch", played)
    monkeypatch.setattr(fuzz, "ProcessPoolExecutor", Pool)
    app = typer.Typer()
    app.command()(fuzz.main)
    for count, status in ((120, 1), (30, 0)):
        path = tmp_path / f"{count}.json"
        result = CliRunner().invoke(app, ["--count", str(count), "--seed", "9", "--report", str(path)])
        report = json.loads(path.read_text())
        assert (result.exit_code, report["pass"]) == (status, not status)
        assert report["scenarios"] == report["expected"] == count
        assert report["cycles"] == 10 * -(-count // 50)
        assert ("--preset tiny --seed 9 --batch 1" in result.output) == bool(status)

"""The test bench notices what it is there to notice: each defect of ``defects.v`` fails a run for its own reason."""

from pathlib import Path

import numpy as np
import pytest

from sim.build import build
from sim.job import run_job
from sim.runner import SimulationError

DEFECTS = Path(__file__).with_name("defects.v")
COUNT = 300

pytestmark = pytest.mark.sim


def run(defect: str | None, rng: np.random.Generator, seed: int, **options) -> bool:
    """Whether the payloads came back unchanged."""
    built = build(DEFECTS, "defects", defines={defect: 1} if defect else {})
    sent = rng.integers(0, 1 << 16, COUNT)
    result = run_job(built, {"i": sent}, {"o": COUNT}, patience=3000, seed=seed, **options)
    return np.array_equal(result.outputs["o"], sent)


def test_sound_design_passes(rng, seed):
    assert run(None, rng, seed, idle=0.4, stall=0.4, resets=[20, 33])


@pytest.mark.parametrize(
    ("defect", "symptom"),
    [
        ("DROPS_VALID", "stream o dropped valid before the transfer"),
        ("CHANGES_PAYLOAD", "stream o changed its payload before the transfer"),
        ("REPEATS_LAST", f"stream o sent more than {COUNT} beats"),
        ("HANGS", rf"nothing has moved for .* cycles: i sent .*/{COUNT}, o received .*/{COUNT}"),
    ],
)
def test_broken_rule_is_named(rng, seed, defect, symptom):
    with pytest.raises(SimulationError, match=symptom):
        run(defect, rng, seed, idle=0.2, stall=0.5)


def test_corrupt_payload_is_returned(rng, seed):
    assert not run("CORRUPTS", rng, seed)


def test_valid_that_waits_for_ready_hangs(rng, seed):
    assert run("WAITS_FOR_READY", rng, seed)
    with pytest.raises(SimulationError, match=r"nothing has moved for .* cycles: .* o received 0/"):
        run("WAITS_FOR_READY", rng, seed, wait_for_valid=True)


def test_missing_reset_is_seen_by_a_reset_in_the_midst(rng, seed):
    with pytest.raises(SimulationError, match="sent more than"):
        run("LACKS_RESET", rng, seed, stall=0.9, resets=[40])


def test_missing_reset_is_seen_at_power_up(rng, seed):
    """Registers power up random: over a few seeds both values of one bit occur."""

    def passes(power_up: int) -> bool:
        try:
            return run("LACKS_RESET", rng, power_up)
        except SimulationError:
            return False

    outcomes = [passes(seed + offset) for offset in range(12)]
    assert any(outcomes)
    assert not all(outcomes)

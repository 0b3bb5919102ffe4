"""PEColumn where something waits or ends: results that nobody takes, special values within packets, full counters."""

import numpy as np
import pytest
import torch

from hw.bitserial.special_values import SpecialWrite
from sim.job import Job, run_job, run_jobs
from sim.layout import pack
from spec.config import ColumnConfig
from spec.datatypes import Datatype
from spec.errors import WeightError
from verif.bitserial.column_stimulus import PacketSet, column, inputs, job, rows
from verif.bitserial.packets import random_packets
from verif.bitserial.typed import SPECIALS, allowed_specials

TINY = ColumnConfig(pes=2, group_size=32)
FP = (Datatype.FP3, Datatype.FP4)


def good_set(rng, config: ColumnConfig, length: int, datatypes) -> PacketSet:
    packets = random_packets(rng, config.pes, length, 32, config.lanes, datatypes=datatypes)
    beats = -(-length // config.lanes)
    activations = rng.standard_normal(beats * config.lanes).astype(np.float16)
    return PacketSet(packets, torch.from_numpy(activations))


@pytest.mark.sim
@pytest.mark.parametrize("pes", [2, 3])
def test_results_that_nobody_takes(pes, rng, seed):
    """The shortest rows of all, which finish faster than results leave: rows wait for room, and none is lost."""
    config = ColumnConfig(pes=pes, group_size=32)
    sets = [good_set(rng, config, config.lanes, (Datatype.TERNARY, Datatype.BINARY)) for _ in range(60)]
    stall = [True] * 400 + [False, True] * 8
    result = run_job(column(config), seed=seed, **vars(job(config, sets, stall=stall)))
    bits, marked = rows(config, result)
    assert not marked.any()
    np.testing.assert_array_equal(bits, np.stack([one.expected(config).bits for one in sets]))


@pytest.mark.sim
def test_special_values_wait_for_the_end_of_a_packet(rng, seed):
    """A value offered within an activation packet is taken between packets, and holds for those that begin after it."""
    config = TINY
    sets = [good_set(rng, config, 96, FP) for _ in range(40)]
    count = 80
    index, value = rng.integers(0, 8, count), rng.choice(allowed_specials(config.signed_special_terms), count)
    streams = inputs(config, sets)
    streams["special"] = pack(SpecialWrite, {"value": value, "index": index})
    whole = job(config, sets)
    idle = {"special": 0.97, "activations": 0.4}
    result = run_job(column(config), streams, whole.outputs, signals=whole.signals, idle=idle, seed=seed)

    taken = result.input_cycles["special"]
    beats = result.input_cycles["activations"].reshape(len(sets), -1)
    within = (taken[:, None] > beats[:, 0]) & (taken[:, None] < beats[:, -1])
    assert not within.any(), "taken in the midst of a packet"
    between = (taken < beats[-1, 0]).sum()
    assert between > 20, "too few values came while packets did"
    registers, done, want = list(SPECIALS["FP3"] + SPECIALS["FP4"]), 0, []
    for one, first in zip(sets, beats[:, 0].tolist(), strict=True):
        while done < count and taken[done] < first:
            registers[index[done]] = int(value[done])
            done += 1
        want.append(one.expected(config, {FP[0]: tuple(registers[:4]), FP[1]: tuple(registers[4:])}).bits)
    np.testing.assert_array_equal(rows(config, result)[0], np.stack(want))


@pytest.mark.sim
def test_error_counter_stops_at_its_largest(rng, seed):
    """65535 errors and then more: the counter stays, clearing takes it to 0."""
    config = TINY
    streams = {name: beats[:0] for name, beats in inputs(config, [good_set(rng, config, 32, FP)]).items()}

    def refusals(count: int, clear: int = 0, reset: bool = False) -> Job:
        special = pack(SpecialWrite, {"value": np.full(count, 127), "index": np.arange(count) % 8})
        return Job(
            inputs=streams | {"special": special},
            outputs={},
            signals={"clear": clear},
            observe=("status",),
            reset=reset,
        )

    jobs = [refusals(65_534, reset=True), refusals(1), refusals(9), refusals(0, clear=1), refusals(3)]
    results = run_jobs(column(config), jobs, seed=seed)
    counts = [result.observed["status"] >> 7 for result in results]
    assert counts == [65_534, 65_535, 65_535, 0, 3]
    assert results[2].observed["status"] & 0x7F == WeightError.SPECIAL_REFUSED

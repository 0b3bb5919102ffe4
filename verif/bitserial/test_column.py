"""PEColumn bit for bit against golden: mixed datatypes, traffic, every class of error, resets, rates."""

import json

import numpy as np
import pytest
import torch

from golden.bitserial.column import dot_products
from golden.weights import QuantizedWeight, row_packets
from hw.bitserial.special_values import SpecialWrite
from sim.build import ROOT
from sim.job import Job, run_jobs
from sim.layout import pack
from spec.config import ColumnConfig
from spec.datatypes import Datatype
from spec.errors import WeightError
from verif.bitserial.column_stimulus import ACTIVATIONS, PacketSet, column, inputs, job, random_set, rows
from verif.bitserial.coverage import Coverage
from verif.bitserial.packets import CORRUPTIONS
from verif.bitserial.typed import CODES, SPECIALS, allowed_specials

CONFIGS = {
    "tiny": ColumnConfig(pes=2, group_size=32),
    "paper": ColumnConfig(),
    "odd": ColumnConfig(pes=3, lanes=2, rounding="rne", group_size=32, signed_special_terms=True),
}
TRAFFIC = [(0.0, 0.0, 1), (0.4, 0.0, 1), (0.0, 0.7, 1), (0.3, 0.3, 6), (0.0, 0.95, 20)]
"""(idle, stall, mean length of idle and stalled runs)"""


def drawn(rng, config, *arguments, **options) -> PacketSet:
    """A random set; drawn again where it cannot be spoiled as asked."""
    while True:
        try:
            return random_set(rng, config, *arguments, **options)
        except LookupError:
            pass


def check(config, sets, result, special_values=None, want=None) -> int:
    """Bits and marks of every row; returns how many are marked."""
    want = want or [one.expected(config, special_values) for one in sets]
    bits, marked = rows(config, result)
    np.testing.assert_array_equal(marked, np.stack([one.marked for one in want]))
    np.testing.assert_array_equal(bits, np.stack([one.bits for one in want]))
    return int(marked.sum())


@pytest.mark.sim
@pytest.mark.parametrize("name", CONFIGS)
def test_good_and_bad_packets(name, rng, seed):
    """Every way to spoil a packet in some PEs while others are exact, good sets between; traffic on every stream."""
    config = CONFIGS[name]
    traffic = TRAFFIC if name == "tiny" else TRAFFIC[3:4]  # golden takes most of the time
    coverage = Coverage(
        f"column-{name}",
        {
            "spoiled packet": CORRUPTIONS,
            "activations": ACTIVATIONS,
            "traffic": range(len(traffic)),
            "PEs marked in a set": ("none", "some", "all"),
            "flag": [flag for flag in WeightError if flag is not WeightError.SPECIAL_REFUSED],
        },
    )
    jobs, all_sets, expected = [], [], []
    for index, (idle, stall, burst) in enumerate(traffic):
        sets = []
        for kind in CORRUPTIONS:
            pe = int(rng.integers(config.pes))
            sets += [drawn(rng, config, {pe: kind}), drawn(rng, config)]
            coverage.hit("spoiled packet", kind)
        for how in ACTIVATIONS:
            sets += [drawn(rng, config, how=how), drawn(rng, config)]
            coverage.hit("activations", how)
        coverage.hit("traffic", index)
        expected.append([one.expected(config) for one in sets])
        for want in expected[-1]:
            count = int(want.marked.sum())
            coverage.hit("PEs marked in a set", "none" if not count else "all" if count == config.pes else "some")
            for flags in want.flags:
                for flag in flags:
                    coverage.hit("flag", flag)
        all_sets.append(sets)
        resets = rng.integers(3, 600, 3).tolist()
        jobs.append(job(config, sets, idle=idle, stall=stall, burst=burst, resets=resets))
    coverage.close()
    for sets, want, result in zip(all_sets, expected, run_jobs(column(config), jobs, seed=seed), strict=True):
        marked = check(config, sets, result, want=want)
        status = result.observed["status"]
        assert status >> 7 == marked
        assert bool(status & 0x7F) == bool(marked)


@pytest.mark.sim
def test_flags_of_one_error(rng, seed):
    """A single error of each class raises the flag that golden states, and clearing takes it away."""
    config = CONFIGS["tiny"]
    good = drawn(rng, config)
    jobs, ones, unions = [], [], []
    for kind in [*CORRUPTIONS, *ACTIVATIONS]:
        while True:
            one = drawn(rng, config, {0: kind}) if kind in CORRUPTIONS else drawn(rng, config, how=kind)
            flags = one.expected(config).flags
            if all(int(flag).bit_count() <= 1 for flag in flags):
                break
        ones.append(one)
        unions.append(int(flags[0] | flags[1]))
        jobs += [
            job(config, [one, good], reset=not jobs),
            job(config, [good], clear=1, reset=False),
            job(config, [good], reset=False),
        ]
    results = run_jobs(column(config), jobs, seed=seed)
    for one, union, first, third in zip(ones, unions, results[::3], results[2::3], strict=True):
        marked = check(config, [one, good], first)
        assert first.observed["status"] == marked << 7 | union
        assert check(config, [good], third) == 0
        assert third.observed["status"] == 0


@pytest.mark.sim
@pytest.mark.parametrize("name", ["tiny", "odd"])
def test_special_values_between_packets(name, rng, seed):
    """Registers rewritten between packets, refused values among them; what each set is multiplied by follows."""
    config = CONFIGS[name]
    allowed = allowed_specials(config.signed_special_terms)
    registers = list(SPECIALS["FP3"] + SPECIALS["FP4"])
    fp = (Datatype.FP3, Datatype.FP4)
    jobs, plan, refused = [], [], 0
    for k in range(8):
        index, value = rng.integers(0, 8, 12), rng.choice([*allowed, *range(-20, 21), 127, -128], 12)
        for register, number in zip(index.tolist(), value.tolist(), strict=True):
            if number in allowed:
                registers[register] = number
            else:
                refused += 1
        streams = inputs(config, [drawn(rng, config)])
        streams = {stream: beats[:0] for stream, beats in streams.items()}
        streams["special"] = pack(SpecialWrite, {"value": value, "index": index})
        jobs.append(Job(inputs=streams, outputs={}, signals={"clear": 0}, idle=0.3, reset=k == 0))
        sets = [drawn(rng, config, datatypes=fp) for _ in range(6)]
        jobs.append(job(config, sets, idle=0.2, stall=0.2, reset=False))
        plan.append((sets, {fp[0]: tuple(registers[:4]), fp[1]: tuple(registers[4:])}))
    results = run_jobs(column(config), jobs, seed=seed)[1::2]
    for (sets, special_values), result in zip(plan, results, strict=True):
        assert check(config, sets, result, special_values) == 0
    assert refused
    assert results[-1].observed["status"] == refused << 7 | WeightError.SPECIAL_REFUSED


@pytest.mark.sim
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_rates(name, group_size, rng, seed):
    """Cycles per weight are terms / lanes for every datatype, no bubble between groups; a row costs at most one."""
    config = CONFIGS[name]
    length, count = 4 * group_size, 5
    jobs, wanted = [], []
    for field, (_, bits, _, _) in CODES.items():
        codes = torch.from_numpy((rng.integers(0, 2, (count * config.pes, length))).astype(np.uint8))
        assert bits
        weight = QuantizedWeight.from_codes(Datatype(field), codes, group_size=group_size, scale8=7)
        packets = row_packets(weight, lanes=config.lanes)
        activations = torch.from_numpy(rng.standard_normal((count, length))).half()
        sets = [PacketSet(packets[k * config.pes : (k + 1) * config.pes], activations[k]) for k in range(count)]
        jobs.append(job(config, sets))
        options = {"lanes": config.lanes, "rounding": config.rounding, "accumulator_bits": config.accumulator_bits}
        bits = dot_products(weight, activations, **options)
        wanted.append(np.stack([bits[k, k * config.pes : (k + 1) * config.pes] for k in range(count)]))
    report = {}
    for field, want, result in zip(CODES, wanted, run_jobs(column(config), jobs, seed=seed), strict=True):
        datatype, _, terms, _ = CODES[field]
        np.testing.assert_array_equal(rows(config, result)[0], want)
        cycles = np.diff(result.output_cycles["o"][:: config.pes])
        group = max(terms * group_size // config.lanes, config.group_interval)
        ideal = group * length // group_size
        assert (cycles >= ideal).all(), datatype
        assert (cycles <= ideal + (terms == 1)).all(), f"{datatype}: {cycles} cycles per row, {ideal} without bubbles"
        report[datatype] = {"cycles_per_row": int(cycles.max()), "weights_per_row": length, "ideal": ideal}
    path = ROOT / "build" / "verif" / "rates" / f"{name}-{group_size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


@pytest.mark.sim
@pytest.mark.parametrize("digit_bits", [1, 8])
def test_latency(digit_bits, rng, seed):
    """A row's result comes 8 / digit_bits + 8 cycles after its last step, the next PE's a cycle later."""
    config = ColumnConfig(pes=2, group_size=32, digit_bits=digit_bits)
    jobs, terms = [], []
    for field, (_, _, steps, _) in CODES.items():
        codes = torch.zeros(config.pes, 64, dtype=torch.uint8)
        weight = QuantizedWeight.from_codes(Datatype(field), codes, group_size=32, scale8=1)
        activations = torch.from_numpy(rng.standard_normal(64)).half()
        jobs.append(job(config, [PacketSet(row_packets(weight, lanes=config.lanes), activations)]))
        terms.append(steps)
    for steps, result in zip(terms, run_jobs(column(config), jobs, seed=seed), strict=True):
        last_step = result.input_cycles["activations"][-1] + steps
        assert (result.output_cycles["o"] - last_step).tolist() == [8 // digit_bits + 8, 8 // digit_bits + 9]

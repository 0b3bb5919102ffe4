"""BitSerialPE and RescaledPE, bit for bit against golden, with every rounding event covered."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from golden.bitserial.decoder import Terms
from golden.bitserial.dot import group_sums
from golden.bitserial.pe import Activations, accumulate
from golden.llm import capture_activations
from golden.weights import QuantizedWeight, quantize
from hw.bitserial.dequantizer import RescaledPE, ScaledSum
from hw.bitserial.pe import BitSerialPE
from sim.design import build_design
from sim.layout import unpack
from spec.datatypes import Datatype
from verif.bitserial import pe_stimulus
from verif.bitserial.pe_coverage import cover
from verif.bitserial.pe_stimulus import PROFILES, TERMS
from verif.bitserial.pe_trace import Steps, final
from verif.bitserial.player import play
from verif.bitserial.ports import partial_sum, step_port
from verif.golden.weights_helpers import random_weight, real_layer

CONFIGS = {
    # lanes, rounding, digit_bits, accumulator_bits
    "paper": (4, "trunc", 1, 15),
    "rne": (4, "rne", 1, 15),
    "2 lanes": (2, "rne", 2, 16),
    "8 lanes": (8, "trunc", 4, 17),
    "8 lanes, rne": (8, "rne", 8, 17),
    "2 lanes, trunc": (2, "trunc", 8, 15),
    "16 bits": (4, "trunc", 2, 16),
}
"""Every value of every parameter, and every pair of rounding with lanes and with accumulator width."""

GROUPS = 20
"""Random groups for each pair of an exponent profile and a kind of terms."""
STEP_FIELDS = ("man", "x", "sign", "activations", "bsig")


def golden(steps: Steps, rounding: str, accumulator_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A and X of every group, by golden's model."""
    a = torch.zeros(steps.length.shape, dtype=torch.int32)
    x = torch.zeros_like(a)

    def tensor(array):
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int32))

    for k in range(len(steps.bsig)):
        term = Terms(*(tensor(array[k].T) for array in (steps.sign, steps.man, steps.x)), tensor(steps.bsig[k]))
        bits = np.ascontiguousarray(steps.activations[k].T).view(np.int16)
        a, x = accumulate(
            a, x, term, Activations.split(torch.from_numpy(bits).view(torch.float16)), rounding, accumulator_bits
        )
    return a.numpy(), x.numpy()


def schedule(steps: Steps, rng, distance: int, bubbles: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which (step, group) each cycle holds, -1 for a bubble, and the cycle of each group's last step.

    Groups come in order. Their last steps lie at least ``distance`` cycles apart, and no further for most.
    """
    k, group, last, cycle = [], [], np.zeros(len(steps.length), np.int64), 0
    for index, length in enumerate(steps.length):
        gaps = rng.geometric(1 - bubbles, length) - 1 if bubbles and rng.random() < 0.5 else np.zeros(length, int)
        earliest = (last[index - 1] + distance if index else 0) - (cycle + length + gaps.sum() - 1)
        gaps[rng.integers(length)] += max(0, earliest)
        for step, gap in enumerate(gaps):
            k += [-1] * gap + [step]
            group += [-1] * gap + [index]
        cycle = len(k)
        last[index] = cycle - 1
    return np.array(k), np.array(group), last


def stimulus(steps: Steps, rng, distance: int, bubbles: float, tail: int):
    """(valid, step port, cycle of each group's last step): noise in the bubbles and after the end."""
    k, group, last = schedule(steps, rng, distance, bubbles)
    k, group = np.pad(k, (0, tail), constant_values=-1), np.pad(group, (0, tail), constant_values=-1)
    valid, cycles, lanes = k >= 0, len(k), steps.man.shape[2]
    shape = (cycles, lanes)

    def spread(array, noise):
        return np.where(valid.reshape(-1, *[1] * (array.ndim - 2)), array[k, group], noise)

    ends = np.zeros(cycles, np.int64)
    ends[last] = 1
    port = step_port(
        spread(steps.sign, rng.integers(0, 2, shape)).astype(np.uint64),
        spread(steps.man, rng.integers(0, 2, shape)).astype(np.uint64),
        spread(steps.x, rng.integers(0, 4, shape)).astype(np.uint64),
        spread(steps.activations, rng.integers(0, 1 << 16, shape)).astype(np.uint64),
        spread(steps.bsig, rng.integers(0, 8, cycles)).astype(np.uint64),
        np.where(valid, ends, rng.integers(0, 2, cycles)).astype(np.uint64),
    )
    return valid, port, last


def stimulate(lanes: int, accumulator_bits: int, rng, groups: int) -> Steps:
    """The directed corners and ``groups`` random groups for every pair of profile and kind of terms, shuffled."""
    parts = [pe_stimulus.directed(lanes, accumulator_bits)[1]]
    for profile in PROFILES:
        parts += [pe_stimulus.random_groups(rng, profile, kind, groups, lanes) for kind in TERMS]
    steps = pe_stimulus.joined(parts)
    order = rng.permutation(len(steps.length))
    return Steps(*(getattr(steps, name)[:, order] for name in STEP_FIELDS), steps.length[order])


@dataclass
class Recording:
    """What a RescaledPE was given and what came out, per group."""

    scale8: np.ndarray
    last: np.ndarray  # cycle of the last step
    mantissa: np.ndarray  # D
    exponent: np.ndarray  # X


def rescale(built, config, steps: Steps, rng, seed: int, bubbles: float = 0.3) -> Recording:
    """Play steps through a RescaledPE. Latency, and silence when nothing is due, are asserted."""
    digit_bits, accumulator_bits = config[2:]
    latency = 2 + 8 // digit_bits
    valid, port, last = stimulus(steps, rng, 8 // digit_bits, bubbles, tail=latency + 8)
    scale8 = rng.choice([0, 1, 127, 128, 255, *rng.integers(0, 256, 11)], len(last))
    scale = rng.integers(0, 256, len(valid))
    scale[last + 2] = scale8
    recording = play(built, {"valid": valid, "step": port, "scale": scale}, ["o", "o_valid"], seed=seed)
    due = np.zeros(len(valid), bool)
    due[last + latency] = True
    np.testing.assert_array_equal(recording["o_valid"].astype(bool), due)
    fields = unpack(ScaledSum(accumulator_bits), recording["o"][due])
    return Recording(scale8, last, fields["mantissa"], fields["exponent"].astype(np.int64))


def rescaled_pe(config):
    return build_design(RescaledPE(*config), "rescaled_pe")


def check(config, steps: Steps, rng, seed: int, **options) -> Recording:
    """Every group's D and X equal golden's, and golden's equal those of the trace that coverage is counted from."""
    _lanes, rounding, _digit_bits, accumulator_bits = config
    a, x = golden(steps, rounding, accumulator_bits)
    for mine, theirs in zip(final(steps, rounding, accumulator_bits), (a, x), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    recording = rescale(rescaled_pe(config), config, steps, rng, seed, **options)
    np.testing.assert_array_equal(recording.mantissa, a * recording.scale8)
    np.testing.assert_array_equal(recording.exponent, x)
    return recording


@pytest.mark.sim
@pytest.mark.parametrize("name", CONFIGS)
def test_constrained_random(name, rng, seed):
    """Exponent profiles x kinds of terms, corners among them, at the shortest group distances and with bubbles."""
    config = CONFIGS[name]
    steps = stimulate(config[0], config[3], rng, groups=GROUPS)
    recording = check(config, steps, rng, seed)
    cover(f"pe-{name.replace(', ', '-').replace(' ', '-')}", config, steps, recording.scale8, recording.last)


@pytest.mark.sim
@pytest.mark.parametrize("rounding", ["trunc", "rne"])
@pytest.mark.parametrize("digit_bits", [1, 8])
def test_no_bubble_at_the_shortest_distance(rounding, digit_bits, rng, seed):
    """Groups of exactly 8 / digit_bits steps, back to back: a result every 8 / digit_bits cycles."""
    distance = 8 // digit_bits
    steps = stimulate(4, 15, rng, groups=2)
    steps = Steps(*(getattr(steps, name)[:distance] for name in STEP_FIELDS), np.full_like(steps.length, distance))
    recording = check((4, rounding, digit_bits, 15), steps, rng, seed, bubbles=0.0)
    np.testing.assert_array_equal(np.diff(recording.last), distance)


@pytest.mark.sim
@pytest.mark.parametrize("rounding", ["trunc", "rne"])
def test_corner_values(rounding, rng, seed):
    """Groups whose sums are known beforehand."""
    config = (4, rounding, 1, 15)
    names, steps = pe_stimulus.directed(4, 15)
    recording = check(config, steps, rng, seed)
    a, x = golden(steps, rounding, 15)
    sums = dict(zip(names, np.ldexp(a.astype(float), x - 28), strict=True))
    assert sums["three ones beside 60000 x 0"] == 3
    assert sums["large beside a zero weight"] == 1
    assert sums["smallest subnormal"] == 2.0**-24
    assert sums["published width loses the sign"] == pytest.approx(4 * 64 * 2047 * (2.0**-15 + 2.0**-5), rel=2**-13)
    assert sums["largest overflow"] == pytest.approx(8 * 65504 * (1 + 4 * 64), rel=2**-13)
    carry = sums["carry out of rounding"]
    assert carry == (2.0**20 if rounding == "rne" else (2**14 - 1) * 2.0**6)
    assert sums["carry out of rounding, negative"] == -carry
    assert sums["least mantissa"] == -(2.0**19)
    assert len(recording.mantissa) == len(names)


@pytest.mark.sim
@pytest.mark.parametrize("rounding", ["trunc", "rne"])
def test_every_datatype(rounding, rng, seed):
    """Groups of random codes of every datatype, G = 32 and short ones: golden's sums from codes, not from steps."""
    config = (4, rounding, 1, 15)
    rows = len(Datatype)
    for length in (96, 39):
        weight = random_weight(rng, rows, length, 32)
        weight.datatype[:] = torch.arange(1, rows + 1)[:, None]
        codes = torch.from_numpy(rng.integers(0, 2, (rows, length)).astype(np.uint8))
        weight = QuantizedWeight.from_codes(
            weight.datatype, codes, group_size=32, select=weight.select, scale8=weight.scale8
        )
        activations = torch.from_numpy(rng.standard_normal((3, length)) * 10.0 ** rng.integers(-3, 4, (3, length)))
        run_weight(config, weight, activations.half(), rng, seed)


@pytest.mark.sim
@pytest.mark.parametrize("name", ["paper", "rne"])
@pytest.mark.parametrize("datatype", ["FP4", "INT6"])
def test_real_layer(name, datatype, rng, seed):
    """A real layer's weights and the activations that reach it; 576 inputs, so the last group is short."""
    layer = "model.layers.5.self_attn.q_proj"
    weight = quantize(real_layer(layer)[:4], Datatype[datatype])
    activations = capture_activations([layer], tokens=16)[layer][8:11]
    run_weight(CONFIGS[name], weight, activations, rng, seed)


def run_weight(config, weight: QuantizedWeight, activations: torch.Tensor, rng, seed: int) -> None:
    lanes, rounding, _digit_bits, accumulator_bits = config
    steps = pe_stimulus.coded(weight, activations, lanes)
    recording = check(config, steps, rng, seed, bubbles=0.05)
    a, x = group_sums(weight, activations, lanes=lanes, rounding=rounding, accumulator_bits=accumulator_bits)
    np.testing.assert_array_equal(recording.mantissa, a.flatten().numpy() * recording.scale8)
    np.testing.assert_array_equal(recording.exponent, x.flatten().numpy())


@pytest.mark.sim
@pytest.mark.parametrize("config", [(4, "trunc", 15), (8, "rne", 16)], ids=["paper", "8 lanes, rne"])
def test_partial_sums(config, rng, seed):
    """BitSerialPE without its dequantizer: groups of one step and more without a bubble, 2 cycles after the last."""
    lanes, rounding, accumulator_bits = config
    steps = stimulate(lanes, accumulator_bits, rng, groups=4)
    valid, port, last = stimulus(steps, rng, 1, 0.2, tail=8)
    built = build_design(BitSerialPE(*config), "bit_serial_pe")
    recording = play(built, {"valid": valid, "step": port}, ["o", "o_valid"], seed=seed)
    due = np.zeros(len(valid), bool)
    due[last + 2] = True
    np.testing.assert_array_equal(recording["o_valid"].astype(bool), due)
    got = partial_sum(recording["o"][due], accumulator_bits)
    for mine, theirs in zip(got, golden(steps, rounding, accumulator_bits), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.sim
@pytest.mark.parametrize("rounding", ["trunc", "rne"])
@pytest.mark.parametrize("cycles", [1, 3])
def test_reset_within_a_group(rounding, cycles, rng, seed):
    """Resets at random cycles: nothing of what was under way comes out, and the next group is exact."""
    config = (4, rounding, 1, 15)
    latency = 10
    built = rescaled_pe(config)
    for power_up in range(seed, seed + 3):
        steps = stimulate(4, 15, rng, groups=1)
        a, x = golden(steps, rounding, 15)
        valid, port, last = stimulus(steps, rng, 8, 0.1, tail=latency + 2)
        first = np.concatenate([[0], last[:-1] + 1])
        rst = np.zeros(len(valid), bool)
        resets = np.sort(rng.choice(len(valid) - cycles, 40, replace=False))
        for reset in resets:
            rst[reset : reset + cycles] = True
        scale8 = rng.integers(0, 256, len(last))
        scale = rng.integers(0, 256, len(valid))
        scale[last + 2] = scale8
        recording = play(
            built, {"valid": valid, "step": port, "scale": scale, "rst": rst}, ["o", "o_valid"], seed=power_up
        )
        # A group that a reset cuts is lost; its remaining steps make a group of their own, which is not looked at.
        since = np.concatenate([[0], np.cumsum(rst)])
        whole = since[last + latency] == since[first]
        out = unpack(ScaledSum(15), recording["o"])
        due = (last + latency)[whole]
        assert recording["o_valid"][due].all()
        np.testing.assert_array_equal(out["mantissa"][due], (a * scale8)[whole])
        np.testing.assert_array_equal(out["exponent"][due], x[whole])
        after = np.flatnonzero(rst) + 1
        assert not recording["o_valid"][after].any(), "a result survives the reset"
        rest = np.isin(np.flatnonzero(recording["o_valid"]), last + latency)
        assert rest.all(), "a result where no group ends"
        assert whole.sum() > 20
        assert (~whole).sum() > 20

"""How busy the core's array is: steady state, short jobs; results bit for bit the models'."""

import numpy as np
import pytest
import torch

from golden.core import CoreJob, activation_stream, core_layer, result_beats, result_matrix, weight_stream
from hosts.core import CoreRequest, run_core
from spec.core import CoreConfig
from spec.datatypes import Datatype
from spec.system import core_preset
from verif.core.fuzz import build_core
from verif.golden.weights_helpers import random_weight

PAPER = (Datatype.FP3, Datatype.FP4, Datatype.INT6, Datatype.INT8)
"""BitMoD's datatypes of one, two, two and three steps in ``dense``."""


def run_layers(
    config: CoreConfig, layers: list[tuple[tuple[Datatype, ...], int, int, int]], seed: int
) -> list[dict[str, int]]:
    """Registers after each job (datatypes, M, K, N) of largest groups; every result must be that of the model."""
    rng = np.random.default_rng(seed)
    requests, expected = [], []
    for datatypes, tokens, inputs, outputs in layers:
        weight = random_weight(rng, outputs, inputs, max(config.group_sizes), datatypes)
        activations = torch.from_numpy(rng.standard_normal((tokens, inputs)).astype(np.float16))
        expected.append(core_layer(weight, activations, datapath=config.datapath))
        requests.append(
            CoreRequest(
                job=CoreJob.of(config, weight, tokens),
                weights=weight_stream(config, weight, tokens),
                activations=activation_stream(config, activations, outputs),
                results=len(result_beats(config, expected[-1], inputs)["tlast"]),
            )
        )
    built = build_core(config)
    runs = run_core(built, config, requests, seed=seed)
    for (_datatypes, tokens, inputs, outputs), one, run in zip(layers, expected, runs, strict=True):
        bits, _marked, received = result_matrix(config, run.beats, tokens, inputs, outputs)
        assert received.all()
        np.testing.assert_array_equal(bits, one.bits)
        assert run.registers["MACS"] == tokens * inputs * outputs
        assert run.registers["ERROR"] == 0
    return [run.registers for run in runs]


def steady(short: dict[str, int], long: dict[str, int]) -> float:
    """Busy share of the cycles that the longer of two jobs on one layer takes more: no first fill, no end."""
    return (long["BUSY_CYCLES"] - short["BUSY_CYCLES"]) / (long["CYCLES"] - short["CYCLES"])


def busy(registers: dict[str, int]) -> float:
    """From the start of a job to its end."""
    return registers["BUSY_CYCLES"] / registers["CYCLES"]


@pytest.mark.full
@pytest.mark.sim
@pytest.mark.parametrize(
    ("inputs", "outputs", "datatypes"),
    [(576, 576, tuple(Datatype)), (576, 1536, PAPER), (1536, 576, PAPER)],
    ids=["576x576", "1536x576", "576x1536"],
)
def test_busy(inputs, outputs, datatypes, seed):
    """Layers in 16 and 32 tokens. K = 576 ends each row with a group of 64, which counts as the 4 beats that it has."""
    config = core_preset("dense")
    layers = [((datatype,), tokens, inputs, outputs) for datatype in datatypes for tokens in (16, 32)]
    found = run_layers(config, layers, seed)
    rates = {
        datatype.name: (busy(found[2 * k]), steady(*found[2 * k : 2 * k + 2])) for k, datatype in enumerate(datatypes)
    }
    assert min(rate for _, rate in rates.values()) >= 0.95, rates


@pytest.mark.full
@pytest.mark.sim
def test_few_tokens(seed):
    """One set of tokens: a sum's groups are 16 cycles apart at least, which binds datatypes of one step only."""
    config = core_preset("dense")
    layers = [((datatype,), tokens, 576, 576) for datatype in PAPER for tokens in (8, 16)]
    found = run_layers(config, layers, seed)
    one_set = {datatype: busy(found[2 * k]) for k, datatype in enumerate(PAPER)}
    # The first 8 tokens' activations are 240 cycles, the pipelines 100.
    assert one_set[Datatype.FP3] > 0.5
    assert min(rate for datatype, rate in one_set.items() if datatype != Datatype.FP3) > 0.92


@pytest.mark.full
@pytest.mark.sim
def test_paper(seed):
    """Bit-serial PEs: every datatype in one ragged job, and the rate of an FP4 layer."""
    config = core_preset("paper")
    layers = [
        (tuple(Datatype), 19, 300, 21),
        ((Datatype.FP4,), 16, 576, 144),
        ((Datatype.FP4,), 32, 576, 144),
        ((Datatype.BINARY,), 3, 64, 9),
    ]
    found = run_layers(config, layers, seed)
    assert steady(*found[1:3]) >= 0.95

"""The core as someone else's AXI models see it: packets, TKEEP, TUSER, TLAST, interrupts."""

import numpy as np
import pytest

from golden.core import CoreJob, activation_stream, job_model, result_beats, weight_stream
from hosts.core import accesses
from sim.runner import run
from spec.system import core_preset
from verif.core.fuzz import build_core
from verif.golden.weights_helpers import random_activations, random_weight

TINY = core_preset("tiny")


@pytest.mark.sim
def test_behind_cocotbext_axi(rng, seed):
    """FP32 and FP16, partial last beats, a job with an Inf: bytes, marks, packets, registers and interrupt."""
    vectors, jobs = {}, []
    for number, (shape, fp16) in enumerate([((5, 70, 9), False), ((3, 40, 7), True), ((4, 33, 2), False)]):
        tokens, inputs, outputs = shape
        weight, activations = random_weight(rng, outputs, inputs, 32), random_activations(rng, tokens, inputs)
        if number == 2:
            activations[1, 5] = float("inf")
        job = CoreJob.of(TINY, weight, tokens, fp16=fp16)
        sent = {
            "weights": weight_stream(TINY, weight, tokens),
            "activations": activation_stream(TINY, activations, outputs),
        }
        model = job_model(TINY, job, *(packets.split() for packets in sent.values()))
        beats = result_beats(TINY, model.result, inputs)
        kept = beats["tkeep"].astype(bool)
        user = (beats["tuser"] << np.arange(2 * TINY.result_lanes)).sum(1)
        ends = kept.sum(1).cumsum()[beats["tlast"].astype(bool)]
        vectors |= {f"{number}/{name}": packets.octets() for name, packets in sent.items()}
        vectors |= {
            f"{number}/results": beats["tdata"][kept],
            f"{number}/marks": np.broadcast_to(user[:, None], kept.shape)[kept],
        }
        writes = accesses([("CONTROL", 4), ("ERROR_FLAGS", 0x3FFF), *job.registers().items(), ("CONTROL", 1)])
        count = len(model.errors)
        jobs.append(
            {
                **{name: packets.lengths.tolist() for name, packets in sent.items()},
                "writes": [
                    [int(address), int(value)]
                    for address, value in zip(
                        writes["s_axil_aw"]["s_axil_awaddr"], writes["s_axil_w"]["s_axil_wdata"], strict=True
                    )
                ],
                "results": np.diff(ends, prepend=0).tolist(),
                "status": 0b110 if count else 0b010,
                "error": count << 16 | (min(model.errors[0]) if count else 0),
            }
        )
    assert [job["error"] for job in jobs] == [0, 0, 14 | 1 << 16]
    run(build_core(TINY), "verif.tops.tb_core_axi", vectors=vectors, options={"jobs": jobs}, seed=seed)

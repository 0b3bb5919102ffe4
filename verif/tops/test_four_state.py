"""Four-state simulation of every AXI top: nothing that must be known is unknown, whatever is unknown beside it.

Icarus powers registers and memories up unknown; idle payloads are unknown, and a RAM gives X for an address that is
written in the same cycle. Valid, ready and irq are looked at in every cycle; a job is cut off by a reset, then runs
whole, and is compared bit for bit, once with the unknown bits of payloads as 0 and once as 1: one that counts fails.
"""

from dataclasses import asdict, replace

import numpy as np
import pytest

from golden.kv.pack import pack_block
from hosts.address_generator import columns_of, tight_pools
from hosts.attention.axi import as_core_result, score_axi_job, value_axi_job
from hosts.attention.lists import compare_scores
from hosts.attention.value_lists import compare_values
from hosts.core import LITE, accesses, octets, run_core
from hw.axi.definitions import load_map
from hw.kv.engine import KvDequantizer
from hw.rlkv.layouts import CommandLayout, OperationLayout
from hw.tops.address_generator import KvAddressGeneratorAxi
from hw.tops.core import AcceleratorCoreAxi
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi
from sim.icarus import available, build_four_state
from sim.job import Job, run_jobs
from sim.layout import pack
from spec.datatypes import Datatype
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvTransform
from spec.rlkv_transfers import RlkvCommand, RlkvOperation
from spec.system import SYSTEMS
from verif.attention.test_scores import random_list as key_list
from verif.attention.test_value import random_list as value_list
from verif.core.configs import small_core
from verif.core.test_core import check, drawn, request
from verif.kv.bench import compare, engine_job
from verif.kv.blocks import random_block, random_header
from verif.kv.defects import defects
from verif.rlkv.scenario import disciplined
from verif.tops.test_address_generator import as_bytes

pytestmark = [
    pytest.mark.sim,
    pytest.mark.skipif(not available(), reason="needs Icarus Verilog (Debian: apt install iverilog)"),
]
TRAFFIC = {"idle": 0.2, "stall": 0.2}
ATTENTION = SYSTEMS["tiny"].attention
ENGINE = KvEngineConfig(
    lanes=4, transforms={KvTransform.WHT, KvTransform.RFFT}, max_channels=64, interleave=True, centre=True
)


@pytest.fixture(params=[0, 1], ids=["X is 0", "X is 1"])
def build(request):
    return lambda component, name: build_four_state(component, name, unknown=request.param)


def test_core(build, rng, seed):
    config = small_core("tiny")
    problems = [drawn(rng, (3, 70, 5), 32, [Datatype.FP4, Datatype.INT8], fp16=k == 1) for k in range(2)]
    resets = [(int(rng.integers(300, 500)),), ()]
    requests = [
        request(rng, config, problem, **TRAFFIC, resets=cut) for problem, cut in zip(problems, resets, strict=True)
    ]
    built = build(AcceleratorCoreAxi(config), "accelerator_core_axi")
    for problem, run in zip(problems, run_core(built, config, requests, seed=seed), strict=True):
        check(config, problem, run)


@pytest.mark.full
def test_score_core(build, rng, seed):
    lists = [key_list(rng, ATTENTION, items=2, rows=3, channels=32) for _ in range(2)]
    job, expected = score_axi_job(lists, ATTENTION, **TRAFFIC, resets=[400])
    result = run_job_of(build(ScoreCoreAxi(ATTENTION), "score_core_axi"), job, seed)
    compare_scores(as_core_result(result, "m_axis_scores"), expected)


@pytest.mark.full
def test_value_core(build, rng, seed):
    lists = [value_list(rng, ATTENTION, ATTENTION.channels, items=2, rows=3) for _ in range(2)]
    job, expected = value_axi_job(lists, ATTENTION, **TRAFFIC, resets=[400])
    result = run_job_of(build(ValueCoreAxi(ATTENTION), "value_core_axi"), job, seed)
    found = as_core_result(result, "m_axis_results")
    compare_values(replace(found, observed={"error_count": result.observed["irq"]}), expected)


def test_address_generator(build, rng, seed):
    config = SYSTEMS["tiny"].address_generator
    case = disciplined(config, tight_pools(config, full=12, window=12, blocks=60), rng, steps=6)
    words = [(name.upper(), value) for name, value in asdict(case.pools).items()]
    words = [
        (f"{name}{half}", value >> shift)
        for name, value in words
        for half, shift in ((("_LOW", 0), ("_HIGH", 32)) if name.endswith("_BASE") else (("", 0),))
    ]
    labels = {register.name: register.address for register in load_map("address_generator").registers}
    writes = [(labels[name], value) for name, value in words]
    lite = accesses(writes)
    operations = pack(OperationLayout(config), columns_of(case.ops, RlkvOperation))
    commands = as_bytes(CommandLayout(config), case.expected, RlkvCommand)
    pools = Job(
        inputs=lite,
        outputs={"s_axil_b": len(writes)},
        wires={name: LITE[name] for name in ("s_axil_aw", "s_axil_w", "s_axil_b")},
        resets=[7],
    )
    job = Job(
        inputs={"s_axis_operations": {"tdata": operations}},
        outputs={"m_axis_commands": len(commands)},
        reset=False,
        observe=["irq"],
        **TRAFFIC,
    )
    _, result = run_jobs(build(KvAddressGeneratorAxi(config), "kv_address_generator_axi"), [pools, job], seed=seed)
    found = octets(np.asarray(result.outputs["m_axis_commands"]["tdata"]), 8 * commands.shape[1])
    np.testing.assert_array_equal(found, commands)
    assert result.observed["irq"] == 0


def run_job_of(built, job, seed):
    return run_jobs(built, [job], seed=seed)[0]


@pytest.mark.full
def test_kv_engine(build, rng, seed):
    """Good packets and bad ones."""
    packets = [pack_block(random_block(rng, random_header(rng, ENGINE, rows=4))) for _ in range(6)]
    bad = list(defects(rng, ENGINE))
    packets += [bad[k].packet for k in rng.choice(len(bad), 6, replace=False)]
    packets += packets[:2]
    job, expected = engine_job(packets, ENGINE, **TRAFFIC, resets=[150])
    compare(run_job_of(build(KvDequantizer(ENGINE), "kv_dequantizer"), job, seed), expected, ENGINE)

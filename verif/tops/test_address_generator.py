"""The address generator's AXI block against the model: streams, registers, pools that do not fit, resets."""

from dataclasses import asdict, fields

import numpy as np
import pytest

from hosts.address_generator import Case, columns_of, tight_pools
from hosts.attention.axi import address_of
from hosts.core import LITE, accesses, octets
from hw.rlkv.layouts import CommandLayout, OperationLayout
from hw.tops.address_generator import KvAddressGeneratorAxi, field_positions
from sim.beats import from_ints, to_ints
from sim.design import build_design
from sim.job import Job, run_jobs
from sim.layout import pack
from sim.runner import run
from spec.rlkv import RlkvConfig, RlkvPools, rlkv_preset
from spec.rlkv_transfers import CommandKind, RlkvCommand, RlkvError, RlkvOp
from verif.rlkv.scenario import disciplined, random_masks, wild

CONFIG = rlkv_preset("tiny")
POOLS = {
    name: address_of("address_generator")[register]
    for name, register in (
        ("full_base", "FULL_BASE_LOW"),
        ("full_areas", "FULL_AREAS"),
        ("window_base", "WINDOW_BASE_LOW"),
        ("window_areas", "WINDOW_AREAS"),
        ("block_base", "BLOCK_BASE_LOW"),
        ("blocks", "BLOCKS"),
    )
}


def as_bytes(layout, items, kind) -> np.ndarray:
    """uint8 [item, bytes of TDATA]."""
    size = -(-layout.size // 8)
    values = to_ints(pack(layout, columns_of(items, kind)))
    return np.frombuffer(b"".join(int(value).to_bytes(size, "little") for value in values), np.uint8).reshape(-1, size)


def vectors(name: str, case: Case) -> dict[str, np.ndarray]:
    """Operations ``i``, commands ``o``, commands per operation ``n``, status ``s``."""
    config, model = case.config, case.model
    ends = np.flatnonzero([command.last for command in case.expected])
    status = [model.errors, model.count, sum(1 << request for request in model.sequences), model.free_blocks]
    return {
        f"{name}_i": as_bytes(OperationLayout(config), case.ops, type(case.ops[0])),
        f"{name}_o": as_bytes(CommandLayout(config), case.expected, RlkvCommand),
        f"{name}_n": np.diff(ends, prepend=-1),
        f"{name}_s": np.array(status),
    }


def beyond(config: RlkvConfig) -> list[tuple[str, int]]:
    """Each pool register with each of its bits alone that makes a pool too large, all else zero."""
    none = dict.fromkeys((field.name for field in fields(RlkvPools)), 0)
    counts = [(name, 1 << bit) for name in none if not name.endswith("_base") for bit in range(32)]
    bases = [(name, 1 << bit) for name in none if name.endswith("_base") for bit in range(config.address_bits, 64)]
    return bases + [(name, value) for name, value in counts if not RlkvPools(**none | {name: value}).fits(config)]


@pytest.mark.sim
def test_generator_behind_axi(rng, seed):
    pools = tight_pools(CONFIG, full=8, window=9, blocks=40)
    cases = {
        "disciplined": disciplined(CONFIG, pools, rng, steps=6),
        "wild": wild(CONFIG, pools, rng, steps=100),
        "policy": Case(CONFIG, pools),
        "open": Case(CONFIG, pools),
    }
    cases["policy"].policy(random_masks(CONFIG, rng))
    cases["open"].do(RlkvOp.OPEN, request=1)
    vector = {key: value for name, case in cases.items() for key, value in vectors(name, case).items()}
    done = RlkvCommand(kind=CommandKind.DONE, request=1, last=1, status=RlkvError.ADDRESS)
    vector["refused_o"] = as_bytes(CommandLayout(CONFIG), [done], RlkvCommand)
    options = {
        "pools": asdict(pools),
        "beyond": beyond(CONFIG),
        "build": CONFIG.layers - 1 | CONFIG.heads << 8 | CONFIG.group << 16 | CONFIG.requests << 24,
    }
    built = build_design(KvAddressGeneratorAxi(CONFIG), "kv_address_generator_axi")
    run(built, "verif.tops.tb_address_generator", vectors=vector, options=options, seed=seed)


@pytest.mark.sim
def test_long_traffic(rng, seed):
    """Hundreds of operations on pools so small that blocks and areas run out, go back and are given out again."""
    layout, wires = OperationLayout(CONFIG), {name: LITE[name] for name in ("s_axil_aw", "s_axil_w", "s_axil_b")}
    jobs, cases = [], []
    for full, window, blocks, steps in ((8, 9, 12, 700), (4, 12, 5, 700), (12, 12, 40, 400)):
        case = wild(CONFIG, tight_pools(CONFIG, full=full, window=window, blocks=blocks), rng, steps=steps)
        values = asdict(case.pools).items()
        sent = [(POOLS[name], value) for name, value in values]
        sent += [(POOLS[name] + 4, value >> 32) for name, value in values if name.endswith("_base")]
        idle = {name: 0 for name in ("s_axil_arvalid", "s_axil_rready", "s_axis_operations_tvalid")}
        set_pools = {"inputs": accesses(sent), "outputs": {"s_axil_b": len(sent)}, "wires": wires}
        jobs.append(Job(**set_pools, signals=idle | {"m_axis_commands_tready": 0}))
        beats = as_bytes(layout, case.ops, type(case.ops[0]))
        operations = {"tdata": from_ints([int.from_bytes(row.tobytes(), "little") for row in beats], 8 * len(beats[0]))}
        outputs = {"m_axis_commands": len(case.expected)}
        jobs.append(Job(inputs={"s_axis_operations": operations}, outputs=outputs, reset=False, stall=0.2, idle=0.1))
        cases.append(case)
    built = build_design(KvAddressGeneratorAxi(CONFIG), "kv_address_generator_axi")
    for case, result in zip(cases, run_jobs(built, jobs, seed=seed)[1::2], strict=True):
        wanted = as_bytes(CommandLayout(CONFIG), case.expected, RlkvCommand)
        got = octets(result.outputs["m_axis_commands"]["tdata"], 8 * wanted.shape[1])
        np.testing.assert_array_equal(got, wanted)
    assert {RlkvError.BLOCKS, RlkvError.AREAS} <= {command.status for case in cases for command in case.expected}


def test_positions_of_fields_are_the_layout():
    """The positions that the sidecar states are those that the packed beats have."""
    layout = OperationLayout(CONFIG)
    for name, (low, width) in field_positions(layout).items():
        columns = {field: np.array([0], np.uint64) for field, _ in layout} | {name: np.array([1], np.uint64)}
        assert to_ints(pack(layout, columns)) == [1 << low]
        assert width == layout[name].width

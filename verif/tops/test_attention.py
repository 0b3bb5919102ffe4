"""Both cores behind AXI: lists under random back-pressure with resets, bad packets and queries, registers, ports."""

import numpy as np
import pytest
import torch

from golden.attention.query_packet import write_query
from hosts.attention.axi import address_of, score_axi_job, value_axi_job
from hosts.attention.lists import Exact, KeyList
from hosts.attention.value_lists import Expected
from hw.axi.definitions import load_map
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi
from sim.design import build_design
from sim.job import Job
from sim.runner import run
from spec.attention import AttentionError
from spec.kv_block import KvHeader
from spec.kv_config import KvError
from spec.kv_formats import KvFormat
from spec.system import SYSTEMS
from verif.attention.test_scores import random_list as key_list
from verif.attention.test_scores import random_run
from verif.attention.test_scores import spoil as spoil_keys
from verif.attention.test_value import random_list as value_list
from verif.attention.test_value import spoil as spoil_values

CONFIG = SYSTEMS["tiny"].attention


def octets(beats: np.ndarray, size: int) -> np.ndarray:
    """uint8 ``[beats, size]``."""
    return beats if beats.ndim == 2 else beats.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :size]


def sent(rng, case: str, job: Job, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """What goes into the core; TUSER of a packet's later beats, which does not count, is random."""
    found = {}
    for name, parts in job.inputs.items():
        if name == "s_axis_packets":
            later = np.r_[0, 1 - parts["tlast"][:-1]].astype(bool)
            parts = parts | {"tuser": np.where(later, rng.integers(0, 4, len(later)), parts["tuser"])}
        found |= {f"{case}/{name}/{part}": array for part, array in parts.items()}
        found[f"{case}/{name}/tdata"] = octets(parts["tdata"], widths[name])
    return found


def simulate(component, name, vectors, cases, extra, seed):
    magic = load_map(name).registers[0].fields[0].reset
    options = {"registers": address_of(name), "id": magic, "cases": cases} | extra
    run(build_design(component, f"{name}_axi"), "verif.tops.tb_attention", vectors=vectors, options=options, seed=seed)


def bad_queries(rng, found) -> dict[str, bytes]:
    """Packets of the list's query that mark every score."""
    good = write_query(found.query, found.header, found.channels)
    return {
        "infinite": good[:-2] + b"\x00\x7c",
        "short": good[:-8],
        "long": good + rng.bytes(8),
        "no elements": good[:24],
        "no mask": good[:8],
        "reserved": good[:3] + b"\x80" + good[4:],
        "channels": bytes([good[0] | 0xF]) + good[1:],
        "transform": good[:1] + bytes([good[1] | 0x3]) + good[2:],
        "segment": bytes([good[0] | 0xF0]) + good[1:],
    }


LAYOUT_GONE = ("reserved", "channels", "transform", "segment")
"""Bad queries whose layout is no block's any more."""


def one_block(rng):
    """A list of one block of one segment, of fewer channels than the build's."""
    while True:
        found = key_list(rng, CONFIG, items=1, rows=6, format=KvFormat.K1, channels=24)
        if not isinstance(found.items[0], Exact):
            return found


def score_vectors(rng, case: str, job: Job, scores: list[dict]) -> dict[str, np.ndarray]:
    data = np.array([s["value"] | s["value_scale"] << 32 for s in scores], np.uint64)
    flags = {name: np.array([s[name] for s in scores], np.uint8) for name in ("marked", "last", "final")}
    return sent(rng, case, job, {"s_axis_queries": 8, "s_axis_packets": 16}) | {
        f"{case}/m_axis_scores/tdata": octets(data, 8),
        f"{case}/m_axis_scores/tlast": flags["last"],
        f"{case}/m_axis_scores/tuser": flags["marked"] | flags["final"] << 1,
    }


def expected_status(job: Job, lists: int, code: int, count: int) -> dict[str, int]:
    return {"code": int(code), "count": count, "lists": lists, "beats": len(job.inputs["s_axis_packets"]["tlast"])}


@pytest.mark.sim
def test_score_core(rng, seed):
    """Good and bad packets and queries mixed, a bad query alone, good lists."""
    lists, errors, queries = [], [], {}
    for _ in range(8):
        lists.append(key_list(rng, CONFIG, items=4, rows=14))
        errors += [error for n in range(4) if rng.random() < 0.6 and (error := spoil_keys(rng, lists[-1], n))]
    for kind in bad_queries(rng, one_block(rng)):
        found = one_block(rng)
        found.bad[0] = (1 if kind in LAYOUT_GONE else found.items[0].header.rows, 0)
        queries[len(lists)] = bad_queries(rng, found)[kind]
        lists.append(found)
    # A mask whose count is not segment 0's size shows with exact tokens alone: no block can have it.
    found = key_list(rng, CONFIG, items=1, rows=6, format=KvFormat.K2S, channels=64, segment0=32)
    run = random_run(rng, 64, 5)
    found = KeyList(found.query, found.header, found.channels, [run], {}, {0: (5, 0)})
    good = write_query(found.query, found.header, found.channels)
    queries[len(lists)] = good[:9] + bytes([good[9] ^ 4]) + good[10:]
    lists.append(found)
    alone = one_block(rng)
    alone.query[3] = torch.nan
    good = [key_list(rng, CONFIG, rows=12) for _ in range(3)]
    vectors, cases = {}, {}
    for case, some, changed, code in (
        ("mixed", lists, queries, errors[0]),
        ("query", [alone], {}, AttentionError.QUERY),
        ("good", good, {}, 0),
    ):
        job, scores = score_axi_job(some, CONFIG, queries=changed)
        vectors |= score_vectors(rng, case, job, scores)
        cases[case] = expected_status(job, len(some), code, sum(s["marked"] & s["last"] for s in scores))
    assert [case["count"] for case in cases.values()] == [len(errors) + len(queries), 1, 0]
    build = CONFIG.channels | CONFIG.query_bits << 8 | CONFIG.fold_bits << 16 | CONFIG.minima << 24
    build |= sum(1 << code for code in {0, *CONFIG.parser.transforms}) << 28
    extra = {"sources": ["s_axis_queries", "s_axis_packets"], "sink": "m_axis_scores", "build": build}
    simulate(ScoreCoreAxi(CONFIG), "score_core", vectors, cases, extra, seed)


def value_vectors(rng, case: str, job: Job, expected: list[Expected]) -> dict[str, np.ndarray]:
    size = expected[0].channels
    marked = np.repeat([x.marked for x in expected], size).astype(np.uint8)
    values = [x.values for x in expected]
    data = np.concatenate([np.zeros(size, np.uint64) if v is None else v.astype(np.uint64) for v in values])
    return sent(rng, case, job, {"s_axis_weights": 4, "s_axis_packets": 16}) | {
        f"{case}/m_axis_results/tdata": octets(data, 2),
        f"{case}/m_axis_results/tlast": np.tile(np.arange(size) == size - 1, len(expected)).astype(np.uint8),
        f"{case}/m_axis_results/tuser": marked,
    }


@pytest.mark.sim
def test_value_core(rng, seed):
    """Good and bad lists mixed, good ones, and good ones of another head dim."""
    lists, errors = [], []
    for _ in range(12):
        bad, error = spoil_values(rng, value_list(rng, CONFIG, CONFIG.channels, rows=9))
        lists.append(bad)
        errors += [error] if error else []
    other = CONFIG.channels - 24
    vectors, cases = {}, {}
    for case, some in (
        ("mixed", lists),
        ("good", [value_list(rng, CONFIG, CONFIG.channels, rows=12) for _ in range(3)]),
        ("other", [value_list(rng, CONFIG, other, rows=12) for _ in range(2)]),
    ):
        job, expected = value_axi_job(some, CONFIG)
        vectors |= value_vectors(rng, case, job, expected)
        count = sum(x.marked for x in expected)
        cases[case] = expected_status(job, len(some), errors[0] if count else 0, count)
    assert cases["mixed"]["count"] == len(errors) > 2
    del cases["other"]
    build = CONFIG.channels | CONFIG.weight_bits << 8
    extra = {"sources": ["s_axis_weights", "s_axis_packets"], "sink": "m_axis_results", "build": build, "other": other}
    simulate(ValueCoreAxi(CONFIG), "value_core", vectors, cases, extra, seed)


def test_query_packet_by_hand():
    """16 channels, the odd ones in segment 1, no transform: header, mask, elements."""
    header = KvHeader(format=KvFormat.K2S, channels=16, segment0=8, rows=1)
    channels = np.r_[0:16:2, 1:16:2]
    query = torch.tensor([1.0, -2.0, 0.5] + [0.0] * 13).half()
    expected = "0100000000000000" + "5555000000000000" + "00" * 8 + "003c00c000380000" + "00" * 24
    assert write_query(query, header, channels).hex() == expected
    with pytest.raises(ValueError, match=r"query must be float16 \[16\], not torch.float32 \[16\]"):
        write_query(query.float(), header, channels)


@pytest.mark.parametrize("component", [ScoreCoreAxi, ValueCoreAxi])
def test_wrong_configs_are_named(component):
    with pytest.raises(TypeError, match="config must be an AttentionConfig, not 64"):
        component(64)


@pytest.mark.parametrize("name", ["score_core", "value_core"])
def test_codes_are_those_of_the_cores(name):
    known = {error.name: error.value for error in (*KvError, *AttentionError)}
    stated = load_map(name).values("AttentionError")
    assert stated == {error: known[error] for error in stated}

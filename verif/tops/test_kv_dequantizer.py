"""The AXI block of preset ``tiny``: its ports, and packets under random back-pressure on both sides with resets."""

import numpy as np
import pytest

from gen.verilog import to_verilog
from golden.kv.engine_model import CENTRED
from golden.kv.pack import pack_block
from hosts.kv_dequantizer import TOP
from hw.tops.kv_dequantizer import KvDequantizerAxi
from sim.design import build_design
from sim.runner import run
from spec.kv_block import KvHeader
from spec.kv_config import OUTPUT_USER, KvEngineConfig, KvError
from spec.kv_formats import KvFormat
from spec.system import SYSTEMS
from verif.kv.blocks import centre_of, random_block, random_header
from verif.kv.defects import centre_defects, defects
from verif.kv.expected import Expected, expect_all

CONFIG = SYSTEMS["tiny"].kv_engines[TOP]


def on_the_bus(packet: Expected, config: KvEngineConfig) -> dict[str, np.ndarray]:
    """TDATA by bytes, TKEEP and TUSER of each beat."""
    fields = {
        "error": packet.marked,
        "token_last": packet.token_last,
        "channel": packet.channel,
        "token": packet.token,
    }
    user = sum(np.asarray(fields[f.name]).astype(np.uint64) << np.uint64(f.offset) for f in OUTPUT_USER)
    data = packet.values.astype("<u2").view(np.uint8).reshape(len(packet.marked), 2 * config.lanes)
    keep = np.array([(1 << 2 * int(lanes)) - 1 for lanes in packet.lanes], np.uint64)
    return {"u": user, "d": data, "k": keep}


@pytest.mark.sim
def test_packets_behind_axi(rng, seed):
    small = [random_header(rng, CONFIG, rows=5) for _ in range(14)]
    small += [KvHeader(format=KvFormat.V158, channels=64, rows=33), KvHeader(format=KvFormat.K1, channels=8, rows=1)]
    packets = [pack_block(random_block(rng, header)) for header in small]
    found = list(defects(rng, CONFIG))
    for error in KvError:
        packets += [d.packet for d in found if d.error is error][:2]
    packets = [packets[k] for k in rng.permutation(len(packets))]
    expected = expect_all(packets, CONFIG)
    keys = [random_header(rng, CONFIG, rows=4, format=kind, channels=40) for kind in CENTRED]
    keys.append(random_header(rng, CONFIG, rows=4, format=KvFormat.V158))
    blocks = [pack_block(random_block(rng, header)) for header in keys]
    broken = [defect.packet for defect in centre_defects(rng, CONFIG)][:3]
    centred = [pack_block(centre_of(rng, 40)), *blocks, *broken, *blocks, pack_block(centre_of(rng, 40)), *blocks]
    packets += centred
    expected += expect_all(centred, CONFIG, add=True)
    vectors = {f"p{n}": np.frombuffer(packet, np.uint8) for n, packet in enumerate(packets)}
    for n, packet in enumerate(expected):
        vectors |= {f"{kind}{n}": array for kind, array in on_the_bus(packet, CONFIG).items()}
    count = len(packets) - len(centred)
    bad = [packet.error for packet in expected[:count] if packet.error]
    options = {
        "count": count,
        "centred": len(centred),
        "lanes": CONFIG.lanes,
        "bad": len(bad),
        "first_error": int(bad[0]),
    }
    assert {error for error in KvError if error} <= set(bad)
    built = build_design(KvDequantizerAxi(CONFIG), TOP)
    run(built, "verif.tops.tb_kv_dequantizer", vectors=vectors, options=options, seed=seed)


@pytest.mark.parametrize(("lanes", "centre"), [(4, False), (8, True)])
def test_ports(lanes, centre):
    config = KvEngineConfig(lanes=lanes, transforms=frozenset(), interleave=True, centre=centre)
    _, ports = to_verilog(KvDequantizerAxi(config), TOP)
    found = {port["name"]: (port["direction"], port["width"]) for port in ports}
    assert found == {
        "aclk": ("input", 1),
        "aresetn": ("input", 1),
        "s_axis_tdata": ("input", 4 * lanes),
        "s_axis_tlast": ("input", 1),
        "s_axis_tvalid": ("input", 1),
        "s_axis_tready": ("output", 1),
        "m_axis_tdata": ("output", 16 * lanes),
        "m_axis_tkeep": ("output", 2 * lanes),
        "m_axis_tlast": ("output", 1),
        "m_axis_tuser": ("output", 32),
        "m_axis_tvalid": ("output", 1),
        "m_axis_tready": ("input", 1),
        "error_code": ("output", 4),
        "error_count": ("output", 16),
        "error_clear": ("input", 1),
    } | ({"add_centre": ("input", 1)} if centre else {})


def test_config_is_checked():
    with pytest.raises(TypeError, match="config must be a KvEngineConfig, not 16"):
        KvDequantizerAxi(16)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"lanes": 5}, ValueError, r"lanes must be one of 4, 8, 16, 32, not 5"),
        ({"lanes": "8"}, TypeError, "lanes must be an int, not '8'"),
        ({"max_channels": 96}, ValueError, r"max_channels must be one of 64, 128, not 96"),
        ({"scale_bits": 9}, ValueError, r"scale_bits must be one of 8, 11, not 9"),
        ({"transforms": {"wht"}}, TypeError, "transforms must be a set of KvTransform"),
        ({"formats": set()}, ValueError, "formats must be some of K1, K2S, K2, V158, V2, not none"),
        ({"formats": {KvFormat.CENTRE}}, ValueError, "formats must be some of K1, K2S, K2, V158, V2, not CENTRE"),
        ({"formats": [KvFormat.K1]}, TypeError, "formats must be a set of KvFormat"),
        ({"centre": True}, ValueError, "interleave must be True with centre, not False"),
        ({"centre": 1}, TypeError, "centre must be a bool, not 1"),
    ],
)
def test_impossible_engines_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        KvEngineConfig(**changes)

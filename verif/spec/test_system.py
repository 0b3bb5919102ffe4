"""spec.system: the named systems, and parts that do not fit together."""

from dataclasses import replace

import pytest

from spec.rlkv import rlkv_preset
from spec.system import SYSTEMS, System, address_generators

TINY = SYSTEMS["tiny"]


def test_named_systems():
    assert list(SYSTEMS) == ["paper", "tiny", "dense", "edge", "dense-fp4", "precise"]
    assert all(system.core for system in SYSTEMS.values())
    assert list(address_generators()) == ["paper", "tiny"]
    assert SYSTEMS["precise"].core.datapath.activation_bits == 19
    assert 16 in SYSTEMS["dense-fp4"].core.datapath.digits.multiples
    assert System().core is None


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"core": TINY.attention}, TypeError, "core must be a CoreConfig or None, not AttentionConfig"),
        ({"kv_engines": {"x": TINY.core}}, TypeError, r"kv_engines\['x'\] must be a KvEngineConfig, not CoreConfig"),
        (
            {"kv_engines": SYSTEMS["paper"].kv_engines},
            ValueError,
            "max_channels of kv_dequantizer_axi must be one of 64, not 128",
        ),
        (
            {"attention": SYSTEMS["paper"].attention, "kv_engines": {}},
            ValueError,
            "token_bytes of address_generator must be at least 132, not 68",
        ),
        (
            {"address_generator": replace(rlkv_preset("tiny"), beat_bytes=32)},
            ValueError,
            "beat_bytes of address_generator must be one of 16, not 32",
        ),
    ],
)
def test_parts_that_do_not_fit(parts, error, message):
    with pytest.raises(error, match=message):
        replace(TINY, **parts)

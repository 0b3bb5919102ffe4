"""The engine's area, held in place: what it took to get there must not leak away."""

import pytest

from gen.synth.liberty import LibraryError, named_library
from gen.synth.run import measure
from hw.kv.engine import KvDequantizer
from spec.kv_config import KvEngineConfig
from studies.kv.plain import PLAIN, PlainDequantizer

CONFIG = KvEngineConfig(lanes=16, transforms=frozenset())
CEILING = {"sky130hd": 5_500, "generic": 5_450}
"""Gate equivalents without memories, in the quick variant; a few per cent above what was reached."""
MEMORY_BITS = 37_504


@pytest.mark.full
@pytest.mark.parametrize("library", CEILING)
def test_logic_stays_small(library, tmp_path):
    try:
        named_library(library)
    except LibraryError as error:
        pytest.skip(str(error))
    found = measure(KvDequantizer(CONFIG), library, cache_dir=tmp_path)
    assert 0 < found.gate_equivalents <= CEILING[library]
    assert found.memory_bits <= MEMORY_BITS


@pytest.mark.full
def test_no_larger_than_arithmetic_in_every_lane(tmp_path):
    """Memory bits at a gate equivalent each; of the plain alternatives the one without stored multiples is better."""
    engine = measure(KvDequantizer(CONFIG), "generic", cache_dir=tmp_path)
    plain = measure(PlainDequantizer(CONFIG, PLAIN[0]), "generic", cache_dir=tmp_path)
    assert engine.gate_equivalents_with_memory <= plain.gate_equivalents_with_memory

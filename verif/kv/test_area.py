"""The engine's area, held in place: what it took to get there must not leak away."""

from pathlib import Path

import pytest

from gen.liberty import LibraryError, named_library
from gen.synth import measure
from hw.kv.engine import KvDequantizer
from hw.spec.kv_config import KvEngineConfig

CONFIG = KvEngineConfig(lanes=16, transforms=frozenset())
CEILING = {"sky130hd": 5_300, "generic": 5_200}
"""Gate equivalents without memories, in the quick variant; a few per cent above what was reached."""
MEMORY_BITS = 37_504
DOCUMENT = Path(__file__).parents[2] / "docs" / "kv-engine.md"


@pytest.mark.parametrize("library", CEILING)
def test_logic_stays_small(library, tmp_path):
    try:
        named_library(library)
    except LibraryError as error:
        pytest.skip(str(error))
    found = measure(KvDequantizer(CONFIG), library, cache_dir=tmp_path)
    assert 0 < found.gate_equivalents <= CEILING[library]
    assert found.memory_bits <= MEMORY_BITS


def documented(row: str, library: str) -> list[float]:
    """The numbers of a row of docs/kv-engine.md's tables, which `make kv-area` measured in ``library``."""
    text = DOCUMENT.read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(row))
    table = text[: text.index(line)].rpartition("<!-- kv ")[2]
    assert table.splitlines()[1].startswith(f"{library}, one quick variant"), table[:200]
    cells = (cell.strip().replace(",", "") for cell in line.strip("|").split("|"))
    return [float(cell) if cell.replace(".", "").isdigit() else 0.0 for cell in cells]


def test_no_larger_than_arithmetic_in_every_lane():
    """As documented, for it takes minutes to map: memory bits at a gate equivalent each, no plain engine is smaller."""
    engine = documented("| engine, no transform | 16 |", "sky130hd")
    assert engine[2] <= CEILING["sky130hd"]
    assert engine[6] == engine[2] + engine[5]
    for plain in ("multiply-add", "adder", "FP16 multiply-add"):
        assert engine[6] <= documented(f"| plain: {plain} per lane | 16 |", "sky130hd")[6]

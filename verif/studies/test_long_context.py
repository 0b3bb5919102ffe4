"""Long contexts: two heads through the cores, all heads of the published tables through the address generator."""

import pytest

from gen.synth.liberty import find_data_dir
from studies.attention.long_context import measure_heads, measure_reads
from studies.published_heads import TABLES

TOKENS = 1 << 13
"""Through the cores; the documented 32k take four times as long."""
LEAST = 17
"""Times fewer bytes than FP16 with half of the heads windowed."""


@pytest.mark.sim
def test_a_full_and_a_window_head(seed):
    found = measure_heads(seed, tokens=TOKENS)
    assert [head.full for head in found] == [True, False]
    for head in found:
        assert head.tokens == TOKENS
        assert head.measured == head.planned
        assert head.scores.mismatches == head.outputs.mismatches == 0
    assert found[0].scores.compared == TOKENS
    assert sum(head.fp16 for head in found) >= LEAST * sum(head.measured for head in found)


@pytest.mark.sim
@pytest.mark.parametrize("table", TABLES)
def test_half_of_the_heads_windowed(table, seed):
    data = find_data_dir()
    path = data / "rlkv" / f"{table}.tsv" if data else None
    if path is None or not path.is_file():
        pytest.skip(f"no {table}.tsv in $BITMOSAIC_DATA/rlkv")
    read = measure_reads(table, path, 0.5, seed)
    assert read.wrong == 0
    assert read.measured == read.planned
    assert read.ratio >= LEAST

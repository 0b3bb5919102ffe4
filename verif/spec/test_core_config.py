"""spec.core: how jobs are cut, presets, and every check with its message."""

import math

import pytest

from spec.core import CoreConfig, split
from spec.prealigned import PrealignedConfig
from spec.system import SYSTEMS, core_preset


@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 16])
def test_split(most):
    """The fewest parts, as equal as whole units allow but for the last."""
    for count in range(1, 70):
        parts = split(count, most)
        assert sum(parts) == count
        assert len(set(parts[:-1])) <= 1
        assert 1 <= parts[-1] <= parts[0] <= most
        assert parts[0] == math.ceil(count / math.ceil(count / most))
        assert len(parts) == math.ceil(count / parts[0]) <= math.ceil(count / most)


def test_tiling():
    tiling = core_preset("dense").tiling(35, 700, 149)
    assert tiling.tokens == [16, 16, 3]
    assert tiling.chunks == [384, 316]  # 6 units of 128 in 2 parts
    assert tiling.outputs == [80, 69]  # 19 blocks of 8 in 2 parts


@pytest.mark.parametrize("name", SYSTEMS)
def test_tiling_covers_the_job(name):
    config = core_preset(name)
    for tokens, inputs, outputs in [(1, 1, 1), (16, 16384, 16384), (5, 4095, 577), (1000, 129, 130)]:
        tiling = config.tiling(tokens, inputs, outputs)
        assert (sum(tiling.tokens), sum(tiling.chunks), sum(tiling.outputs)) == (tokens, inputs, outputs)
        assert all(size % config.datapath.group_size == 0 for size in tiling.chunks[:-1])
        assert all(size % config.rows == 0 for size in tiling.outputs[:-1])
        assert max(tiling.tokens) <= config.block_tokens
        assert max(tiling.chunks) <= config.chunk
        assert max(tiling.outputs) <= config.block_outputs


def test_longest_packet():
    """A chunk of INT8 in groups of 32: row header, group headers, codes, filled to words."""
    assert core_preset("dense").max_words == math.ceil((16 + 16 * 16 + 512 * 8) / 64)


def test_presets():
    assert core_preset("dense") == CoreConfig()
    assert core_preset("tiny", token_sets=1).block_tokens == 2
    with pytest.raises(ValueError, match=r"preset must be one of paper, .*, precise, not 'large'"):
        core_preset("large")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 12}, r"rows must be a power of two in 1\.\.64, not 12"),
        ({"rows": 128}, r"rows must be in 1\.\.64, not 128"),
        ({"columns": 0}, r"columns must be in 1\.\.64, not 0"),
        ({"token_sets": 3}, r"token_sets must be in 1\.\.2, not 3"),
        ({"chunk": 500}, r"chunk must be in 128\.\.4096 and a multiple of 128, not 500"),
        ({"chunk": 64}, r"chunk must be in 128\.\.4096 and a multiple of 128, not 64"),
        ({"block_outputs": 100}, "block_outputs must be in .* and a multiple of 8, not 100"),
        ({"result_lanes": 8}, "rows must be in .* and a multiple of 16, not 8"),
        ({"drain_chains": 3}, "drain_chains must be a power of two in .*, not 3"),
        ({"result_lanes": 1}, "result_lanes must be in .* and a multiple of 2, not 1"),
        ({"max_inputs": 16385}, r"max_inputs must be in 1\.\.16384, not 16385"),
    ],
)
def test_values_that_are_not_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        CoreConfig(**changes)


@pytest.mark.parametrize("changes", [{"rows": 8.0}, {"chunk": "512"}, {"token_sets": True}])
def test_types_that_are_not_allowed(changes):
    with pytest.raises(TypeError, match=f"{next(iter(changes))} must be an int"):
        CoreConfig(**changes)


def test_datapath_must_be_one():
    with pytest.raises(TypeError, match="datapath must be a PrealignedConfig or BitSerialConfig"):
        CoreConfig(datapath=None)
    assert CoreConfig(datapath=PrealignedConfig(group_size=64)).group_sizes == (32, 64)

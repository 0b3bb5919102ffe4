"""Engines that the tests of this package share."""

import pytest

from verif.kv.bench import CONFIGS, build_engine


@pytest.fixture(
    scope="session",
    params=[4, pytest.param(8, marks=pytest.mark.full), 16, pytest.param(32, marks=pytest.mark.full)],
    ids=lambda lanes: f"lanes{lanes}",
)
def engine(request):
    """(config, simulator) of each of ``CONFIGS``."""
    config = CONFIGS[request.param]
    return config, build_engine(config)

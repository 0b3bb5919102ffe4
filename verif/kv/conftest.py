"""Engines that the tests of this package share."""

import pytest

from verif.kv.bench import CONFIGS, build_engine


@pytest.fixture(scope="session", params=CONFIGS, ids=lambda lanes: f"lanes{lanes}")
def engine(request):
    """(config, simulator) of each of ``CONFIGS``."""
    config = CONFIGS[request.param]
    return config, build_engine(config)

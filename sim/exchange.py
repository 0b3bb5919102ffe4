"""What the pytest process and the simulator process hand each other: arrays in, arrays and a cycle count out.

Golden models, and torch with them, run in the pytest process; the simulator process sees only ``.npz`` files. Inside a
cocotb test, read the stimulus with :func:`vectors` and leave results with :func:`save`.
"""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

__all__ = ["options", "rng", "save", "seed", "vectors"]

VARIABLE = "BITMOSAIC_RUN"
STIMULUS, RESULTS, OPTIONS, STATUS = "vectors.npz", "results.npz", "options.json", "status.json"

_results: dict[str, np.ndarray] = {}
_cycles = 0


def directory() -> Path:
    """Directory of the run this simulator process belongs to."""
    if VARIABLE not in os.environ:
        raise RuntimeError(f"{VARIABLE} is not set: start the simulator with sim.runner.run")
    return Path(os.environ[VARIABLE])


@functools.cache
def vectors() -> Mapping[str, np.ndarray]:
    """The ``vectors`` given to :func:`sim.runner.run`."""
    with np.load(directory() / STIMULUS) as archive:
        return dict(archive)


@functools.cache
def options() -> Mapping[str, object]:
    """The ``options`` given to :func:`sim.runner.run`."""
    return json.loads((directory() / OPTIONS).read_text())


def seed() -> int:
    """The seed of the run."""
    return int(os.environ["COCOTB_RANDOM_SEED"])


def rng(*salt: int) -> np.random.Generator:
    """A generator that follows from the seed of the run and ``salt``."""
    return np.random.default_rng([seed(), *salt])


def save(**arrays: np.ndarray) -> None:
    """Leave ``arrays`` for the caller, as ``RunResult.data``. A name can be used once per run."""
    for name, array in arrays.items():
        if name in _results:
            raise ValueError(f"results named {name!r} were saved before in this run")
        _results[name] = np.asarray(array)
    part = directory() / f"part-{RESULTS}"
    np.savez(part, **_results)
    os.replace(part, directory() / RESULTS)


def count_cycles(cycles: int) -> None:
    """Add to the run's number of simulated clock cycles."""
    global _cycles
    _cycles += cycles
    part = directory() / f"part-{STATUS}"
    part.write_text(json.dumps({"cycles": _cycles}))
    os.replace(part, directory() / STATUS)

"""Functional coverage: named points with the bins they must fill, counted from stimulus and models, never from the
simulator. A bin that stays empty fails the test that owns the coverage.
"""

import itertools
import json
import os
from collections.abc import Iterable, Mapping

import numpy as np

from sim.build import ROOT

__all__ = ["REPORTS", "Coverage", "CoverageHole", "cross"]

REPORTS = ROOT / "build" / "verif" / "coverage"


class CoverageHole(AssertionError):
    """A bin that the stimulus never reached."""


def cross(*points: Iterable, without: Iterable[tuple] = ()) -> list[tuple]:
    """Bins of a cross: every combination of one bin of each point, except those that cannot occur."""
    left_out = set(without)
    return [combination for combination in itertools.product(*points) if combination not in left_out]


class Coverage:
    """Counts of hits per bin.

    Parameters
    ----------
    name : str
        Names the report, ``build/verif/coverage/<name>.json``.
    points : mapping of str to bins
        The bins of each point: any hashable values. Every one must be hit.
    """

    def __init__(self, name: str, points: Mapping[str, Iterable]):
        self.name = name
        self.counts = {point: dict.fromkeys(bins, 0) for point, bins in points.items()}

    def hit(self, point: str, value, count: int = 1) -> None:
        """Count ``value`` in ``point``. Raises KeyError for a value that is no bin: the model of what can occur is
        wrong then."""
        if value not in self.counts[point]:
            raise KeyError(f"{self.name}: {value!r} is no bin of {point}")
        self.counts[point][value] += int(count)

    def sample(self, point: str, values, where=None) -> None:
        """Count every element of an array of integers (or booleans), or those where ``where`` holds."""
        values = np.asarray(values)
        if where is not None:
            values = values[np.broadcast_to(where, values.shape)]
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            self.hit(point, value.item(), count)

    def holes(self) -> list[str]:
        """The bins without a hit."""
        return [
            f"{point}: {value!r}" for point, bins in self.counts.items() for value, count in bins.items() if not count
        ]

    def close(self) -> None:
        """Write the report; raise :class:`CoverageHole` naming every empty bin."""
        REPORTS.mkdir(parents=True, exist_ok=True)
        points = {
            point: {"bins": len(bins), "hit": sum(map(bool, bins.values())), "least": min(bins.values(), default=0)}
            for point, bins in self.counts.items()
        }
        counts = {point: {str(value): count for value, count in bins.items()} for point, bins in self.counts.items()}
        part = REPORTS / f".{self.name}-{os.getpid()}"
        part.write_text(json.dumps({"name": self.name, "points": points, "counts": counts}, indent=2) + "\n")
        os.replace(part, REPORTS / f"{self.name}.json")
        if holes := self.holes():
            raise CoverageHole(f"{self.name}: {len(holes)} of the bins are empty: {'; '.join(holes)}")

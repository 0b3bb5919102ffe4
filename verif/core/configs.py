"""Small cores that the tests use beside the presets: another datapath, more drain chains, odd sizes."""

from dataclasses import replace

from spec.bitserial import BitSerialConfig
from spec.core import CoreConfig
from spec.system import SYSTEMS, core_preset

__all__ = ["SMALL", "small_core"]

TINY = core_preset("tiny")
SMALL = {
    "tiny": TINY,
    "tiny-chains": replace(TINY, rows=4, drain_chains=2, result_lanes=2, chunk=96, block_outputs=12),
    "tiny-serial": replace(TINY, datapath=BitSerialConfig(group_size=32)),
}
"""``tiny-chains``: two drain chains, three units per chunk; ``tiny-serial``: BitMoD's PEs."""


def small_core(name: str) -> CoreConfig:
    """The core of this name, or the preset. Raises ValueError for an unknown name, naming the known ones."""
    known = {preset: system.core for preset, system in SYSTEMS.items()} | SMALL
    if name not in known:
        raise ValueError(f"preset must be one of {tuple(known)}, not {name!r}")
    return known[name]

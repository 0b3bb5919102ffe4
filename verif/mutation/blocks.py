"""The blocks that are mutated, the tests whose traffic is replayed, and what of their outputs may be anything."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from verif.mutation.traces import Ports

__all__ = ["BLOCKS", "Block"]


def everything_counts(_ports: Ports, _outputs: np.ndarray, _care: np.ndarray) -> None:
    """All that is transferred is promised."""


def marked_scores(ports: Ports, outputs: np.ndarray, care: np.ndarray) -> None:
    """TDATA of a marked score or value is anything."""
    for name in ("m_axis_scores_t", "m_axis_results_t"):
        if f"{name}user" in ports.place:
            marked = ports.column(outputs, f"{name}user")[:, 0] == 1
            ports.column(care, f"{name}data")[marked] = 0


def marked_beats(ports: Ports, outputs: np.ndarray, care: np.ndarray) -> None:
    """Of a marked beat TDATA, TKEEP and all of TUSER but the mark and the end of the token are anything."""
    marked = ports.column(outputs, "m_axis_tuser")[:, 0] == 1
    for name, first in (("m_axis_tdata", 0), ("m_axis_tkeep", 0), ("m_axis_tuser", 2)):
        ports.column(care, name)[marked, first:] = 0


@dataclass(frozen=True)
class Block:
    """``top`` of the generator, the ``module`` that its tests simulate it as, pytest's arguments for them (below
    verif), and what clears the care for outputs that mean nothing."""

    top: str
    module: str
    tests: tuple[str, ...]
    anything: Callable[[Ports, np.ndarray, np.ndarray], None] = everything_counts


WINDOWS = "tops/test_register_windows.py::test_every_address"
BEHIND_AXI = "tops/test_attention.py -k"

BLOCKS = {
    block.top: block
    for block in (
        Block(
            "core",
            "accelerator_core_axi",
            (
                "tops/test_core.py",
                f"{WINDOWS}[core]",
                "core/test_core.py::test_any_job[tiny-40]",
                "core/test_fuzz.py::test_fuzz",
            ),
        ),
        Block("kv_dequantizer_axi", "kv_dequantizer_axi", ("tops/test_kv_dequantizer.py",), marked_beats),
        Block("score_core_axi", "score_core_axi", (f"{BEHIND_AXI} score", f"{WINDOWS}[score_core]"), marked_scores),
        Block("value_core_axi", "value_core_axi", (f"{BEHIND_AXI} value", f"{WINDOWS}[value_core]"), marked_scores),
        Block(
            "kv_address_generator_axi",
            "kv_address_generator_axi",
            ("tops/test_address_generator.py", f"{WINDOWS}[address_generator]"),
        ),
    )
}

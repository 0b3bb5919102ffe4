"""From an Amaranth component to a simulator in one call."""

import tempfile
from pathlib import Path

from amaranth.lib import wiring

from gen.verilog import to_verilog
from sim.build import Built, build

__all__ = ["build_design"]


def build_design(component: wiring.Component, name: str, **options) -> Built:
    """Emit ``component`` as the Verilog a user gets, and compile it with :func:`sim.build.build` (same ``options``).

    ``name`` becomes the top module. What is simulated is always the emitted Verilog, never Amaranth's own simulation.
    """
    text, _ports = to_verilog(component, name)
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
        path = Path(scratch) / f"{name}.v"
        path.write_text(text)
        return build(path, name, **options)

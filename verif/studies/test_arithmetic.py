"""The table of floating-point blocks: every block of hw/arith that is a component stands in it, and its figures."""

import importlib
import pkgutil

from amaranth.lib.wiring import Component

import hw.arith
from studies.arithmetic import BLOCKS, arithmetic

UNMEASURED = {"Fp32Multiplier"}  # says studies.arithmetic


def test_every_component_is_listed():
    found = set()
    for module in pkgutil.iter_modules(hw.arith.__path__):
        contents = vars(importlib.import_module(f"hw.arith.{module.name}")).values()
        found |= {
            c.__name__ for c in contents if isinstance(c, type) and issubclass(c, Component) and c is not Component
        }
    assert found - UNMEASURED == set(BLOCKS)


def test_table_of_a_run(tmp_path, monkeypatch):
    """One small block in generic gates: a row with its figures, between the markers of a document."""
    monkeypatch.setattr("studies.arithmetic.BLOCKS", {"IntegerToFp16": BLOCKS["IntegerToFp16"]})
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- arithmetic: python -m studies arithmetic -->\n<!-- end of arithmetic -->\nb\n")
    arithmetic(liberty=None, quick=True, document=page, cache=tmp_path / "cache")
    row = next(line for line in page.read_text().splitlines() if "`IntegerToFp16`" in line)
    cycles, flipflops, gates, period = (cell.strip().replace(",", "") for cell in row.split("|")[4:8])
    assert (cycles, flipflops) == ("0", "0")
    assert int(gates) > 100
    assert int(period) > 100
    assert page.read_text()[:2] + page.read_text()[-2:] == "a\nb\n"

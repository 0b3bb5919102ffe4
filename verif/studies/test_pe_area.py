"""The PE's cost in real libraries stays below that of the published design (docs/synthesis.md)."""

import pytest

from gen.synth.liberty import LibraryError, named_library
from gen.synth.run import QUICK, synthesize
from gen.verilog import to_verilog
from hw.bitserial.dequantizer import RescaledPE

MENDED_AUTHORS_PE = {"sky130hd": (5860, 5998), "asap7": (5066, 1216)}
"""BitMoD authors' PE with its defects mended, dequantizer included: gate equivalents, ps; OpenSTA."""


@pytest.mark.parametrize("name", MENDED_AUTHORS_PE)
def test_pe_with_dequantizer_is_smaller_and_faster_than_the_authors(name):
    try:
        library = named_library(name)
    except LibraryError as error:
        pytest.skip(str(error))
    verilog, _ports = to_verilog(RescaledPE(), "rescaled_pe")
    result = synthesize(verilog, "rescaled_pe", library, variants=QUICK)
    if result.delay_tool != "OpenSTA":
        pytest.skip(f"delays are by {result.delay_tool}, the figures to compare with by OpenSTA")
    gates, delay = MENDED_AUTHORS_PE[name]
    assert result.gate_equivalents <= gates
    assert result.delay_ps <= delay

"""The inverse transforms stay as small as docs/kv-engine.md, section 9 says (skipped without the library)."""

import pytest

from gen.kv_transforms import PREFIX, transform_designs
from gen.liberty import LibraryError, named_library
from gen.synth import QUICK, synthesize
from gen.verilog import to_verilog

WHT_CEILING = 25_000
"""Gate equivalents at 16 lanes; a few per cent above what was reached."""
OPEN_FFT_GATES = 78_000
"""Gate equivalents of an open 16-point 16-bit FFT (sky130hd)."""


@pytest.fixture(scope="module")
def library():
    try:
        return named_library("sky130hd")
    except LibraryError as error:
        pytest.skip(str(error))


def gates(key: str, library) -> float:
    verilog, _ports = to_verilog(transform_designs()[PREFIX + key][2](), key)
    return synthesize(verilog, key, library, variants=QUICK).gate_equivalents


def test_wht_stays_small(library):
    assert 0 < gates("wht_16", library) <= WHT_CEILING


def test_rfft_is_far_smaller_than_an_open_fft(library):
    assert gates("rfft_4", library) < 0.8 * OPEN_FFT_GATES

"""The inverse transforms stay as small as docs/kv-engine.md, section 9 says (skipped without the library)."""

import pytest

from gen.synth.liberty import LibraryError, named_library
from gen.synth.run import QUICK, synthesize
from gen.verilog import to_verilog
from studies.kv.transforms import PREFIX, PlainArithmetic, transform_designs

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


@pytest.fixture(scope="module")
def wht(library):
    return gates("wht_16", library)


@pytest.mark.full
def test_wht_stays_small(wht):
    assert 0 < wht <= WHT_CEILING


@pytest.mark.full
def test_wht_takes_less_than_fp16_multiply_adds(wht, library):
    """A transform at line rate against the multiply-adds that plain lanes would have: the literal ones, even behind
    codes, whose numbers have few bits; against those made for codes it loses."""
    lanes = 16
    verilog, _ports = to_verilog(PlainArithmetic(1, "fp16_multiply_adds"), "fp16_multiply_add")
    literal = synthesize(verilog, "fp16_multiply_add", library, variants=QUICK).gate_equivalents
    assert wht < lanes * literal


@pytest.mark.full
def test_rfft_is_far_smaller_than_an_open_fft(library):
    assert gates("rfft_4", library) < 0.8 * OPEN_FFT_GATES

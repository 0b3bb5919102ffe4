"""spec.packet: the layout's numbers, and what importing spec may pull in."""

import subprocess
import sys

import pytest

from spec.errors import WeightError
from spec.packet import (
    GROUP_HEADER,
    GROUP_HEADER_BITS,
    GROUP_SIZES,
    MAX_ROW_LENGTH,
    ROW_HEADER,
    ROW_HEADER_BITS,
    WORD_BITS,
    group_size_code,
)


@pytest.mark.parametrize(("layout", "bits"), [(ROW_HEADER, ROW_HEADER_BITS), (GROUP_HEADER, GROUP_HEADER_BITS)])
def test_fields_fill_the_header_without_overlap(layout, bits):
    covered = [bit for field in layout for bit in range(field.offset, field.offset + field.width)]
    assert covered == list(range(bits))


def test_layout():
    assert (WORD_BITS, ROW_HEADER_BITS, GROUP_HEADER_BITS) == (64, 16, 16)
    assert [(field.name, field.offset, field.width) for field in ROW_HEADER] == [
        ("length", 0, 14),
        ("group_size", 14, 2),
    ]
    assert [(field.name, field.offset, field.width) for field in GROUP_HEADER] == [
        ("datatype", 0, 4),
        ("select", 4, 2),
        ("scale", 6, 8),
        ("short", 14, 1),
        ("parity", 15, 1),
    ]
    assert MAX_ROW_LENGTH == 16384


def test_group_sizes():
    assert GROUP_SIZES == (32, 64, 128)
    assert [group_size_code(size) for size in (32, 64, 128)] == [0, 1, 2]
    for size in (0, 16, 96, 256):
        with pytest.raises(ValueError, match=rf"group_size must be one of 32, 64, 128, not {size}"):
            group_size_code(size)


def test_error_flags_are_distinct_bits():
    assert sorted(flag.value for flag in WeightError) == [1 << bit for bit in range(7)]


def test_importing_the_spec_needs_neither_amaranth_nor_torch():
    program = (
        "import sys, pkgutil, importlib\n"
        "sys.modules['amaranth'] = sys.modules['torch'] = None\n"
        "import spec\n"
        "names = [m.name for m in pkgutil.iter_modules(spec.__path__)]\n"
        "assert len(names) >= 4, names\n"
        "for name in names: importlib.import_module('spec.' + name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

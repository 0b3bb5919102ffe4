"""Register definitions: the documentation is current, the C headers compile and agree, unsupported RDL is refused."""

import subprocess

import pytest

from gen.registers import c_header, markdown, write_registers
from hw.axi.definitions import MAPS, load_map
from sim.build import ROOT
from spec.errors import WeightError
from spec.packet import GROUP_SIZES

MAP = """
property buffer_reads {{ component = reg; type = boolean; }};
addrmap sample {{ default regwidth = 32; default accesswidth = 32;
  signal {{ activehigh; }} lock;
  {} }};
"""


def sample(tmp_path, body):
    path = tmp_path / "sample.rdl"
    path.write_text(MAP.format(body))
    return path


def test_document_is_current():
    assert (ROOT / "docs" / "registers.md").read_text() == markdown(), "write it again: bitmosaic registers"


def test_document_tells_every_field():
    text = markdown()
    for name in MAPS:
        for register in load_map(name).registers:
            assert f"0x{register.address:03x}" in text or register.index
            for field in register.fields:
                assert f"| {field.name} | {field.kind.value}" in text


@pytest.mark.parametrize("language", ["c", "c++"])
def test_headers_agree_with_the_definition(tmp_path, language):
    """Compiled for real: offsets of the struct and masks, compared with what the hardware is made from."""
    write_registers(tmp_path)
    lines = ["#include <stddef.h>", "#include <stdio.h>", "int main(void) {"]
    expected = []
    for name in MAPS:
        registers = load_map(name)
        lines.insert(0, f'#include "{registers.name}.h"')
        for register in registers.registers:
            place = register.name if register.index is None else f"{register.name}[{register.index}]"
            lines.append(f'printf("%zu\\n", offsetof({registers.name}_t, {place}));')
            expected.append(register.address)
            for field in register.fields:
                macro = f"{registers.name}__{register.name}__{field.name}".upper()
                lines.append(f'printf("%llu\\n", (unsigned long long){macro}_bm);')
                expected.append(((1 << field.width) - 1) << field.low)
        for enum, members in registers.enums.items():
            prefix = {"CoreError": "CORE_ERROR", "GroupSize": "GROUP_SIZE", "AttentionError": "ATTENTION_ERROR"}[enum]
            for member, (value, _) in members.items():
                lines.append(f'printf("%d\\n", {registers.name.upper()}__{prefix}__{member});')
                expected.append(value)
    (tmp_path / "main.c").write_text("\n".join([*lines, "return 0; }", ""]))
    compiler = ["c++", "-x", language, "-Wall", "-Wextra", "-Werror", "-Wno-invalid-offsetof"]
    if language == "c":
        compiler[-1:] = ["-std=gnu11"]
    subprocess.run([*compiler, "main.c", "-o", "main"], cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in out.split()] == expected


def test_written_twice_is_the_same(tmp_path):
    first = {path.name: path.read_bytes() for path in write_registers(tmp_path / "a")}
    assert first == {path.name: path.read_bytes() for path in write_registers(tmp_path / "b")}
    assert set(first) == {
        *(f"{load_map(name).name}.h" for name in MAPS),
        "bitmosaic_formats.h",
        "bitmosaic_transfers.h",
        "registers.md",
        "encodings.md",
    }


def test_nothing_is_written_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="out must be a directory"):
        write_registers(tmp_path / "file")


def test_codes_are_those_of_the_streams():
    """Codes and flags stand in several places: here they meet."""
    errors = load_map("core").values("CoreError")
    for error in WeightError:
        if error is not WeightError.SPECIAL_REFUSED:
            assert errors[error.name] == 9 + error.value.bit_length() - 1
    assert errors["SPECIAL_REFUSED"] == 7
    assert load_map("core").values("GroupSize") == {f"G{size}": code for code, size in enumerate(GROUP_SIZES)}
    assert "#define BITMOSAIC_CORE__CONTROL__START_bm 0x1" in c_header("core")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("reg { field { sw = rw; hw = rw; } f[3:0] = 0; } R;", "all fields of an external register"),
        ("external reg { field { sw = rw; hw = r; } f[3:0] = 0; } R;", "all fields of an external register"),
        ("reg { field { sw = rw; hw = r; onread = rclr; } f[3:0] = 0; } R;", "R.f: a field with sw=rw; hw=r"),
        ("reg { field { sw = rw; hw = r; onwrite = wzc; } f[3:0] = 0; } R;", "R.f: a field with .* is not supported"),
        ("reg { field { sw = r; hw = na; counter; } f[3:0] = 0; } R;", "R.f: a field with .*counter.* not supported"),
        ("reg { field { sw = rw; hw = r; } f[3:0]; } R;", "R.f: needs a constant reset value"),
        ("reg { field { sw = w; hw = r; singlepulse; swwel = lock; } f = 0; } R;", "R.f: swwel must name a signal"),
        ("reg { regwidth = 64; field { sw = rw; hw = r; } f[40:0] = 0; } R;", "64-bit register must be read-only"),
        ("reg { field { sw = rw; hw = r; } f[3:0] = 0; } REFUSED;", "the name 'refused' is taken"),
        ("reg { field { sw = rw; hw = r; } f[3:0] = 0; } R @ 0x1000;", "the map takes 4100 bytes, more than 4096"),
        ("regfile { reg { field { sw = rw; hw = r; } f = 0; } R; } F;", "sample.F is neither a register"),
        ("reg { field { sw = rw; hw = r; } f[3:0] = 0 } R;", r"sample\.rdl:5:\d+: error: "),
    ],
)
def test_unsupported_definitions_are_refused(tmp_path, body, message):
    with pytest.raises(ValueError, match=message):
        load_map(sample(tmp_path, body))


def test_unknown_maps_are_named():
    with pytest.raises(ValueError, match=r"map must be one of core, address_.*, not 'kore'"):
        load_map("kore")


def test_example_of_the_document_compiles(tmp_path):
    write_registers(tmp_path)
    text = (ROOT / "docs" / "registers-use.md").read_text()
    (tmp_path / "job.c").write_text(text.split("```c\n", 1)[1].split("```", 1)[0])
    subprocess.run(["c++", "-x", "c", "-Wall", "-Wextra", "-Werror", "-c", "job.c"], cwd=tmp_path, check=True)

"""Reading Liberty: functions, gate equivalents, and libraries known by what is in them."""

import pytest

from gen.synth import generic, liberty
from gen.synth.liberty import GENERIC, LibraryError, generic_library, load_library, named_library
from gen.synth.liberty_parse import truth_table

NAND2 = 0b0111


def library_or_skip(name: str):
    """A real library from the data directory, or skip."""
    try:
        return named_library(name)
    except LibraryError as error:
        pytest.skip(f"no data directory ($BITMOSAIC_DATA): {error}")


@pytest.mark.parametrize(
    ("function", "inputs", "table"),
    [
        ("!(A&B)", "AB", NAND2),
        ("(!A) | (!B)", "AB", NAND2),
        ("(!A) + (!B)", "AB", NAND2),
        ("(A B)'", "AB", NAND2),
        ("A' + B'", "AB", NAND2),
        ("!A", "A", 0b01),
        ("A", "A", 0b10),
        ("A^B", "AB", 0b0110),
        ("A B + C", "ABC", 0b11111000),
        ("(S&B)|(!S&A)", "ABS", 0b11001010),
        ("1", "", 0b1),
        ("A & unknown", "A", None),
        ("A @ B", "AB", None),
        ("(A", "A", None),
    ],
)
def test_truth_table(function, inputs, table):
    assert truth_table(function, tuple(inputs)) == table


def test_generic_library_is_in_gate_equivalents():
    library = generic_library()
    assert library.is_estimate
    assert library.nand2_area == library.cells["NAND2_X1"].area == 1.0
    assert library.cells["DFF_X1"].is_flipflop
    assert not library.cells["XOR2_X1"].is_flipflop


def test_committed_generic_library_is_what_its_source_writes():
    assert GENERIC.read_text() == generic.liberty()


@pytest.mark.parametrize(("name", "nand2_area", "target_ps"), [("sky130hd", 3.7536, 3000), ("asap7", 0.08748, 400)])
def test_known_libraries(tmp_path, name, nand2_area, target_ps):
    given = library_or_skip(name)
    # Elsewhere, under other names and in another order: the contents decide.
    copies = []
    for number, path in enumerate(reversed(given.paths)):
        copies.append(tmp_path / f"cells{number}.lib")
        copies[-1].symlink_to(path)
    library = load_library(copies)
    assert (library.name, library.nand2_area, library.target_ps) == (name, nand2_area, target_ps)
    assert library.sha256 == given.sha256
    assert not library.is_estimate
    assert load_library(copies, target_ps=777).target_ps == 777


def test_unknown_library_takes_its_own_name_and_smallest_buffer(tmp_path):
    path = tmp_path / "any.lib"
    path.write_text(generic.liberty().replace("bitmosaic_generic", "house_cells"))
    library = load_library([path])
    assert (library.name, library.driving_cell, library.target_ps) == ("house_cells", "BUF_X1", 1000)
    assert not library.is_estimate


def test_dont_use_attribute_moves_the_gate_equivalent(tmp_path):
    path = tmp_path / "any.lib"
    path.write_text(generic.liberty().replace("cell (NAND2_X1) {", "cell (NAND2_X1) {\n    dont_use : true;"))
    assert load_library([path]).nand2_area == 1.67


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a Liberty file"),
        ("module x; endmodule", "not a Liberty file"),
        ("library (l) { cell (a) {", "not a Liberty file"),
        ("library (l) { cell (a) { area : 1; } }", "no usable buffer"),
        ("}", "unbalanced"),
    ],
)
def test_text_that_is_no_library(tmp_path, text, message):
    path = tmp_path / "bad.lib"
    path.write_text(text)
    with pytest.raises(LibraryError, match=message):
        load_library([path])


def test_refusals(tmp_path):
    other = tmp_path / "other.lib"
    other.write_text(generic.liberty().replace("bitmosaic_generic", "house_cells"))
    binary = tmp_path / "binary.lib"
    binary.write_bytes(b"\xff\xfe\x00")
    for paths, message in [
        ([], "no Liberty file given"),
        ([tmp_path / "absent.lib"], "cannot read Liberty file .*absent.lib"),
        ([tmp_path], "cannot read Liberty file"),
        ([binary], "not text"),
        ([GENERIC, GENERIC], "given twice"),
        ([GENERIC, other], "of different libraries: bitmosaic_generic, house_cells"),
    ]:
        with pytest.raises(LibraryError, match=message):
            load_library(paths)
    with pytest.raises(LibraryError, match="target_ps must be a positive number"):
        load_library([GENERIC], target_ps=0)
    with pytest.raises(LibraryError, match="one of sky130hd, asap7, generic, not 'gf180'"):
        named_library("gf180")


def test_data_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("BITMOSAIC_DATA", str(tmp_path))
    assert liberty.find_data_dir() == tmp_path
    monkeypatch.setenv("BITMOSAIC_DATA", str(tmp_path / "absent"))
    assert liberty.find_data_dir() is None
    with pytest.raises(LibraryError, match=r"needs sky130hd_tt\.lib in"):
        named_library("sky130hd")

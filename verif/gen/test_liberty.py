"""Reading Liberty: functions, gate equivalents, and libraries known by what is in them."""

import gzip
import re

import pytest

from gen.synth import generic, liberty
from gen.synth.liberty import GENERIC, LibraryError, generic_library, load_library, named_library
from gen.synth.liberty_parse import parse, truth_table

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


def house(**changes: str) -> str:
    """The generic library under another name, with texts replaced."""
    text = generic.liberty().replace("bitmosaic_generic", "house_cells")
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latin1.lib", "/* \xa9 Fab, area in \xb5m */\n".encode("latin-1") + house().encode()),
        ("utf8.lib", "/* area in \u00b5m\u00b2 */\n".encode() + house().encode()),
        ("nosemicolons.lib", re.sub(r"(?m)^(\s*(?:area|direction|function) : [^;{}\n]+);", r"\1", house()).encode()),
        ("compressed.lib.gz", gzip.compress(house().encode())),
        ("dos.lib", house().replace("\n", "\r\n").encode()),
    ],
)
def test_libraries_as_vendors_write_them(tmp_path, monkeypatch, name, content):
    """They are read, and what the tools are given is plain."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "plain.lib").write_text(house())
    found, plain = (load_library([tmp_path / file]) for file in (name, "plain.lib"))
    assert found.cells == plain.cells
    assert found.nand2_area == plain.nand2_area
    assert (found.paths[0] == tmp_path / name) == (name in ("utf8.lib", "nosemicolons.lib", "dos.lib"))
    assert parse(found.paths[0]).cells == plain.cells


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("area : 1.00;", "area : 1,00;", r"n\.lib:\d+: cell \w+: area is no number: '1,00'"),
        ("area : 1.00;", "area : one;", r"n\.lib:\d+: cell \w+: area is no number: 'one'"),
    ],
)
def test_a_number_that_is_none_is_named_with_its_place(tmp_path, before, after, message):
    path = tmp_path / "n.lib"
    path.write_text(house(number=(before, after)))
    with pytest.raises(LibraryError, match=message):
        load_library([path])


def test_files_of_different_libraries_or_corners_are_refused(tmp_path):
    one, other, again, cold = (tmp_path / f"{name}.lib" for name in ("one", "other", "again", "cold"))
    one.write_text(house())
    aliens = re.sub(r"cell \((\w+)\)", r"cell (ALIEN_\1)", house())
    other.write_text(aliens.replace("house_cells", "other_vendor"))
    for files in ([one, other], [other, one]):
        with pytest.raises(LibraryError, match="different libraries: "):
            load_library(files)
    again.write_text(house(area=("area : 1.00;", "area : 0.10;")))
    with pytest.raises(LibraryError, match="is in two of the Liberty files"):
        load_library([one, again])
    assert "nom_voltage" in aliens
    cold.write_text(re.sub(r"nom_voltage : [\d.]+", "nom_voltage : 0.5", aliens))
    with pytest.raises(LibraryError, match=r"different corners: voltage of one.lib .*cold.lib 0\.5"):
        load_library([one, cold])


def test_a_compressed_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "cut.lib.gz"
    path.write_bytes(gzip.compress(house().encode())[:-30])
    with pytest.raises(LibraryError, match="compressed end is missing"):
        load_library([path])

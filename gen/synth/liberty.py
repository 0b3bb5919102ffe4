"""Liberty cell libraries: what the synthesis recipe needs to know of one, found in its contents, never in its path."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from gen.synth.liberty_parse import Cell, LibraryError, Parsed, parse, truth_table
from shell.output import write_file

__all__ = ["NAMED", "Library", "LibraryError", "find_data_dir", "generic_library", "load_library", "named_library"]

GENERIC = Path(__file__).with_name("generic.lib")
COPIES = Path("build/synth/liberty")


@dataclass(frozen=True)
class Known:
    """How the recipe treats a library whose ``library(...)`` name matches ``pattern``.

    ``target_ps`` is ABC's delay target, ``driving_cell`` drives the inputs in ABC's timing, ``dont_use`` holds patterns
    of cells to leave alone.
    """

    name: str
    pattern: str
    target_ps: int
    driving_cell: str
    dont_use: tuple[str, ...] = ()


KNOWN = (
    Known("sky130hd", r"sky130_fd_sc_hd__", 3000, "sky130_fd_sc_hd__buf_1"),
    # Fractional drive strengths and the scan, clock-gating and latch cells: for place and route, or never inferred.
    Known("asap7", r"asap7sc7p5t_", 400, "BUFx2_ASAP7_75t_R", ("*x1p*", "*xp*", "SDF*", "ICG*", "DLL*", "DHL*")),
    Known("generic", r"bitmosaic_generic$", 1000, "BUF_X1"),
)
DEFAULT_TARGET_PS = 1000

# Files under `liberty/` of the data directory, for tests and exploration.
NAMED = {"sky130hd": ("sky130hd_tt.lib",), "asap7": ("asap7_simple.lib", "asap7_invbuf.lib", "asap7_seq.lib")}


@dataclass(frozen=True)
class Library:
    """A set of Liberty files and the recipe's parameters for it.

    Attributes
    ----------
    name : str
        ``sky130hd``, ``asap7``, ``generic``, or the library's own name.
    paths : tuple of Path
    sha256 : str
        Over the contents of the files, whatever their order and names.
    target_ps : int
        Delay target given to ABC, picoseconds.
    driving_cell : str
    dont_use : tuple of str
        Cell name patterns.
    nand2_area : float
        Area of the smallest 2-input NAND that may be used: one gate equivalent.
    cells : dict of str to Cell
        Cells by name, those matching ``dont_use`` included.
    """

    name: str
    paths: tuple[Path, ...]
    sha256: str
    target_ps: int
    driving_cell: str
    dont_use: tuple[str, ...]
    nand2_area: float
    cells: dict[str, Cell]

    @property
    def is_estimate(self) -> bool:
        """Whether this is the project's own library, which stands for no process."""
        return self.name == "generic"


def find_data_dir() -> Path | None:
    """Directory of measuring data: ``$BITMOSAIC_DATA``, else ``shared/data`` beside the checkout; None if absent."""
    given = os.environ.get("BITMOSAIC_DATA")
    path = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"
    return path if path.is_dir() else None


def generic_library() -> Library:
    """The project's own library: areas in gate equivalents, nominal delays. An estimate, not a process."""
    return load_library([GENERIC])


def named_library(name: str) -> Library:
    """One of :data:`NAMED` from the data directory, or ``generic``.

    Raises
    ------
    LibraryError
        If the name is unknown or its files are not there.
    """
    if name == "generic":
        return generic_library()
    if name not in NAMED:
        raise LibraryError(f"library must be one of {', '.join([*NAMED, 'generic'])}, not {name!r}")
    data = find_data_dir()
    if data is None or not all((data / "liberty" / file).is_file() for file in NAMED[name]):
        raise LibraryError(f"library {name!r} needs {', '.join(NAMED[name])} in $BITMOSAIC_DATA/liberty")
    return load_library([data / "liberty" / file for file in NAMED[name]])


def load_library(paths: Sequence[Path | str], *, target_ps: int | None = None) -> Library:
    """Read one library from one or more Liberty files.

    Parameters
    ----------
    paths : sequence of Path
        All files of one library.
    target_ps : int, optional
        ABC's delay target in picoseconds; by default the known library's own, or 1000.

    Raises
    ------
    LibraryError
        If a file cannot be read, is not Liberty, the files belong to different libraries, or there is no 2-input NAND,
        flip-flop or buffer.
    """
    if not paths:
        raise LibraryError("no Liberty file given")
    if target_ps is not None and (not isinstance(target_ps, int) or target_ps <= 0):
        raise LibraryError(f"target_ps must be a positive number of picoseconds, not {target_ps!r}")
    paths = tuple(Path(path).resolve() for path in paths)
    files, cells = [], {}
    for path in paths:
        found = parse(path)
        if found.digest in [other.digest for other in files]:
            raise LibraryError(f"Liberty file given twice: {path}")
        files.append(found)
    names = [found.library for found in files]
    known = {next((k for k in KNOWN if re.match(k.pattern, name)), None) for name in names}
    if len(known) > 1 or (known == {None} and len(set(names)) > 1):
        raise LibraryError(f"Liberty files of different libraries: {', '.join(names)}")
    for what in ("process", "voltage", "temperature"):
        corners = [(path.name, dict(found.corner)) for path, found in zip(paths, files, strict=True)]
        stated = {name: corner[what] for name, corner in corners if what in corner}
        if len(set(stated.values())) > 1:
            values = ", ".join(f"{name} {value:g}" for name, value in stated.items())
            raise LibraryError(f"Liberty files of different corners: {what} of {values}")
    for found in files:
        if both := sorted(set(cells) & set(found.cells)):
            raise LibraryError(f"cell {both[0]} is in two of the Liberty files: give those of one library")
        cells |= found.cells
    hashes = [found.digest for found in files]
    paths = tuple(_for_all_tools(path, found) for path, found in zip(paths, files, strict=True))
    known = known.pop() or Known(names[0], "", DEFAULT_TARGET_PS, _smallest(cells, (), "buffer", 1, 0b10))
    nand2 = _smallest(cells, known.dont_use, "2-input NAND", 2, 0b0111)
    if not any(cell.is_flipflop for cell in cells.values()):
        raise LibraryError(f"library {known.name!r} has no flip-flop: give all of its files")
    if known.driving_cell not in cells:
        raise LibraryError(f"library {known.name!r} has no {known.driving_cell!r}: give all of its files")
    return Library(
        name=known.name,
        paths=paths,
        sha256=hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest(),
        target_ps=target_ps or known.target_ps,
        driving_cell=known.driving_cell,
        dont_use=known.dont_use,
        nand2_area=cells[nand2].area,
        cells=cells,
    )


def _for_all_tools(path: Path, found: Parsed) -> Path:
    """The file, or a copy for Yosys, ABC and OpenSTA where it is compressed or not in UTF-8."""
    if found.text is None:
        return path
    copy = (COPIES / f"{found.digest[:20]}.lib").resolve()
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        write_file(copy, found.text)
    return copy


def _smallest(cells: dict[str, Cell], dont_use: tuple[str, ...], what: str, inputs: int, table: int) -> str:
    """Name of the smallest usable cell with one output of ``inputs`` inputs and truth table ``table``."""
    fit = [
        cell
        for cell in cells.values()
        if len(cell.inputs) == inputs
        and len(cell.functions) == 1
        and cell.area > 0
        and not any(fnmatchcase(cell.name, pattern) for pattern in dont_use)
        and truth_table(cell.functions[0], cell.inputs) == table
    ]
    if not fit:
        raise LibraryError(f"the library has no usable {what}: give all of its files")
    return min(fit, key=lambda cell: (cell.area, cell.name)).name


def liberty_paths(given: list[str] | None) -> list[Path]:
    """Liberty files from the option, else from ``LIBERTY``; a text that is no file is split at spaces and colons."""
    texts = given or [os.environ.get("LIBERTY", "")]
    paths = []
    for text in texts:
        whole = text.strip()
        paths += [whole] if whole and Path(whole).is_file() else [part for part in re.split(r"[\s:]+", whole) if part]
    return [Path(path) for path in paths]

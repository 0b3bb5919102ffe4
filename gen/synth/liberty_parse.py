"""A reader for the part of Liberty that the synthesis recipe needs: cells, areas, pins and functions."""

import gzip
import hashlib
import itertools
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Cell", "LibraryError", "Parsed", "parse", "truth_table"]


class LibraryError(ValueError):
    """A Liberty file is missing, unreadable, or lacks what the recipe needs."""


@dataclass(frozen=True)
class Cell:
    """One cell: area in the library's unit, whether it is a flip-flop, its input pins and its output functions."""

    name: str
    area: float
    is_flipflop: bool
    inputs: tuple[str, ...]
    functions: tuple[str, ...]


_TOKEN = re.compile(
    r"(?P<open>\b(?P<group>\w+)\s*\(\s*\"?(?P<name>[^(){}]*?)\"?\s*\)\s*\{)"
    r"|(?P<anon>\{)"
    r"|(?P<close>\})"
    r"|\b(?P<key>area|direction|function|dont_use|nom_process|nom_voltage|nom_temperature)\s*:\s*"
    r"\"?(?P<value>[^\";\n}]*?)\"?\s*(?:;|\n|$|(?=\}))"
)


@dataclass(frozen=True)
class Parsed:
    """What a Liberty file holds.

    Attributes
    ----------
    digest : str
        SHA-256 of the file's bytes.
    library : str
    corner : tuple of (str, float)
        The library's nominal process, voltage and temperature, as far as it states them.
    cells : dict of str to Cell
        Without those of ``dont_use : true``.
    text : str or None
        What to give to tools in place of the file: not compressed, in ASCII. None where they read the file itself.
    """

    digest: str
    library: str
    corner: tuple[tuple[str, float], ...]
    cells: dict[str, Cell]
    text: str | None


def parse(path: Path) -> Parsed:
    """Read one Liberty file: compressed by gzip or not, UTF-8 or Latin-1, with semicolons at ends of lines or without.

    A parser of our own: of a file of 15 MB nearly all is tables that the recipe does not want, and passing over them
    takes a second or two.

    Raises
    ------
    LibraryError
        If the file cannot be read or is not Liberty, or a number in it is none; the message has file, line and cell.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except OSError as error:
        raise LibraryError(f"cannot read Liberty file {path}: {error.strerror or error}") from error
    except EOFError as error:
        raise LibraryError(f"cannot read Liberty file {path}: its compressed end is missing") from error
    digest = hashlib.sha256(raw).hexdigest()
    if digest not in _PARSED:
        if b"\0" in content:
            raise LibraryError(f"not a Liberty file (not text): {path}")
        plain = content is raw
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text, plain = content.decode("latin-1").encode("ascii", "replace").decode(), False

        def passed_over(match: re.Match) -> str:
            return "\n" * match[0].count("\n")

        # Comments, and the numbers of the tables: nearly all of the text, and none of it is wanted here.
        bare = re.sub(r"/\*.*?\*/|\"[-+\d.,eE\s\\]{20,}\"", passed_over, text, flags=re.DOTALL)
        _PARSED[digest] = Parsed(digest, *_scan(bare, path), None if plain else text)
    return _PARSED[digest]


_PARSED: dict[str, Parsed] = {}


def _scan(text: str, path: Path) -> tuple[str, tuple[tuple[str, float], ...], dict[str, Cell]]:
    """Walk the groups of a Liberty file and collect its cells; tables and everything unknown are passed over."""

    def number(token: re.Match) -> float:
        try:
            return float(token["value"])
        except ValueError:
            line = text.count("\n", 0, token.start()) + 1
            groups = ", ".join(f"{group} {name}" for group, name in stack[-1:])
            raise LibraryError(f"{path}:{line}: {groups}: {token['key']} is no number: {token['value']!r}") from None

    corner = {}
    stack: list[tuple[str, str]] = []
    library, cells, cell = None, {}, {}
    for token in _TOKEN.finditer(text):
        if token["open"]:
            stack.append((token["group"], token["name"]))
            if token["group"] == "library":
                library = token["name"]
            elif token["group"] == "cell":
                cell = {"pins": {}, "area": 0.0, "flipflop": False, "dont_use": False}
            elif token["group"] in ("ff", "ff_bank") and cell:
                cell["flipflop"] = True
            elif token["group"] == "pin" and cell:
                cell["pins"][token["name"]] = {}
        elif token["anon"]:
            stack.append(("", ""))
        elif token["close"]:
            if not stack:
                raise LibraryError(f"not a Liberty file (unbalanced braces): {path}")
            group, name = stack.pop()
            if group == "cell":
                cells[name] = cell
                cell = {}
        elif cell and stack[-1][0] == "cell" and token["key"] in ("area", "dont_use"):
            cell[token["key"]] = number(token) if token["key"] == "area" else token["value"] == "true"
        elif stack and stack[-1][0] == "library" and token["key"].startswith("nom_"):
            corner[token["key"].removeprefix("nom_")] = number(token)
        elif cell and stack[-1][0] == "pin":
            cell["pins"][stack[-1][1]][token["key"]] = token["value"]
    if library is None or stack:
        raise LibraryError(f"not a Liberty file (no complete library group): {path}")
    usable = {name: _cell(name, cell) for name, cell in cells.items() if not cell["dont_use"]}
    return library, tuple(sorted(corner.items())), usable


def _cell(name: str, cell: dict) -> Cell:
    inputs = tuple(sorted(pin for pin, fields in cell["pins"].items() if fields.get("direction") == "input"))
    functions = tuple(
        f["function"] for f in cell["pins"].values() if f.get("direction") == "output" and "function" in f
    )
    return Cell(name, cell["area"], cell["flipflop"], inputs, functions)


@cache
def truth_table(function: str, inputs: tuple[str, ...]) -> int | None:
    """Bit i is the value of a Liberty ``function`` for input code i (first input = bit 0); None if not readable."""
    tokens = re.findall(r"[A-Za-z_]\w*|[()!'*&+|^01]|\S", function)
    table = 0
    for code, bits in enumerate(itertools.product((0, 1), repeat=len(inputs))):
        values = dict(zip(inputs, reversed(bits), strict=True))
        try:
            value, rest = _sum(tokens, {**values, "0": 0, "1": 1})
        except (KeyError, IndexError):
            return None
        if rest:
            return None
        table |= value << code
    return table


def _sum(tokens: list[str], values: dict[str, int]) -> tuple[int, list[str]]:
    # Liberty binds ! and ' first, then ^, then and (written *, & or nothing), then or.
    total, tokens = _product(tokens, values)
    while tokens and tokens[0] in "+|":
        term, tokens = _product(tokens[1:], values)
        total |= term
    return total, tokens


def _product(tokens: list[str], values: dict[str, int]) -> tuple[int, list[str]]:
    total, tokens = _exclusive(tokens, values)
    while tokens and tokens[0] not in "+|)":
        factor, tokens = _exclusive(tokens[1:] if tokens[0] in "*&" else tokens, values)
        total &= factor
    return total, tokens


def _exclusive(tokens: list[str], values: dict[str, int]) -> tuple[int, list[str]]:
    total, tokens = _atom(tokens, values)
    while tokens and tokens[0] == "^":
        term, tokens = _atom(tokens[1:], values)
        total ^= term
    return total, tokens


def _atom(tokens: list[str], values: dict[str, int]) -> tuple[int, list[str]]:
    if tokens[0] == "!":
        value, tokens = _atom(tokens[1:], values)
        return 1 - value, tokens
    if tokens[0] == "(":
        value, tokens = _sum(tokens[1:], values)
        if tokens[0] != ")":
            raise KeyError(tokens[0])
        tokens = tokens[1:]
    else:
        value, tokens = values[tokens[0]], tokens[1:]
    while tokens and tokens[0] == "'":
        value, tokens = 1 - value, tokens[1:]
    return value, tokens

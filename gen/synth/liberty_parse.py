"""A reader for the part of Liberty that the synthesis recipe needs: cells, areas, pins and functions."""

import hashlib
import itertools
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Cell", "LibraryError", "parse", "truth_table"]


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
    r"|\b(?P<key>area|direction|function|dont_use)\s*:\s*\"?(?P<value>[^\";\n]*?)\"?\s*;"
)


def parse(path: Path) -> tuple[str, str, dict[str, Cell]]:
    """Read one Liberty file: the sha256 of its bytes, the library's name and its cells (without ``dont_use : true``).

    Raises
    ------
    LibraryError
        If the file cannot be read or is not Liberty.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LibraryError(f"cannot read Liberty file {path}: {error.strerror}") from error
    digest = hashlib.sha256(raw).hexdigest()
    if digest not in _PARSED:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise LibraryError(f"not a Liberty file (not text): {path}") from error
        # Comments, and the numbers of the tables: nearly all of the text, and none of it is wanted here.
        text = re.sub(r"/\*.*?\*/|\"[-+\d.,eE\s\\]{20,}\"", "", text, flags=re.DOTALL)
        _PARSED[digest] = _scan(text, path)
    return digest, *_PARSED[digest]


_PARSED: dict[str, tuple[str, dict[str, Cell]]] = {}


def _scan(text: str, path: Path) -> tuple[str, dict[str, Cell]]:
    """Walk the groups of a Liberty file and collect its cells; tables and everything unknown are passed over."""
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
            cell[token["key"]] = float(token["value"]) if token["key"] == "area" else token["value"] == "true"
        elif cell and stack[-1][0] == "pin":
            cell["pins"][stack[-1][1]][token["key"]] = token["value"]
    if library is None or stack:
        raise LibraryError(f"not a Liberty file (no complete library group): {path}")
    return library, {name: _cell(name, cell) for name, cell in cells.items() if not cell["dont_use"]}


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

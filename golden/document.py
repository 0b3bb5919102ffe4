"""Measured tables in documents: replaced by commands, never typed."""

from pathlib import Path

from shell.output import write_file

__all__ = ["write_between_markers"]


def write_between_markers(path: Path, text: str, markers: tuple[str, str]) -> None:
    """Replace what stands between two marker lines of a document.

    Raises
    ------
    FileNotFoundError, ValueError
        No such document; it lacks the markers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no document at {path}")
    document = path.read_text()
    if any(document.count(marker) != 1 for marker in markers):
        raise ValueError(f"{path} must contain the lines {markers[0]!r} and {markers[1]!r} once each")
    before, rest = document.split(markers[0])
    after = rest.split(markers[1])[1]
    write_file(path, f"{before}{markers[0]}\n{text.rstrip()}\n{markers[1]}{after}".encode())

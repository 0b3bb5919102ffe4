"""Where results go: files and directories that appear whole or not at all, whatever ends the program.

Links are followed, so that what they point at is replaced and not they. What is staged lies beside its place, never in
a temporary directory, which may be on another file system.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from shell.processes import orderly_end

__all__ = ["directory_name", "output_directory", "output_file", "staged_directory", "staged_file", "staged_files"]
__all__ += ["write_file"]

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFREG: "a file",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}
_LONGEST_NAME = 180


def _place(path: str | os.PathLike, wanted: int, name: str) -> Path:
    """``path`` with its links followed; it must not be there, or be of the wanted kind."""
    real = Path(os.path.realpath(path))
    try:
        kind = stat.S_IFMT(real.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return real
    if kind != wanted:
        error = {stat.S_IFDIR: IsADirectoryError, stat.S_IFREG: NotADirectoryError}.get(kind, OSError)
        raise error(f"{name} must be {_KINDS[wanted]}, and {path} is {_KINDS.get(kind, 'something else')}")
    return real


def output_file(path: str | os.PathLike, name: str = "output") -> Path:
    """The place of a file to be written, links followed; OSError, naming ``name``, for what is no plain file."""
    return _place(path, stat.S_IFREG, name)


def output_directory(path: str | os.PathLike, name: str = "output") -> Path:
    """The place of a directory to be written into, links followed; OSError for what is none."""
    return _place(path, stat.S_IFDIR, name)


@contextmanager
def _made(directory: Path) -> Iterator[None]:
    """``directory`` and what it lies in, made if need be, and taken away again if the block fails."""
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    try:
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def _beside(path: Path) -> Path:
    """A name for what is staged beside ``path``. (Not of `tempfile`, whose files are private to their owner.)"""
    return path.with_name(f".bitmosaic-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def staged_file(path: str | os.PathLike) -> Iterator[Path]:
    """A name beside ``path`` to write to; if the block ends well, that file becomes ``path``, else it is removed.

    Missing directories are made. Raises OSError if ``path`` is there and no plain file.
    """
    place = output_file(path)
    temporary = _beside(place)
    with orderly_end(), _made(place.parent):
        try:
            yield temporary
            if place.exists():
                shutil.copymode(place, temporary)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


def write_file(path: str | os.PathLike, content: str | bytes) -> None:
    """Write ``path`` (text in UTF-8): a reader sees the old file or the new one, never a part."""
    with staged_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def staged_files(directory: str | os.PathLike) -> Iterator[Path]:
    """A directory for files that move into ``directory``, beside what it holds, if the block ends well.

    Raises OSError if ``directory``, or what a file is to replace, is there and is something else.
    """
    place = output_directory(directory, "out")
    with orderly_end(), _made(place):
        staging = _beside(place / "staging")
        try:
            staging.mkdir()
            yield staging
            targets = {path: output_file(place / path.name) for path in sorted(staging.iterdir())}
            for path, target in targets.items():
                _move(path, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _move(path: Path, target: Path) -> None:
    try:
        os.replace(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the target of a link may be on another file system
            raise
        with staged_file(target) as temporary:
            shutil.copyfile(path, temporary)


@contextmanager
def staged_directory(directory: str | os.PathLike, own: Collection[str]) -> Iterator[Path]:
    """A directory that becomes ``directory``, in place of an earlier one, if the block ends well.

    Raises FileExistsError if ``directory`` holds anything but files of the names ``own``: it was not made here.
    """
    place = output_directory(directory)

    def check() -> None:
        strange = sorted(path.name for path in place.iterdir() if path.name not in own) if place.exists() else []
        if strange:
            raise FileExistsError(f"{directory} is there and holds {strange[0]!r}: it will not be replaced")

    check()
    with orderly_end(), _made(place.parent):
        staging, old = _beside(place), _beside(place)
        try:
            staging.mkdir()
            yield staging
            check()
            if place.exists():
                place.rename(old)
            staging.rename(place)
        except BaseException:
            if old.exists() and not place.exists():
                old.rename(place)
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def directory_name(name: str) -> str:
    """Any text as the name of one directory: other texts have other names, none is hidden or leads elsewhere.

    Letters, digits and ``_.-~`` stand as they are, a leading dot and all else as in URLs (``%2F``); of long names the
    end is a hash.
    """
    quoted = quote(name, safe="", errors="surrogatepass")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) > _LONGEST_NAME:
        quoted = f"{quoted[:_LONGEST_NAME]}%~{sha256(quoted.encode()).hexdigest()[:16]}"
    return quoted or "%"

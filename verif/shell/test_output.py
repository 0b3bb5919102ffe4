"""Output files and directories: whole or absent, in their place and nowhere else."""

import os
import random
import socket
import stat
import string
from pathlib import Path

import pytest

from shell.output import directory_name, staged_directory, staged_file, staged_files, write_file


def left(directory) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def elsewhere():
    """A directory on another file system than that of temporary files."""
    import shutil
    import tempfile

    path = tempfile.mkdtemp(dir="/dev/shm")
    yield path
    shutil.rmtree(path)


def test_a_file_appears_whole_and_keeps_its_mode(tmp_path):
    path = tmp_path / "new" / "deep" / "x"
    write_file(path, "µ")
    assert path.read_bytes() == "µ".encode()
    path.chmod(0o640)
    with staged_file(path) as temporary:
        temporary.write_text("next")
        assert path.read_text() == "µ"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert left(tmp_path) == {"new/deep/x": b"next"}


@pytest.mark.parametrize("ending", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_fails_leaves_everything_as_it_was(tmp_path, ending):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("old")

    def fail(place, part: str) -> None:
        with place as staging:
            (staging / part).write_text("half")
            raise ending

    for place in (staged_file(tmp_path / "d" / "x"), staged_file(tmp_path / "new" / "x")):
        with pytest.raises(ending):
            fail(place, "")
    old, new = tmp_path / "d", tmp_path / "e" / "f"
    for place in (staged_files(old), staged_files(new), staged_directory(old, "x"), staged_directory(new, "x")):
        with pytest.raises(ending):
            fail(place, "x")
    assert left(tmp_path) == {"d/x": b"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    write_file(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_file(tmp_path / "x", b"new")
    assert left(tmp_path) == {"x": b"old"}


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(tmp_path, elsewhere, exists):
    """To files and to directories, on other file systems too."""
    target = f"{elsewhere}/real"
    if exists:
        write_file(target, "old")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "hop").symlink_to("link")
    write_file(tmp_path / "hop", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "hop").is_symlink()
    assert Path(target).read_text() == "new"
    (tmp_path / "out").symlink_to(elsewhere)
    (tmp_path / "far").write_text("old")
    os.symlink(tmp_path / "far", f"{elsewhere}/b")
    with staged_files(tmp_path / "out") as staging:
        for name in "ab":
            (staging / name).write_text(name)
    assert (Path(elsewhere, "a").read_text(), (tmp_path / "far").read_text()) == ("a", "b")
    assert sorted(os.listdir(elsewhere)) == ["a", "b", "real"]


def special(path, kind: str) -> None:
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "a character device":
        path.symlink_to("/dev/null")
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a character device", "a directory"])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    special(tmp_path / "x", kind)
    with pytest.raises(OSError, match=f"output must be a file, and .*x is {kind}"):
        write_file(tmp_path / "x", "new")

    def replace_both() -> None:
        with staged_files(tmp_path) as staging:
            (staging / "a").write_text("not even this")
            (staging / "x").write_text("new")

    with pytest.raises(OSError, match=f"output must be a file, and .*x is {kind}"):
        replace_both()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    if kind != "a directory":
        with pytest.raises(OSError, match=f"out must be a directory, and .*x is {kind}"), staged_files(tmp_path / "x"):
            pass


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write_file(tmp_path / "a", "new")


def test_a_directory_is_replaced_only_if_it_was_made_here(tmp_path):
    for content in ("first", "second"):
        with staged_directory(tmp_path / "layer", ("job", "data")) as staging:
            (staging / ("job" if content == "second" else "data")).write_text(content)
    assert left(tmp_path) == {"layer/job": b"second"}
    (tmp_path / "layer" / "mine").mkdir()
    place = staged_directory(tmp_path / "layer", ("job", "data"))
    with pytest.raises(FileExistsError, match="layer is there and holds 'mine': it will not be replaced"), place:
        pytest.fail("not even begun")
    assert left(tmp_path) == {"layer/job": b"second"}


HOSTILE = ["", ".", "..", "../x", "/x", "x/", "a", "a/b", "a%2Fb", "a/../b", ".a", "%2Ea", "\0", "a\n", "ä", "a" * 300]
HOSTILE += ["a" * 299 + "b", "model.layers.0.q_proj", "CON", "-rf", "~", "a b", "\udcff", "%", "%25"]


def test_names_from_outside_stay_inside_and_apart(tmp_path, seed):
    random.seed(seed)
    letters = string.ascii_letters[:3] + "./%~\\\n ä\0"
    names = {*HOSTILE, *("".join(random.choices(letters, k=random.randrange(8))) for _ in range(500))}
    places = {name: directory_name(name) for name in names}
    assert len(set(places.values())) == len(names)
    for name, place in places.items():
        (tmp_path / place).mkdir()
        assert (tmp_path / place).resolve().parent == tmp_path.resolve(), name
        assert not place.startswith("."), name
        assert place.isascii()
    assert directory_name("model.layers.0.q_proj") == "model.layers.0.q_proj"
    assert directory_name("a/b") == "a%2Fb"

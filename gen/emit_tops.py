"""Emit every top of a preset, all or nothing."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gen.verilog import Emitted, emit

if TYPE_CHECKING:
    from gen.tops import Top

__all__ = ["emit_tops"]


def emit_tops(tops: "Sequence[Top]", out_dir: Path, *, progress: Callable[[str], None] | None = None) -> list[Emitted]:
    """Write ``<top>.v`` and ``<top>.json`` for each of ``tops`` to ``out_dir``.

    Everything is made beside ``out_dir`` first and moved in when all of it is there, so a failure leaves ``out_dir``
    as it was. ``progress`` is called with the name of each top when it is done.

    Raises
    ------
    ValueError
        If two tops have the same name, or as :func:`gen.verilog.emit`.
    NotADirectoryError
        If ``out_dir`` is a file.
    """
    names = [top.name for top in tops]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two tops are called {', '.join(twice)}")
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise NotADirectoryError(f"out must be a directory, and {out_dir} is a file")
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=".bitmosaic-") as staging:
        staged = []
        for top in tops:
            component = top.component()
            latency = getattr(component, "latency", None)
            staged.append(emit(component, top.name, Path(staging), parameters=top.parameters, latency=latency))
            if progress is not None:
                progress(top.name)
        out_dir.mkdir(exist_ok=True)
        return [_move(emitted, out_dir) for emitted in staged]


def _move(emitted: Emitted, out_dir: Path) -> Emitted:
    moved = replace(emitted, path_v=out_dir / emitted.path_v.name, path_json=out_dir / emitted.path_json.name)
    os.replace(emitted.path_v, moved.path_v)
    os.replace(emitted.path_json, moved.path_json)
    return moved

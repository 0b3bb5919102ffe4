"""Emit every top of a preset, all or nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gen.verilog import Emitted, emit
from shell.output import staged_files

if TYPE_CHECKING:
    from gen.tops import Top

__all__ = ["emit_tops"]


def emit_tops(tops: "Sequence[Top]", out_dir: Path, *, progress: Callable[[str], None] | None = None) -> list[Emitted]:
    """Write ``<top>.v`` and ``<top>.json`` for each of ``tops`` to ``out_dir``.

    Everything is staged first and moved in when all of it is there, so a failure leaves ``out_dir`` as it was.
    ``progress`` is called with the name of each top when it is done.

    Raises
    ------
    ValueError
        If two tops have the same name, or as :func:`gen.verilog.emit`.
    OSError
        If ``out_dir`` is no directory, or what a file is to replace is none.
    """
    names = [top.name for top in tops]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two tops are called {', '.join(twice)}")
    out_dir = Path(out_dir)
    emitted = []
    with staged_files(out_dir) as staging:
        for top in tops:
            component = top.component()
            latency = getattr(component, "latency", None)
            emitted.append(emit(component, top.name, staging, parameters=top.parameters, latency=latency))
            if progress is not None:
                progress(top.name)
    return [replace(one, path_v=out_dir / one.path_v.name, path_json=out_dir / one.path_json.name) for one in emitted]

"""What the command lines share: two consoles, errors as one line, a progress bar."""

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["application", "command", "progress_bar", "stderr", "stdout"]

stdout = Console()
stderr = Console(stderr=True)


def application(purpose: str) -> typer.Typer:
    """An empty command line; ``purpose`` is what its help begins with."""
    return typer.Typer(help=purpose, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def command(app: typer.Typer, function: Callable[..., None]) -> Callable[..., None]:
    """Register a sub-command of ``app`` whose user errors end as one line on standard error and exit code 2."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs) -> None:
        from gen.synth.run import SynthesisError
        from gen.yosys import YosysError

        try:
            function(*args, **kwargs)
        except (ValueError, OSError, SynthesisError, YosysError) as error:
            typer.echo(f"bitmosaic: {error}", err=True)
            raise typer.Exit(2) from error

    return app.command()(wrapped)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error; yields a function that advances it by one step and shows its name.

    Where standard error is no terminal, each name is a line instead.
    """
    steps = itertools.count(1)
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def advance(name: str) -> None:
            bar.update(task, advance=1, description=name)
            if not stderr.is_terminal:
                print(f"{title} [{next(steps)}/{total}] {name}", file=sys.stderr, flush=True)

        yield advance

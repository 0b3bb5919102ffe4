"""What the command lines share: two consoles, errors as one line, a progress bar.

Nothing that is printed here is read as markup: names, paths and messages from outside come out as they are.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shell.processes import ToolError, orderly_end

__all__ = ["application", "command", "progress_bar", "say", "single", "stderr", "stdout", "warn"]

_PLAIN = {"markup": False, "emoji": False, "highlight": False}
stdout = Console(**_PLAIN)
stderr = Console(stderr=True, **_PLAIN)


def say(text: object) -> None:
    """A line on standard output, however long."""
    stdout.print(str(text), soft_wrap=True)


def warn(text: str) -> None:
    """A line on standard error that begins with ``warning``."""
    stderr.print(f"warning: {text}", soft_wrap=True)


def application(purpose: str) -> typer.Typer:
    """An empty command line; ``purpose`` is what its help begins with."""
    return typer.Typer(help=purpose, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def command(app: typer.Typer, function: Callable[..., None], *, program: str = "bitmosaic") -> Callable[..., None]:
    """Register a sub-command of ``app`` whose user errors end as one line on standard error and exit code 2."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs) -> None:
        for stream in (sys.stdout, sys.stderr):  # a terminal may lack the letters of a name
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            if not __debug__:
                raise ValueError("Python must run with assertions: without -O, and PYTHONOPTIMIZE unset")
            with orderly_end():
                function(*args, **kwargs)
        except (ValueError, OSError, MemoryError, ToolError) as error:
            typer.echo(f"{program}: {error or type(error).__name__}", err=True)
            raise typer.Exit(2) from error

    return app.command()(wrapped)


def single(function: Callable[..., None], program: str) -> typer.Typer:
    """A command line that is one command, registered as by `command`."""
    app = application("")
    command(app, function, program=program)
    return app


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields a function that advances it by one step, or to a given one, and shows
    its name.

    Where standard error is no terminal, each name is a line instead.
    """
    done = 0
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def advance(name: str, step: int | None = None) -> None:
            nonlocal done
            done = done + 1 if step is None else step
            bar.update(task, completed=done, description=name)
            if not stderr.is_terminal:
                print(f"{title} [{done}/{total}] {name}", file=sys.stderr, flush=True)

        yield advance

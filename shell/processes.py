"""Child processes, the environment that they see, and what happens when a signal ends the program.

Whichever of SIGINT, SIGTERM and SIGHUP comes, children are ended first and then the stack unwinds, so that every
``finally`` and ``with`` clears up behind itself.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile

__all__ = ["ToolError", "environment", "orderly_end", "parallel", "run"]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_PATIENCE = 0.2
"""Seconds that the main thread waits at a time: a signal that another thread receives is handled when it wakes."""
_KEPT = ("PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED")
_DROPPED = re.compile(
    r"""
    PYTHON  # optimised code has no assertions, warnings may be errors, encodings may be any
    | COCOTB | (PY)?GPI_ | PYTEST_ | (TOPLEVEL | MODULE | TESTCASE | RANDOM_SEED | PLUSARGS | COVERAGE)\Z  # tests
    | VERILATOR | MAKE | MFLAGS | GNUMAKEFLAGS | YOSYS | ABC_  # flags and places of tools
    | TORCH | PYTORCH  # devices, logs, compilers
    | LANG | LC_  # languages of messages, decimal commas
    """,
    re.VERBOSE,
)
"""Beginnings of the variables that a user sets for work of their own and that would change what children do."""

_children: set[subprocess.Popen] = set()
_lock = threading.RLock()
_ended = False
_starting, _deferred = False, 0
"""Whether the main thread is starting a child, and the signal that came while it did."""


class ToolError(RuntimeError):
    """A tool that was run as a process of its own refused its input, failed, or is missing; the message says why."""


def environment(**settings: str) -> dict[str, str]:
    """The environment of a child: the user's, without what would change results, with UTF-8 and ``settings``."""
    mine = {name: value for name, value in os.environ.items() if name in _KEPT or not _DROPPED.match(name)}
    return {**mine, "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", **settings}


def _end_children() -> None:
    for process in tuple(_children):
        # The group: a compiler's and a synthesizer's own children too.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _ignore(_number: int, _frame) -> None:
    """Unlike SIG_IGN, silent about a signal that has come already."""


def _end(number: int, _frame=None) -> None:
    global _ended, _deferred
    for other in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, _ignore)  # nothing interrupts the clearing up: a second one often follows
    with _lock:
        if _starting:
            _deferred = number
            return
        _ended, _deferred = True, 0
        _end_children()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


@contextmanager
def orderly_end() -> Iterator[None]:
    """While inside, a signal ends children and raises: KeyboardInterrupt for SIGINT, else SystemExit(128 + number).

    Signals that the program handles itself or ignores are left alone, and so are all of them outside the main thread.
    """
    global _ended
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    changed = [number for number, handler in before.items() if handler in _DEFAULTS]
    if changed:
        _ended = False
    for number in changed:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])


def _start(command: Sequence[str | os.PathLike], options: dict) -> subprocess.Popen:
    global _starting
    main = threading.current_thread() is threading.main_thread()
    with _lock:
        if _ended:
            raise ToolError(f"{command[0]} is not started: the program is being ended")
        _starting = main
        try:
            process = subprocess.Popen(command, process_group=0, **options)
            _children.add(process)
        finally:
            _starting = False
    return process


def _communicate(process: subprocess.Popen, timeout: float | None) -> tuple:
    end = float("inf") if timeout is None else time.monotonic() + timeout
    while True:
        try:
            return process.communicate(timeout=min(_PATIENCE, max(0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                raise


def run(
    command: Sequence[str | os.PathLike], *, input: str | None = None, timeout: float | None = None, **options
) -> subprocess.CompletedProcess:
    """As `subprocess.run`, for a child that does not outlive this program; by default in `environment`.

    Raises
    ------
    subprocess.TimeoutExpired
        It took more than ``timeout`` seconds, and was ended.
    """
    options.setdefault("env", environment())
    with orderly_end(), TemporaryFile() as given:
        # A file: what is sent through a pipe gets lost when waiting is interrupted.
        given.write((input or "").encode())
        given.seek(0)
        options["stdin"] = given
        process = _start(command, options)
        try:
            if _deferred:
                _end(_deferred)
            output, errors = _communicate(process, timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            _children.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def parallel(function: Callable, items: Iterable, count: int) -> list:
    """``function`` of every item, in ``count`` threads that may `run` children; after a failure no other is begun."""
    with orderly_end(), ThreadPoolExecutor(count) as pool:
        try:
            rest = futures = [pool.submit(function, item) for item in items]
            while rest:
                done, rest = wait(rest, timeout=_PATIENCE, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

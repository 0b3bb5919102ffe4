"""Which ports of a design make up a stream, and how beats cross them.

Two spellings of a stream are known by their ports: Amaranth's (member ``i``: ``i__payload``, one flat vector,
``i__valid``, ``i__ready``) and AXI4-Stream's (``s_axis``: ``s_axis_tdata``, ``_tvalid``, ``_tready`` and whichever of
``_tlast``, ``_tuser``, ``_tkeep``, ``_tid``, ``_tdest`` exist). Other ports, with or without a ready, are named by
:class:`Wires`. Beats of the first are an array in the form of :mod:`sim.beats`, those of the others a mapping of signal
(``"tdata"``) to such an array.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from cocotb.types import Logic, LogicArray

from sim import beats as form

__all__ = ["QUIET", "UNKNOWN", "Port", "UnknownError", "Wires", "flag_writer", "known_flag", "late_writes"]

UNKNOWN = os.environ.get("BITMOSAIC_UNKNOWN", "")
"""In a four-state simulator: what an unknown bit of a payload counts as, ``0`` or ``1``; else empty."""
QUIET = os.environ.get("BITMOSAIC_QUIET", "").split()
"""In a four-state simulator: handshakes into the design, low before anything drives them."""

DEPOSIT = 0
"""How values are written: the simulator's ordinary, inertial assignment."""

AXI_PAYLOAD = ("tdata", "tlast", "tuser", "tkeep", "tid", "tdest")

late_writes: list = []
"""In a four-state simulator: ports and values to be written at the falling edge. Written at once, from within the
change of the clock, they could overtake it."""


class UnknownError(AssertionError):
    """A port that must always be 0 or 1 is neither."""


def known_flag(port, name: str) -> Callable[[], int]:
    """Function that reads a one-bit port; in a four-state simulator it must be known."""
    if not UNKNOWN:
        return port._handle.get_signal_val_long

    def read() -> int:
        text = port._handle.get_signal_val_binstr()
        if text not in ("0", "1"):
            raise UnknownError(f"{name} is {text}")
        return int(text)

    return read


def flag_writer(port) -> Callable[[int], None]:
    """Function that writes a one-bit port."""
    if UNKNOWN:
        return lambda value: late_writes.append((port, value))
    return lambda value: port._handle.set_signal_val_int(DEPOSIT, value)


@dataclass(frozen=True)
class Wires:
    """Ports that make up a stream and are not named like one.

    Parameters
    ----------
    payload : tuple of str
        Ports that hold a beat.
    valid : str
    ready : str or None
        None: whoever takes the beats is always ready.
    """

    payload: tuple[str, ...]
    valid: str
    ready: str | None = None


def find_wires(dut, name: str) -> tuple[Wires, tuple[str, ...]]:
    """Ports of stream ``name``, and what beats call the signals of its payload."""
    if hasattr(dut, f"{name}__valid"):
        return Wires((f"{name}__payload",), f"{name}__valid", f"{name}__ready"), ("payload",)
    if hasattr(dut, f"{name}_tvalid"):
        parts = tuple(part for part in AXI_PAYLOAD if hasattr(dut, f"{name}_{part}"))
        return Wires(tuple(f"{name}_{part}" for part in parts), f"{name}_tvalid", f"{name}_tready"), parts
    raise ValueError(f"the design has no stream {name!r}: neither {name}__valid nor {name}_tvalid is a port")


class Port:
    """The signals of one stream of the design, as raw simulator handles."""

    def __init__(self, dut, name: str, wires: Wires | None):
        self.name = name
        wires, parts = (wires, wires.payload) if wires else find_wires(dut, name)
        for port in (*wires.payload, wires.valid, *([wires.ready] if wires.ready else [])):
            if not hasattr(dut, port):
                raise ValueError(f"stream {name!r} needs port {port}, which the design does not have")
        self.valid = getattr(dut, wires.valid)
        self.ready = getattr(dut, wires.ready) if wires.ready else None
        self.widths = {part: len(getattr(dut, port)) for part, port in zip(parts, wires.payload, strict=True)}
        self.ports = [getattr(dut, port) for port in wires.payload]
        self.handles = [port._handle for port in self.ports]

    def writer(self) -> Callable:
        """Function that writes a payload, given as a literal or, of several signals, as a tuple of literals."""
        if UNKNOWN:

            def write_texts(texts) -> None:
                for port, text in zip(self.ports, (texts,) if isinstance(texts, str) else texts, strict=True):
                    late_writes.append((port, LogicArray(text) if len(text) > 1 else Logic(text)))

            return write_texts
        sets = [
            handle.set_signal_val_binstr if width > form.INT_WIDTH else handle.set_signal_val_int
            for handle, width in zip(self.handles, self.widths.values(), strict=True)
        ]
        if len(sets) == 1:
            only = sets[0]
            return lambda literal: only(DEPOSIT, literal)

        def write(literals) -> None:
            for put, literal in zip(sets, literals, strict=True):
                put(DEPOSIT, literal)

        return write

    def reader(self) -> Callable:
        """Function that reads a payload as :meth:`writer` takes it."""
        gets = [
            handle.get_signal_val_binstr if UNKNOWN or width > form.INT_WIDTH else handle.get_signal_val_long
            for handle, width in zip(self.handles, self.widths.values(), strict=True)
        ]
        return gets[0] if len(gets) == 1 else lambda: tuple(get() for get in gets)

    def literals(self, beats: np.ndarray | Mapping[str, np.ndarray]) -> list:
        if not isinstance(beats, Mapping):
            if len(self.widths) != 1:
                raise ValueError(f"{self.name}: beats must be a mapping with {sorted(self.widths)}")
            beats = dict.fromkeys(self.widths, beats)
        if set(beats) != set(self.widths):
            raise ValueError(f"{self.name}: beats must have exactly {sorted(self.widths)}, not {sorted(beats)}")
        columns = []
        for part, width in self.widths.items():
            column = form.to_literals(form.checked(beats[part], width, self.name), width)
            columns.append([f"{x:0{width}b}" for x in column] if UNKNOWN and width <= form.INT_WIDTH else column)
        if len({len(column) for column in columns}) != 1:
            raise ValueError(f"{self.name}: signals have different numbers of beats")
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

    def beats(self, literals: list) -> np.ndarray | dict[str, np.ndarray]:
        """Payloads as arrays; what is unknown of one counts as :data:`UNKNOWN`."""
        if UNKNOWN:
            rows = [(row,) if isinstance(row, str) else row for row in literals]
            rows = [[re.sub("[^01]", UNKNOWN, text) for text in row] for row in rows]
            widths = self.widths.values()
            rows = [
                tuple(text if width > form.INT_WIDTH else int(text, 2) for text, width in zip(row, widths, strict=True))
                for row in rows
            ]
            literals = [row[0] if len(self.widths) == 1 else row for row in rows]
        if list(self.widths) == ["payload"]:
            return form.from_literals(literals, self.widths["payload"])
        columns = zip(*literals, strict=True) if len(self.widths) > 1 else [literals]
        columns = [list(column) for column in columns] or [[] for _ in self.widths]
        return {
            part: form.from_literals(column, width)
            for (part, width), column in zip(self.widths.items(), columns, strict=True)
        }

    def garbage(self, rng: np.random.Generator, count: int = 61) -> list:
        """Random payloads: what idle and resetting streams carry, so that nothing can lean on it. Unknown ones in a
        four-state simulator."""
        if UNKNOWN:
            texts = tuple("x" * width for width in self.widths.values())
            return [texts if len(texts) > 1 else texts[0]] * count
        columns = {}
        for part, width in self.widths.items():
            texts = ["".join(row) for row in rng.choice(["0", "1"], (count, width))]
            columns[part] = texts if width > form.INT_WIDTH else [int(text, 2) for text in texts]
        parts = list(columns.values())
        return parts[0] if len(parts) == 1 else list(zip(*parts, strict=True))

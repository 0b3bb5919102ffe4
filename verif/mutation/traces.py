"""What went in and out of a block in its own tests, and what of it a mutant must give again."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from shell import processes
from sim.build import ROOT

__all__ = ["Ports", "Stream", "Trace", "read", "record"]


@dataclass(frozen=True)
class Stream:
    """``valid``, ``ready``, and ``payload`` as (bit, width) in the inputs' or the outputs' word; ``sent``: by the
    block."""

    name: str
    sent: bool
    valid: int
    ready: int
    payload: tuple[tuple[str, int, int], ...]


class Ports:
    """Ports of a top: the first declared is the highest in each word, as the recorder writes them."""

    def __init__(self, top: str, ports: Sequence[dict], clock: str, reset: str):
        self.top, self.clock, self.reset = top, clock, reset
        self.declared = list(ports)
        self.place: dict[str, tuple[str, int, int]] = {}
        self.width = {"input": 0, "output": 0}
        for port in reversed([port for port in ports if port["name"] != clock]):
            way, width = port["direction"], port["width"]
            self.place[port["name"]] = (way, self.width[way], width)
            self.width[way] += width
        self.words = {way: -(-width // 32) for way, width in self.width.items()}
        self.streams = [self._stream(name[:-5]) for name in self.place if name.endswith("valid")]
        used = {name for s in self.streams for name in (f"{s.name}valid", f"{s.name}ready")}
        used |= {name for s in self.streams for name, _, _ in s.payload}
        self.levels = [name for name in self.place if name not in used]

    def _stream(self, prefix: str) -> Stream:
        way, valid, _ = self.place[f"{prefix}valid"]
        names = [n for n in self.place if n.startswith(prefix) and n[len(prefix) :] not in ("valid", "ready")]
        payload = tuple((name, *self.place[name][1:]) for name in names if self.place[name][0] == way)
        return Stream(prefix, way == "output", valid, self.place[f"{prefix}ready"][1], payload)

    def column(self, bits: np.ndarray, name: str) -> np.ndarray:
        """A port's bits, [cycles, width], of those of its word."""
        _, low, width = self.place[name]
        return bits[:, low : low + width]


@dataclass
class Trace:
    """``inputs``, ``outputs``, ``care``: uint8 [cycles, bits], ``care`` of the outputs that are promised."""

    name: str
    inputs: np.ndarray
    outputs: np.ndarray
    care: np.ndarray

    def write(self, path: Path) -> None:
        """As the replay reads it: per cycle the three as 32-bit words."""
        columns = []
        for bits in (self.inputs, self.outputs, self.care):
            padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 32)))
            columns.append(np.packbits(padded, axis=1, bitorder="little").view("<u4"))
        np.concatenate(columns, axis=1).astype("<u4").tofile(path)


def record(home: Path, ports: Ports, verilog: str, tests: Sequence[str], seeds: Sequence[int]) -> list[Path]:
    """Run ``tests`` (pytest's arguments below verif) once per seed; the traces they leave in ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    design = {"top": ports.top, "clock": ports.clock, "ports": ports.declared}
    design["sha256"] = sha256(verilog.encode()).hexdigest()
    done = home / "done"
    if not done.exists():
        for stale in home.glob("*.trace"):
            stale.unlink()
        (home / "design.json").write_text(json.dumps(design))
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "verif.mutation.recorder"]
        for seed in seeds:
            for test in tests:
                command = [sys.executable, "-m", "pytest", *options, *test.split(), "--seed", str(seed)]
                environment = processes.environment(BITMOSAIC_RECORD=str(home.resolve()), PYTHONPATH=str(ROOT))
                result = processes.run(command, cwd=ROOT / "verif", env=environment, stdout=subprocess.PIPE, text=True)
                if result.returncode:
                    raise RuntimeError(f"{test}: the tests of the design itself must pass:\n{result.stdout[-2000:]}")
        done.touch()
    found = sorted(home.glob("*.trace"), key=lambda path: int(path.stem))
    if not found:
        raise RuntimeError(f"{', '.join(tests)}: no simulation of this Verilog was recorded")
    return found


def read(path: Path, ports: Ports, anything: Callable[[Ports, np.ndarray, np.ndarray], None], most: int) -> Trace:
    """A recorded trace up to ``most`` cycles; ``anything(ports, outputs, care)`` clears what is not promised."""
    rows: list[list[bytes]] = [[], []]
    with path.open() as file:
        for line, _ in zip(file, range(most), strict=False):
            words = line.split()
            if len(words) != 2:
                break
            for column, word, way in zip(rows, words, ("input", "output"), strict=True):
                size = -(-ports.width[way] // 8)
                column.append(int(word.replace("x", "0").replace("z", "0"), 16).to_bytes(size, "little"))
    inputs, outputs = (
        np.unpackbits(np.frombuffer(b"".join(column), np.uint8).reshape(len(column), -1), axis=1, bitorder="little")[
            :, : ports.width[way]
        ]
        for column, way in zip(rows, ("input", "output"), strict=True)
    )
    care = np.ones_like(outputs)
    for stream in ports.streams:
        if stream.sent:
            idle = outputs[:, stream.valid] == 0
            for _name, low, width in stream.payload:
                care[idle, low : low + width] = 0
        if stream.sent and f"{stream.name}resp" in ports.place and f"{stream.name}data" in ports.place:
            failed = ports.column(outputs, f"{stream.name}resp").any(1)
            ports.column(care, f"{stream.name}data")[failed] = 0
        keep = f"{stream.name}keep"
        if stream.sent and keep in ports.place:
            kept = np.repeat(ports.column(outputs, keep), 8, axis=1)
            ports.column(care, f"{stream.name}data")[kept == 0] = 0
    anything(ports, outputs, care)
    active = ports.column(inputs, ports.reset)[:, 0] == (0 if ports.reset.endswith("n") else 1)
    first = int(np.argmax(active)) if active.any() else len(active)
    care[active] = 0
    care[:first] = 0
    return Trace(path.stem, inputs, outputs, care)

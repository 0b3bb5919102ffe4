"""Files of packed weights: ``safetensors``, versioned and hashed, written and read one tensor at a time.

docs/weights.md, section 8. The writer lays the whole file out before the first payload, so that each tensor goes to
its place when it is ready, and none is kept.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from golden.tensor_file import TensorFile
from golden.weights.file_layout import ARRAYS, FileLayout, text_hash, weight_hash
from golden.weights.packing import PackedPlan, PackedWeight, check_lanes
from shell.output import staged_file
from spec.datatypes import Datatype
from spec.packet import group_size_code

__all__ = ["FORMAT", "VERSION", "PackedReader", "PackedWriter", "WeightFileError", "load_packed", "save_packed"]

FORMAT = "bitmosaic.weights"
VERSION = (1, 0)
"""Major, minor. A reader takes any minor version of its own major version."""
_PIECE = 1 << 24


class WeightFileError(ValueError):
    """A file that is not a packed weight file of a known version, or is damaged; the message names the file and why."""


class PackedWriter:
    """Writes a file of packed weights, which appears under its name only when all of them are there.

    A context manager: an exception inside leaves ``path`` as it was, and nothing beside it.

    Parameters
    ----------
    path : path
        Links are followed; missing directories are made.
    plans : mapping from name to PackedPlan
        What will be added, in any order.

    Attributes
    ----------
    temporary : Path
        Where the file is made; complete, and fit for `PackedReader`, after `finish`.
    """

    def __init__(self, path: str | os.PathLike, plans: Mapping[str, PackedPlan]):
        self.path = Path(path)
        self._metadata = {"format": FORMAT, "version": ".".join(map(str, VERSION)), "generator": _generator()}
        self._layout = FileLayout(plans, self._metadata)
        self._hashes: dict[str, str] = {}
        self._dropped: set[str] = set()
        self._finished = False
        self._stack = contextlib.ExitStack()

    def add(self, name: str, packed: PackedWeight) -> None:
        """Write one tensor to its place. Raises ValueError if it is not as planned."""
        plan = self._layout.plans.get(name)
        if plan is None or name in self._hashes:
            raise ValueError(f"name must be one that was planned and not yet added, not {name!r}")
        if packed.plan() != plan:
            raise ValueError(f"{name} is {packed.plan()}, and was planned as {plan}")
        for part, dtype in ARRAYS.items():
            self._file.seek(self._layout.position(name, part))
            self._file.write(np.ascontiguousarray(getattr(packed, part).astype(dtype, copy=False)).data)
        self._hashes[name] = weight_hash(packed)

    def drop(self, *names: str) -> None:
        """Leave planned tensors out after all."""
        self._dropped.update(names)

    def finish(self) -> str:
        """Write the header, close ``temporary`` and return the payload's SHA-256; ValueError if a tensor is missing."""
        missing = sorted(self._layout.plans.keys() - self._hashes.keys() - self._dropped)
        if missing:
            raise ValueError(f"{len(missing)} planned tensors were not added, the first is {missing[0]!r}")
        if self._dropped:
            self._close_ranks()
        self._file.seek(0)
        self._file.write(self._layout.header(self._hashes))
        self._file.close()
        self._finished = True
        return self._layout.payload_hash(self._hashes)

    def _close_ranks(self) -> None:
        """Move what is there to where it goes in a file without what was dropped, which is never further back."""
        old, plans = self._layout, self._layout.plans
        self._layout = FileLayout({n: plan for n, plan in plans.items() if n not in self._dropped}, self._metadata)
        for (name, part), size in self._layout.sizes().items():
            source, target = old.position(name, part), self._layout.position(name, part)
            for start in range(0, size, _PIECE):
                self._file.seek(source + start)
                piece = self._file.read(min(_PIECE, size - start))
                self._file.seek(target + start)
                self._file.write(piece)
        self._file.truncate()

    def __enter__(self) -> "PackedWriter":
        self.temporary = self._stack.enter_context(staged_file(self.path))
        self._file = self._stack.enter_context(self.temporary.open("x+b"))
        self._stack.push(self._complete)
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def _complete(self, kind, *_error) -> None:
        if kind is None and not self._finished:
            self.finish()


class PackedReader:
    """A file of packed weights: what it says of itself is read and checked at once, each tensor when asked for.

    Attributes
    ----------
    plans : dict from name to PackedPlan
        What the file holds.

    Raises
    ------
    FileNotFoundError
        No such file.
    WeightFileError
        Truncated, damaged, of another format, or of a major version that this reader does not know.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._file = TensorFile(path, "packed weight file", WeightFileError)
        metadata = self._file.metadata
        self._check_version(metadata)
        description = metadata.get("weights", "")
        if text_hash(description) != metadata.get("payload_sha256"):
            raise WeightFileError(
                f"{self.path} is damaged: its description does not have the SHA-256 that its metadata state"
            )
        with self._malformed():
            entries = json.loads(description)
            self.plans = {name: _plan(entry) for name, entry in entries.items()}
            self._hashes = {name: entry["sha256"] for name, entry in entries.items()}

    def load(self, name: str) -> PackedWeight:
        """Read and check one tensor. Raises KeyError for a name that is not in ``plans``, else `WeightFileError`."""
        plan = self.plans[name]
        with self._malformed():
            arrays = {part: self._file.read(f"{name}.{part}").numpy() for part in ARRAYS}
            packed = _packed(name, plan, arrays)
        if weight_hash(packed) != self._hashes[name]:
            raise WeightFileError(
                f"{self.path} is damaged: {name} does not have the SHA-256 that the file's metadata state"
            )
        return packed

    @contextlib.contextmanager
    def _malformed(self) -> Iterator[None]:
        try:
            yield
        except WeightFileError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightFileError(f"{self.path} is malformed: {error!r}") from error

    def _check_version(self, metadata: Mapping[str, str]) -> None:
        if metadata.get("format") != FORMAT:
            raise WeightFileError(f"{self.path} has format {metadata.get('format')!r}, not {FORMAT!r}")
        stated = metadata.get("version", "")
        major = stated.split(".")[0]
        if not major.isdecimal() or int(major) != VERSION[0]:
            raise WeightFileError(
                f"{self.path} has version {stated!r} (written by {metadata.get('generator')!r}); "
                f"this reader knows {VERSION[0]}.x only"
            )


def save_packed(path: str | os.PathLike, weights: Mapping[str, PackedWeight]) -> str:
    """Write packed weights by name; the file appears whole or not at all. Returns the payload's SHA-256."""
    with PackedWriter(path, {name: packed.plan() for name, packed in weights.items()}) as writer:
        for name, packed in weights.items():
            writer.add(name, packed)
        return writer.finish()


def load_packed(path: str | os.PathLike) -> dict[str, PackedWeight]:
    """Read and check every tensor of a file. Raises as `PackedReader` does."""
    reader = PackedReader(path)
    return {name: reader.load(name) for name in reader.plans}


def _generator() -> str:
    try:
        return f"bitmosaic {version('bitmosaic')}"
    except PackageNotFoundError:
        return "bitmosaic (not installed)"


def _plan(entry: Mapping) -> PackedPlan:
    rows, columns = (int(size) for size in entry["shape"])
    group_size_code(entry["group_size"])
    return PackedPlan(
        shape=(rows, columns),
        words=int(entry["words"]),
        group_size=entry["group_size"],
        lanes=check_lanes(entry["lanes"]),
        special_values={Datatype[d]: tuple(values) for d, values in entry["special_values"].items()},
    )


def _packed(name: str, plan: PackedPlan, arrays: Mapping[str, np.ndarray]) -> PackedWeight:
    for part, dtype in ARRAYS.items():
        if arrays[part].dtype != dtype or arrays[part].ndim != 1:
            raise ValueError(f"{name}.{part} must be a {np.dtype(dtype)} vector, not {arrays[part].dtype}")
    offsets, rows = arrays["offsets"], plan.shape[0]
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != plan.words or (np.diff(offsets) < 1).any():
        raise ValueError(f"{name}.offsets do not divide {plan.words} words into {rows} rows")
    for part, expected in (("words", plan.words), ("channel_scale", rows)):
        if len(arrays[part]) != expected:
            raise ValueError(f"{name}.{part} has {len(arrays[part])} entries, not {expected}")
    return PackedWeight(
        **arrays,
        shape=plan.shape,
        group_size=plan.group_size,
        lanes=plan.lanes,
        special_values=plan.special_values,
    )

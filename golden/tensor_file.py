"""Safetensors files, whoever wrote them: what one holds, and a tensor at a time; every failure names the file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

__all__ = ["TensorFile", "TensorInfo", "sorted_header"]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor before it is read: name, shape, number format in the file.

    ``source`` and ``expert`` say where it is, if it is one matrix of a stack: the tensor's name, and which of its first
    axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: str = ""
    expert: int | None = None


class TensorFile:
    """An existing safetensors file; nothing of its tensors stays in memory, and it is not held open.

    Parameters
    ----------
    path : path
    kind : str
        What the file should be, for the message if there is none.
    error : type
        Raised for a file that is damaged or of another kind; a ValueError.

    Attributes
    ----------
    metadata : dict of str to str
    tensors : dict from name to TensorInfo
        In the file's order.
    """

    def __init__(self, path: str | os.PathLike, kind: str, error: type[ValueError] = ValueError):
        self.path, self._error = Path(path), error
        if not self.path.is_file():
            what = "directory" if self.path.is_dir() else "special file" if self.path.exists() else "file"
            raise FileNotFoundError(f"no {kind} at {path}" + (f": it is a {what}" if what != "file" else ""))
        with self._open() as file:
            self.metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            self.tensors = {
                name: TensorInfo(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
            }

    def read(self, name: str, index: int | None = None) -> torch.Tensor:
        """A copy of one tensor, or of one entry of its first axis; ``error`` if its numbers cannot be read."""
        # Opened each time: the pages of a mapping count as memory for as long as it is open.
        with self._open() as file:
            try:
                found = file.get_tensor(name) if index is None else file.get_slice(name)[index : index + 1][0]
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                dtype = self.tensors[name].dtype
                raise self._error(f"{name} in {self.path} cannot be read: it is {dtype} ({error})") from error
            return found.clone()

    @contextmanager
    def _open(self) -> Iterator:
        try:
            with safe_open(self.path, framework="pt") as file:
                yield file
        except SafetensorError as error:
            raise self._error(f"{self.path} is truncated or not a safetensors file: {error}") from error


def sorted_header(data: bytes) -> bytes:
    """The same file with the header's keys in order: the library writes the metadata in a random one."""
    length = int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]

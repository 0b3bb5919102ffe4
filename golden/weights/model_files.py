"""Weight tensors of a model file, ``.safetensors`` or ``.gguf``, read one at a time."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf.quants import dequantize
from safetensors import SafetensorError, safe_open

from golden.weights.gguf_header import gguf_tensors

__all__ = ["ModelFile", "ModelFileError", "TensorInfo", "open_model"]

_FLOATS = ("F32", "F16", "BF16")


class ModelFileError(ValueError):
    """A model file of a kind that is not known, or damaged, or a tensor that cannot be read from it."""


@dataclass(frozen=True)
class TensorInfo:
    """A tensor before it is read: name in the file, shape (output channels first), number format in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class ModelFile(ABC):
    """A model file; nothing of its tensors stays in memory.

    Attributes
    ----------
    path : Path
    tensors : dict from name to TensorInfo
        All tensors, in the file's order.
    """

    path: Path
    tensors: dict[str, TensorInfo]

    @abstractmethod
    def read(self, name: str) -> torch.Tensor:
        """One tensor: of a safetensors file as it is, of a GGUF file in float32, rows in the file's order.

        (Converters to GGUF interleave the rows of query and key layers for rotary embedding; that is not undone.)

        Raises
        ------
        ModelFileError
            Its number format is not one that can be read.
        """


def open_model(path: str | os.PathLike) -> ModelFile:
    """Open a model file by its kind: GGUF by its first four bytes, safetensors by its suffix.

    Raises
    ------
    FileNotFoundError
        No such file.
    ModelFileError
        Neither kind, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return _Gguf(path)
    if path.suffix == ".safetensors":
        return _Safetensors(path)
    raise ModelFileError(f"{path} must be a .safetensors or a .gguf file, and is neither")


class _Safetensors(ModelFile):
    def __init__(self, path: Path):
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                self.tensors = {
                    name: TensorInfo(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()
                }
        except SafetensorError as error:
            raise ModelFileError(f"{path} is truncated or not a safetensors file: {error}") from error

    def read(self, name: str) -> torch.Tensor:
        found = self.tensors[name].dtype
        if found not in _FLOATS:
            raise ModelFileError(f"{name} in {self.path} must be one of {', '.join(_FLOATS)}, not {found}")
        # Opened each time: the pages of a mapping count as memory for as long as it is open.
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(name).clone()


class _Gguf(ModelFile):
    def __init__(self, path: Path):
        self.path = path
        try:
            self._stored = gguf_tensors(path)
        except ValueError as error:
            raise ModelFileError(f"{path} is damaged or not a GGUF file that can be read: {error}") from error
        self.tensors = {name: TensorInfo(name, found.shape, found.kind.name) for name, found in self._stored.items()}

    def read(self, name: str) -> torch.Tensor:
        found = self._stored[name]
        with self.path.open("rb") as file:
            file.seek(found.offset)
            data = np.fromfile(file, dtype=np.uint8, count=found.size)
        try:
            values = dequantize(data.reshape(*found.shape[:-1], -1), found.kind)
        except NotImplementedError as error:
            raise ModelFileError(
                f"{name} in {self.path} is {found.kind.name}, a format that the gguf package does not dequantize"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

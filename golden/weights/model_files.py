"""Weight tensors of a model: a ``.safetensors`` or ``.gguf`` file, or shards of either, read one matrix at a time."""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from gguf.quants import dequantize

from golden.tensor_file import TensorFile, TensorInfo
from golden.weights.gguf_header import gguf_tensors

__all__ = ["ModelFile", "ModelFileError", "TensorInfo", "open_model"]

FLOATS = ("F32", "F16", "BF16")
_SUFFIX = ".weight"
_INDEX = ".safetensors.index.json"
_GGUF_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


class ModelFileError(ValueError):
    """A model file of a kind that is not known, or damaged, or a tensor that cannot be read from it."""


class ModelFile(ABC):
    """A model; nothing of its tensors stays in memory.

    Attributes
    ----------
    path : Path
        As it was given.
    paths : list of Path
        The files that it consists of.
    tensors : dict from name to TensorInfo
        All tensors, in the order of the files. Of a stack of matrices [experts, out, in] each expert is a tensor of its
        own: expert 3 of ``a.weight`` is ``a.3.weight``.
    """

    path: Path
    paths: list[Path]
    tensors: dict[str, TensorInfo]

    def read(self, name: str) -> torch.Tensor:
        """One tensor: of a safetensors file as it is, of a GGUF file in float32, rows in the file's order.

        (Converters to GGUF interleave the rows of query and key layers for rotary embedding; that is not undone.)

        Raises
        ------
        ModelFileError
            Its number format is not one that can be read.
        """
        info = self.tensors[name]
        return self._read(info.source or name, info.expert)

    @abstractmethod
    def _read(self, name: str, expert: int | None) -> torch.Tensor: ...

    def _list(self, found: Iterable[TensorInfo]) -> None:
        self.tensors = {}
        for info in found:
            for one in _matrices(info) if len(info.shape) == 3 else (info,):
                if one.name in self.tensors:
                    raise ModelFileError(f"{self.path} holds two tensors of the name {one.name}")
                self.tensors[one.name] = one


def _matrices(stack: TensorInfo) -> Iterable[TensorInfo]:
    base = stack.name.removesuffix(_SUFFIX)
    for expert in range(stack.shape[0]):
        name = f"{base}.{expert}{stack.name[len(base) :]}"
        yield replace(stack, name=name, shape=stack.shape[1:], source=stack.name, expert=expert)


def open_model(path: str | os.PathLike) -> ModelFile:
    """Open a model: GGUF by its first four bytes, others by their suffix.

    Shards of safetensors are given by their ``.safetensors.index.json`` or by the directory that holds it (or a single
    file), shards of GGUF by any of them.

    Raises
    ------
    FileNotFoundError
        No such file; no model in the directory; a shard is missing.
    ModelFileError
        Neither kind, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob(f"*{_INDEX}")) or sorted([*path.glob("*.safetensors"), *path.glob("*.gguf")])
        if len(found) != 1:
            held = f"{len(found)} model files" if found else "no model file"
            raise FileNotFoundError(f"{path} must hold one model file or one {_INDEX[1:]}, and holds {held}")
        path = found[0]
    if path.name.endswith(_INDEX):
        return _Shards(path, _shards_of_index(path))
    if not path.is_file():
        raise FileNotFoundError(f"no model file at {path}")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        part = _GGUF_SHARD.fullmatch(path.name)
        if part and int(part[3]) > 1:
            names = [f"{part[1]}-{number + 1:05}-of-{part[3]}.gguf" for number in range(int(part[3]))]
            return _Shards(path, dict.fromkeys(names))
        return _Gguf(path)
    if path.suffix == ".safetensors":
        return _Safetensors(path)
    raise ModelFileError(f"{path} must be a .safetensors or a .gguf file, and is neither")


def _shards_of_index(path: Path) -> dict[str, set[str]]:
    """File name -> names of its tensors."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        listed: dict[str, set[str]] = {}
        for tensor, name in files.items():
            listed.setdefault(str(name), set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path} must be JSON with a weight_map from tensor to file: {error!r}") from error
    for name in listed:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFileError(f"{path} names the shard {name!r}, which is no .safetensors file beside it")
    return listed


class _Shards(ModelFile):
    def __init__(self, path: Path, listed: Mapping[str, set[str] | None]):
        self.path, self.paths = path, []
        self._owner: dict[str, ModelFile] = {}
        found = []
        for name, wanted in sorted(listed.items()):
            place = path.parent / name
            if not place.is_file():
                raise FileNotFoundError(f"{path}: no shard at {place}")
            shard = _Gguf(place) if wanted is None else _Safetensors(place)
            self.paths.append(place)
            held = dict.fromkeys(info.source or info.name for info in shard.tensors.values())
            if wanted is not None and (missing := sorted(wanted - held.keys())):
                raise ModelFileError(f"{path} lists {missing[0]} in {name}, which does not hold it")
            found += [info for info in shard.tensors.values() if wanted is None or (info.source or info.name) in wanted]
            self._owner |= dict.fromkeys(held, shard)
        self._list(found)

    def _read(self, name: str, expert: int | None) -> torch.Tensor:
        return self._owner[name]._read(name, expert)


class _Safetensors(ModelFile):
    def __init__(self, path: Path):
        self.path, self.paths = path, [path]
        self._file = TensorFile(path, "model file", ModelFileError)
        self._list(self._file.tensors.values())

    def _read(self, name: str, expert: int | None) -> torch.Tensor:
        dtype = self._file.tensors[name].dtype
        if dtype not in FLOATS:
            raise ModelFileError(f"{name} in {self.path} must be one of {', '.join(FLOATS)}, not {dtype}")
        return self._file.read(name, expert)


class _Gguf(ModelFile):
    def __init__(self, path: Path):
        self.path, self.paths = path, [path]
        try:
            self._stored = gguf_tensors(path)
        except ValueError as error:
            raise ModelFileError(f"{path} is damaged or not a GGUF file that can be read: {error}") from error
        self._list(TensorInfo(name, found.shape, found.dtype) for name, found in self._stored.items())

    def _read(self, name: str, expert: int | None) -> torch.Tensor:
        found = self._stored[name]
        where = f"{name} in {self.path} is {found.dtype}, a format that the gguf package does not "
        if found.kind is None:
            raise ModelFileError(f"{where}know")
        size, shape = (found.size, found.shape) if expert is None else (found.size // found.shape[0], found.shape[1:])
        with self.path.open("rb") as file:
            file.seek(found.offset + (expert or 0) * size)
            data = np.fromfile(file, dtype=np.uint8, count=size)
        try:
            values = dequantize(data.reshape(*shape[:-1], -1), found.kind)
        except NotImplementedError as error:
            raise ModelFileError(f"{where}dequantize") from error
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

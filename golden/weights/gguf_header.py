"""The tensors that a GGUF file lists: names, shapes, formats, places.

The ``gguf`` package's own reader builds Python objects for every token of the vocabulary, which takes many seconds;
packing weights needs none of that.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

__all__ = ["GgufTensor", "gguf_tensors"]

_VERSIONS = (2, 3)
_SCALARS = {
    GGUFValueType.UINT8: 1,
    GGUFValueType.INT8: 1,
    GGUFValueType.BOOL: 1,
    GGUFValueType.UINT16: 2,
    GGUFValueType.INT16: 2,
    GGUFValueType.UINT32: 4,
    GGUFValueType.INT32: 4,
    GGUFValueType.FLOAT32: 4,
    GGUFValueType.UINT64: 8,
    GGUFValueType.INT64: 8,
    GGUFValueType.FLOAT64: 8,
}
"""Bytes of each scalar type."""


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's shape (output channels first), format, offset of its first byte in the file, and bytes.

    Of a format that the package does not know (newer, or of a fork) ``kind`` and ``size`` are None.
    """

    shape: tuple[int, ...]
    dtype: str
    kind: GGMLQuantizationType | None
    offset: int
    size: int | None


def gguf_tensors(path: str | os.PathLike) -> dict[str, GgufTensor]:
    """Tensors of a little-endian GGUF file of version 2 or 3, by name, in the file's order.

    Raises
    ------
    ValueError
        Not such a file, truncated, or with two tensors of one name; says which.
    """
    length = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        try:
            return _Parser(file, length).tensors()
        except (struct.error, RecursionError) as error:
            raise ValueError("its header is cut short or nonsense") from error


class _Parser:
    def __init__(self, file: BinaryIO, length: int):
        self._file, self._length = file, length

    def tensors(self) -> dict[str, GgufTensor]:
        magic, version, tensors, values = self._take("<4sIQQ")
        if magic == b"GGUF" and int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
            raise ValueError("it is big-endian, and only little-endian files can be read")
        if magic != b"GGUF" or version not in _VERSIONS:
            raise ValueError(f"it starts with {magic!r}, version {version}; known is GGUF of versions {_VERSIONS}")
        alignment = 32
        for _ in range(values):
            name, kind = self._text(), GGUFValueType(self._take("<I")[0])
            if name == "general.alignment" and kind == GGUFValueType.UINT32:
                alignment = self._take("<I")[0] or 1
            else:
                self._skip(kind)
        listed = {}
        for _ in range(tensors):
            name = self._text()
            sizes = self._take(f"<{self._take('<I')[0]}Q")
            if name in listed:
                raise ValueError(f"two of its tensors are called {name}")
            listed[name] = (sizes[::-1], *self._take("<IQ"))
        start = -(-self._file.tell() // alignment) * alignment
        return {name: self._tensor(name, *entry, start) for name, entry in listed.items()}

    def _tensor(self, name, shape, code, offset, start) -> GgufTensor:
        if code not in list(GGMLQuantizationType):
            return GgufTensor(shape, f"type {code}", None, start + offset, None)
        kind = GGMLQuantizationType(code)
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        count = 1
        for size in shape:
            count *= size
        if not shape or shape[-1] % per_block:
            raise ValueError(f"tensor {name} has shape {list(shape)}, which blocks of {per_block} do not divide")
        found = GgufTensor(shape, kind.name, kind, start + offset, count // per_block * block_bytes)
        if found.offset + found.size > self._length:
            raise ValueError(f"tensor {name} ends past the end of the file")
        return found

    def _take(self, layout: str) -> tuple:
        return struct.unpack(layout, self._read(struct.calcsize(layout)))

    def _read(self, count: int) -> bytes:
        if count > self._length - self._file.tell():  # a damaged length must not ask for all memory
            raise struct.error
        return self._file.read(count)

    def _text(self) -> str:
        return self._read(self._take("<Q")[0]).decode(errors="backslashreplace")

    def _skip(self, kind: GGUFValueType) -> None:
        """Pass over one value."""
        if kind == GGUFValueType.STRING:
            self._read(self._take("<Q")[0])
        elif kind == GGUFValueType.ARRAY:
            element, count = self._take("<IQ")
            element = GGUFValueType(element)
            if element in _SCALARS:
                self._read(_SCALARS[element] * count)
            else:
                for _ in range(count):
                    self._skip(element)
        else:
            self._read(_SCALARS[kind])

"""Files of packed caches and of K/V dumps: ``safetensors``; packed ones versioned, with a hashed payload."""

import json
import os
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors.numpy import save

from golden.kv.config import CacheFormat, KeyFormat, ValueFormat
from golden.kv.pack import unpack_block
from golden.kv.packed import KINDS, PackedCache, head_parts
from golden.llm.store import payload_hash
from golden.tensor_file import TensorFile, sorted_header
from shell.output import write_file

__all__ = ["FORMAT", "VERSION", "CacheFileError", "Dump", "load_cache", "load_dump", "save_cache", "save_dump"]

FORMAT = "bitmosaic.kv"
VERSION = (1, 0)
"""Major, minor. A reader takes any minor version of its own major version."""

_MOMENTS = ("key_moments", "value_moments")
_FLOATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_ARRAYS = {"packets": (np.uint8, 1), "offsets": (np.int64, 1), "index": (np.int32, 2)}


class CacheFileError(ValueError):
    """A file that is no packed cache of a known version, or is damaged; the message names the file and why."""


def _generator() -> str:
    try:
        return f"bitmosaic {version('bitmosaic')}"
    except PackageNotFoundError:
        return "bitmosaic (not installed)"


def _hash(description: str, arrays: dict[str, np.ndarray]) -> str:
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return payload_hash(
        {**tensors, "description": torch.from_numpy(np.frombuffer(description.encode(), np.uint8).copy())}
    )


def save_cache(path: str | os.PathLike, cache: PackedCache) -> str:
    """Write a packed cache; the file appears whole or not at all. Returns the payload's SHA-256."""
    description = json.dumps({"shape": cache.shape, "format": asdict(cache.fmt)}, sort_keys=True)
    arrays = {"packets": cache.packets, "offsets": cache.offsets, "index": cache.index, **cache.exact}
    digest = _hash(description, arrays)
    metadata = {
        "format": FORMAT,
        "version": ".".join(map(str, VERSION)),
        "generator": _generator(),
        "cache": description,
        "payload_sha256": digest,
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_file(Path(path), sorted_header(save(arrays, metadata)))
    return digest


def load_cache(path: str | os.PathLike) -> PackedCache:
    """Read and check a file that `save_cache` wrote; every packet is parsed.

    Raises
    ------
    FileNotFoundError
        No such file.
    CacheFileError
        Truncated, damaged, of another format, or of a major version that this reader does not know.
    """
    file = TensorFile(path, "packed cache", CacheFileError)
    metadata = file.metadata
    if metadata.get("format") != FORMAT:
        raise CacheFileError(f"{path} has format {metadata.get('format')!r}, not {FORMAT!r}")
    stated = metadata.get("version", "")
    if stated.split(".")[0] != str(VERSION[0]):
        raise CacheFileError(
            f"{path} has version {stated!r} (written by {metadata.get('generator')!r}); "
            f"this reader knows {VERSION[0]}.x only"
        )
    description = metadata.get("cache", "")
    try:
        arrays = {name: file.read(name).numpy() for name in file.tensors}
    except TypeError as error:
        raise CacheFileError(f"{path} is malformed: {error}") from error
    if _hash(description, arrays) != metadata.get("payload_sha256"):
        raise CacheFileError(f"{path} is damaged: its payload does not have the SHA-256 that its metadata states")
    try:
        return _cache(json.loads(description), arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CacheFileError(f"{path} is malformed: {error}") from error


def _cache(description: dict, arrays: dict[str, np.ndarray]) -> PackedCache:
    for name, (dtype, axes) in _ARRAYS.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != axes:
            raise ValueError(f"{name} must be {np.dtype(dtype)} with {axes} axes, not {arrays[name].dtype}")
    fmt = dict(description["format"])
    fmt |= {"key": KeyFormat(**fmt["key"]), "value": ValueFormat(**fmt["value"])}
    offsets, index = arrays["offsets"], arrays["index"]
    shape = tuple(int(n) for n in description["shape"])
    parts = head_parts(shape[3])
    layers, heads, head_dim = shape[0], shape[1] * parts, shape[3] // parts
    if offsets[0] != 0 or offsets[-1] != len(arrays["packets"]) or (np.diff(offsets) < 1).any():
        raise ValueError("offsets do not divide the packets")
    if index.shape != (len(offsets) - 1, 3) or (index < 0).any() or (index >= (layers, heads, len(KINDS))).any():
        raise ValueError(f"index must be [{len(offsets) - 1}, 3] of layer, head and kind within {shape}")
    exact = {name: array for name, array in arrays.items() if name not in _ARRAYS}
    cache = PackedCache(CacheFormat(**fmt), shape, *(arrays[name] for name in _ARRAYS), exact)
    for number in range(len(index)):
        if unpack_block(cache.packet(number)).header.channels != head_dim:
            raise ValueError(f"packet {number} must have {head_dim} channels")
    return cache


@dataclass(frozen=True)
class Dump:
    """Keys and values to be packed.

    Attributes
    ----------
    k, v : torch.Tensor
        Floats ``[layers, heads, tokens, D]``, keys after rotary embedding.
    protected : torch.Tensor or None
        bool ``[tokens]``: the tokens that semantic token protection keeps at 2 bits.
    moments : list of tuple of torch.Tensor, or None
        Per layer, for rounding ``"attention"`` (`golden.kv.moments`).
    """

    k: torch.Tensor
    v: torch.Tensor
    protected: torch.Tensor | None = None
    moments: list[tuple[torch.Tensor, torch.Tensor]] | None = None


def save_dump(path: str | os.PathLike, dump: Dump) -> None:
    """Write a dump as `load_dump` reads it; the file appears whole or not at all."""
    tensors = {"k": dump.k, "v": dump.v}
    if dump.protected is not None:
        tensors["protected"] = dump.protected
    if dump.moments is not None:
        for name, parts in zip(_MOMENTS, zip(*dump.moments, strict=True), strict=True):
            tensors[name] = torch.stack(parts)
    write_file(Path(path), safetensors.torch.save({name: x.contiguous() for name, x in tensors.items()}))


def load_dump(path: str | os.PathLike) -> Dump:
    """Keys and values from a ``safetensors`` dump.

    Tensors ``k`` and ``v``, floats (of 8 bits too) ``[layers, heads, tokens, D]`` each; and if wanted ``protected``,
    bool (or integers 0 and 1) ``[tokens]``, and ``key_moments``, ``value_moments``, floats ``[layers, heads, D, D]``.
    Others are left alone.

    Raises
    ------
    FileNotFoundError, CacheFileError
        No such file; not such a dump.
    """
    file = TensorFile(path, "K/V dump", CacheFileError)
    for name in ("k", "v", *_MOMENTS):
        if name in file.tensors and file.tensors[name].dtype not in _FLOATS:
            raise CacheFileError(f"{path}: {name} must be one of {', '.join(_FLOATS)}, not {file.tensors[name].dtype}")
    tensors = {name: file.read(name) for name in ("k", "v", "protected", *_MOMENTS) if name in file.tensors}
    # FP8 has hardly any arithmetic; every number of it is one of FP16.
    tensors = {name: x.half() if x.dtype in _FP8 else x for name, x in tensors.items()}
    missing = [name for name in ("k", "v") if name not in tensors]
    if missing:
        raise CacheFileError(f"{path} must hold tensors 'k' and 'v'; it lacks {missing}")
    k, v = tensors["k"], tensors["v"]
    if k.dim() != 4 or k.shape != v.shape:
        raise CacheFileError(
            f"{path}: k and v must be of one shape [layers, heads, tokens, D], not {list(k.shape)} and {list(v.shape)}"
        )
    layers, heads, tokens, head_dim = k.shape
    protected = tensors.get("protected")
    if protected is not None:
        if (
            protected.shape != (tokens,)
            or protected.is_floating_point()
            or not ((protected >= 0) & (protected <= 1)).all()
        ):
            raise CacheFileError(f"{path}: protected must be [{tokens}] of 0 and 1, not {list(protected.shape)}")
        protected = protected.bool()
    given = [tensors[name] for name in _MOMENTS if name in tensors]
    for moment in given:
        if moment.shape != (layers, heads, head_dim, head_dim) or len(given) != 2:
            raise CacheFileError(
                f"{path}: {' and '.join(_MOMENTS)} must both be [{layers}, {heads}, {head_dim}, {head_dim}], "
                f"not {[list(x.shape) for x in given]}"
            )
    return Dump(k, v, protected, list(zip(*given, strict=True)) if given else None)

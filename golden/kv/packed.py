"""A whole packed cache: packets of every layer and head, and the tokens that stay outside blocks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from golden.arguments import tensor
from golden.kv.block import Block, centre_block, key_block, value_block
from golden.kv.cache import LayerCache
from golden.kv.config import CacheFormat
from golden.kv.pack import pack_block, unpack_block
from golden.kv.residual import FP16_MAX, Residual, write_fp16, write_int8
from spec import checks
from spec.kv_block import MAX_HEAD_DIM

__all__ = ["KINDS", "PackedCache", "head_parts", "pack_cache"]

_MOST_CHANNELS = 1024

KINDS = ("centre", "key", "value")
"""Kind of a packet, by its code in `PackedCache.index`."""


@dataclass(frozen=True)
class PackedCache:
    """Packets and exact tokens of a cache.

    Attributes
    ----------
    fmt : CacheFormat
    shape : tuple[int, int, int, int]
        layers, KV heads, tokens, head dim. A head of more than 128 channels is stored as several of equal parts, one
        after another (`stored_shape`); everything below counts those as heads.
    packets : np.ndarray
        uint8 ``[bytes]``: the packets one after another.
    offsets : np.ndarray
        int64 ``[packets + 1]``: where each starts.
    index : np.ndarray
        int32 ``[packets, 3]``: layer, KV head, kind (`KINDS`).
    exact : dict[str, np.ndarray]
        ``sinks_keys``, ``sinks_values``, ``residual_keys``, ``residual_values``: FP16 or int8
        ``[layers, heads, tokens, D]``, beside int8 with ``..._scale`` FP16 ``[layers, heads, tokens]``; and
        ``residual_key_tokens``, ``residual_value_tokens``: int64, which tokens these are.
    """

    fmt: CacheFormat
    shape: tuple[int, int, int, int]
    packets: np.ndarray
    offsets: np.ndarray
    index: np.ndarray
    exact: dict[str, np.ndarray]

    @property
    def stored_shape(self) -> tuple[int, int, int, int]:
        """layers, heads, tokens and channels as stored."""
        layers, heads, tokens, head_dim = self.shape
        parts = head_parts(head_dim)
        return layers, heads * parts, tokens, head_dim // parts

    def packet(self, number: int) -> bytes:
        """The bytes of one packet."""
        return self.packets[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def blocks(self, kind: str) -> Iterator[tuple[int, int, Block]]:
        """(layer, head, block) of every packet of one kind, in order."""
        checks.choice("kind", kind, KINDS)
        for number in np.flatnonzero(self.index[:, 2] == KINDS.index(kind)):
            layer, head, _ = self.index[number].tolist()
            yield layer, head, unpack_block(self.packet(number))

    @property
    def effective_bits(self) -> tuple[float, float]:
        """Stored bits per element of the packed tokens: (keys, values), measured; NaN without packets."""
        sizes = np.diff(self.offsets) * 8
        out = []
        for kind in ("key", "value"):
            chosen = self.index[:, 2] == KINDS.index(kind)
            elements = sum(block.header.rows * block.header.channels for _, _, block in self.blocks(kind))
            out.append(float(sizes[chosen].sum() / elements) if elements else float("nan"))
        return out[0], out[1]


def head_parts(head_dim: int) -> int:
    """Equal parts of at most 128 channels, a multiple of 8, that a head is stored as. Raises ValueError if none fit."""
    checks.whole("head dim D", head_dim, 8, _MOST_CHANNELS, 8)
    return next(n for n in range(1, head_dim) if head_dim % (8 * n) == 0 and head_dim // n <= MAX_HEAD_DIM)


def _checked(name: str, x: torch.Tensor) -> torch.Tensor:
    """``x`` ``[layers, heads, tokens, D]``, if FP16 can hold it, with every head as its parts."""
    x = tensor(name, x, ("layers", "heads", "tokens", "D"))
    x = x.float() if x.dtype == torch.bfloat16 else x  # which would round the limit
    parts = head_parts(x.shape[-1])
    bad = ~(x.abs() <= FP16_MAX)
    if bad.any():
        layer, head, token, channel = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} must be finite and at most {FP16_MAX:g} in magnitude, not {x[bad][0].item():g} "
            f"(layer {layer}, head {head}, token {token}, channel {channel})"
        )
    return x.unflatten(-1, (parts, -1)).transpose(2, 3).flatten(1, 2)


def pack_cache(
    keys: torch.Tensor,
    values: torch.Tensor,
    fmt: CacheFormat,
    *,
    residual: str = "fp16",
    protected: torch.Tensor | None = None,
    moments: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
    progress: Callable[[int], None] = lambda layer: None,
) -> PackedCache:
    """Quantize and pack a prefill, ``[layers, heads, tokens, D]`` each.

    Parameters
    ----------
    residual : str
        ``"fp16"`` or ``"int8"``: how sinks and newest tokens are written.
    protected : torch.Tensor or None
        bool ``[tokens]``, when the format protects tokens.
    moments : list or None
        Per layer, for rounding ``"attention"``; see `LayerCache`.
    progress : callable
        Told each layer that is packed.

    Raises
    ------
    ValueError
        Shapes, values or a format that cannot be packed (says where); nothing is returned half-done.
    """
    checks.choice("residual", residual, ("fp16", "int8"))
    shape = tuple(getattr(keys, "shape", ()))
    stored_keys, stored_values = _checked("keys", keys), _checked("values", values)
    if shape != tuple(values.shape):
        raise ValueError(f"keys and values must be alike, not {list(shape)} and {list(values.shape)}")
    keys, values = stored_keys, stored_values
    if moments is not None and shape[-1] != keys.shape[-1]:
        raise ValueError(f"moments must be None for a head dim D above {MAX_HEAD_DIM}, not for D = {shape[-1]}")
    if moments is not None and len(moments) != keys.shape[0]:
        raise ValueError(f"moments must have an entry for each of {keys.shape[0]} layers, not {len(moments)}")
    packets: list[bytes] = []
    index: list[tuple[int, int, int]] = []
    exact: dict[str, list[Residual]] = {}
    write = write_fp16 if residual == "fp16" else write_int8
    layers, heads, _, _ = keys.shape
    for layer in range(layers):
        cache = LayerCache(fmt, None if moments is None else moments[layer])
        try:
            cache.prefill(keys[layer], values[layer], protected)
        except ValueError as error:
            raise ValueError(f"layer {layer}: {error}") from error
        for head in range(heads):
            found = [(0, centre_block(cache.plan, head))] if fmt.key.centre else []
            found += [(1, key_block(b, fmt.key, head, 0, g.tokens)) for g, b in cache.key_blocks]
            found += [
                (2, value_block(b, fmt.value, head, 0, g.tokens, protected=g.protected)) for g, b in cache.value_blocks
            ]
            packets += [pack_block(block) for _, block in found]
            index += [(layer, head, kind) for kind, _ in found]
        outside = dict(zip(("key", "value"), cache.exact_tokens, strict=True))
        for name, x in (("key", keys[layer]), ("value", values[layer])):
            newest = [token for token in outside[name] if token >= fmt.sinks]
            exact.setdefault(f"sinks_{name}s", []).append(write(x[:, : fmt.sinks]))
            exact.setdefault(f"residual_{name}s", []).append(write(x[:, newest]))
            exact[f"residual_{name}_tokens"] = newest
        progress(layer)
    return PackedCache(
        fmt=fmt,
        shape=shape,
        packets=np.frombuffer(b"".join(packets), np.uint8),
        offsets=np.cumsum([0, *map(len, packets)]),
        index=np.array(index, np.int32).reshape(-1, 3),
        exact=_arrays(exact),
    )


def _arrays(exact: dict) -> dict[str, np.ndarray]:
    arrays = {}
    for name, entries in exact.items():
        if name.endswith("_tokens"):
            arrays[name] = np.array(entries, np.int64)
            continue
        arrays[name] = torch.stack([entry.codes for entry in entries]).numpy()
        if entries[0].scale is not None:
            arrays[f"{name}_scale"] = torch.stack([entry.scale for entry in entries]).numpy()
    return arrays

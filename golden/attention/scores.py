"""Bit-exact model of `ScoreCore`: equations Q, F and S of docs/attention.md."""

from dataclasses import dataclass

import numpy as np
import torch

from golden.attention.integers import bit_length, fl32, fp16_fields, multipliers, rne_shift, scale_fields
from golden.attention.rfft import rfft
from golden.kv.block import Block
from golden.kv.transforms import matrix
from golden.prealigned.aligner import align
from spec.attention import AttentionConfig
from spec.kv_block import KvHeader
from spec.kv_formats import KvFormat, KvTransform

__all__ = ["Query", "block_scores", "exact_scores", "fold", "prepare_query", "same_layout"]


@dataclass(frozen=True)
class Query:
    """A query aligned and transformed (Q1 to Q3).

    Attributes
    ----------
    aligned : torch.Tensor
        int64 ``[D]``, x in channel order.
    exponent : int
        The query's unit is ``2^(exponent - 13 - query_bits)``.
    poison : bool
    transformed : torch.Tensor
        int64 ``[D]``, T in storage order.
    bits : tuple[int, int]
        b of either segment.
    config : AttentionConfig
    """

    aligned: torch.Tensor
    exponent: int
    poison: bool
    transformed: torch.Tensor
    bits: tuple[int, int]
    config: AttentionConfig

    @property
    def unit(self) -> int:
        """log2 of the aligned query's unit."""
        return self.exponent - 13 - self.config.query_bits


@dataclass(frozen=True)
class Folded:
    """A block's scales in the query (F1, F2): ``z`` int64 ``[D]``, worth ``2^unit`` each; of the minima (F3) alike, or
    None."""

    z: torch.Tensor
    unit: int
    minima: torch.Tensor | None
    minima_unit: int


def same_layout(header: KvHeader, other: KvHeader) -> bool:
    """Whether two headers have the layout that a query is transformed for (masks apart)."""
    names = ("channels", "segment0", "transform0", "transform1")
    return all(getattr(header, name) == getattr(other, name) for name in names)


def prepare_query(query: torch.Tensor, header: KvHeader, channels: np.ndarray, config: AttentionConfig) -> Query:
    """Q1 to Q3.

    Parameters
    ----------
    query : torch.Tensor
        float16 ``[D]``, channel order.
    header : KvHeader
        Its sizes and transforms are the layout.
    channels : np.ndarray
        int64 ``[D]``: the channel of each position of the storage order.
    config : AttentionConfig

    Raises
    ------
    ValueError
        Sizes that differ or a transform that is not built.
    """
    for transform in (header.transform0, header.transform1):
        if transform not in {KvTransform.NONE, *config.transforms}:
            built = sorted(t.name for t in config.transforms)
            raise ValueError(f"transform must be NONE or one of {built}, not {transform.name}")
    if query.shape != (header.channels,) or header.channels > config.channels:
        raise ValueError(f"query must be [{header.channels}], at most {config.channels} long, not {list(query.shape)}")
    aligned = align(query[None], activation_bits=config.query_bits)
    x = aligned.integers[0]
    stored = x[torch.as_tensor(channels)]
    parts, bits = [], []
    for segment, transform in ((stored[: header.segment0], header.transform0),
                               (stored[header.segment0 :], header.transform1)):  # fmt: skip
        if transform is KvTransform.WHT:
            segment = segment @ torch.sign(matrix("wht", len(segment))).long()
        elif transform is KvTransform.RFFT:
            segment = rfft(segment, config.rotation_bits)
        parts.append(segment)
        bits.append(bit_length(segment))
    return Query(x, int(aligned.exponent[0, 0]), bool(aligned.poison[0, 0]), torch.cat(parts), tuple(bits), config)


def _clamp(z: torch.Tensor, bits: int) -> torch.Tensor:
    limit = 2 ** (bits - 1) - 1
    return z.clamp(-limit, limit)


def fold(query: Query, block: Block) -> Folded:
    """F1 to F3."""
    header, width = block.header, query.config.fold_bits
    halved = int(header.format is KvFormat.K2)
    g, r, bound = [], [], []
    for segment, where in enumerate((slice(0, header.segment0), slice(header.segment0, None))):
        if segment and not header.segment1:
            continue
        g_s, r_s, least, w = scale_fields(block.scales[where], header, segment)
        less = halved if segment == 0 else 0
        g.append(g_s)
        r.append(r_s - less)
        bound.append(least - less + max(w + query.bits[segment], width - 1))
    top = max(bound)
    product = query.transformed * torch.cat(g)
    z = _clamp(rne_shift(product, torch.cat(r) - top + width - 1), width)
    minima, minima_top = None, 0
    if block.minima is not None:
        m, e = fp16_fields(block.minima)
        minima_top = int(e.max()) - 25 + max(11 + query.bits[0], width - 1)
        product = query.transformed[: header.segment0] * m
        minima = _clamp(rne_shift(product, e - 25 - minima_top + width - 1), width)
    return Folded(z, top - width + 1 + query.unit, minima, minima_top - width + 1 + query.unit)


def block_scores(query: Query, block: Block) -> torch.Tensor:
    """Scores of a block's rows, float32 ``[rows]`` (S1, S2, S4, S5)."""
    header, n0 = block.header, block.header.segment0
    folded = fold(query, block)
    u = torch.cat([multipliers(block.codes[:, :n0], header.format), multipliers(block.codes[:, n0:], KvFormat.K1)], 1)
    total = u @ folded.z
    if folded.minima is None:
        return fl32(total, folded.unit)
    total = total + 3 * folded.z[:n0].sum()
    return fl32(total, folded.unit) + fl32(folded.minima.sum(), folded.minima_unit)


def exact_scores(query: Query, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Scores of exact tokens, int8 ``[tokens, D]`` with float16 ``[tokens]``; float32 (F4, S3, S4)."""
    config = query.config
    z = _clamp(rne_shift(query.aligned, config.fold_bits - config.query_bits), config.fold_bits)
    g, e = fp16_fields(scale.numpy().view(np.uint16))
    total = 2 * (codes.long() @ z)
    unit = config.query_bits - config.fold_bits + query.unit
    return fl32(total * g, (e - 25 - 1 + unit).int())

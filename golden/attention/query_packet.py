"""Query packets as `ScoreCoreAxi` reads them (docs/attention.md, section 11)."""

import numpy as np
import torch

from spec.attention import QUERY_HEADER, QUERY_WORD_BITS
from spec.kv_block import MAX_HEAD_DIM, KvHeader

__all__ = ["write_query"]


def write_query(query: torch.Tensor, header: KvHeader, channels: np.ndarray) -> bytes:
    """The packet of one query.

    Parameters
    ----------
    query : torch.Tensor
        float16 ``[D]``, channel order.
    header : KvHeader
        Of the key blocks: its sizes and transforms are the layout.
    channels : np.ndarray
        int64 ``[D]``: the channel of each position of the blocks' storage order.

    Raises
    ------
    ValueError
        A query that is not float16 ``[D]`` of the header's head dim.
    """
    if query.dtype != torch.float16 or query.shape != (header.channels,):
        raise ValueError(f"query must be float16 [{header.channels}], not {query.dtype} {list(query.shape)}")
    codes = {"channels": header.channels // 8 - 1, "segment0": header.segment0 // 8 - 1}
    codes |= {"transform0": int(header.transform0), "transform1": int(header.transform1)}
    word = sum(codes[field.name] << field.offset for field in QUERY_HEADER)
    mask = np.zeros(MAX_HEAD_DIM, np.uint8)
    mask[channels[: header.segment0]] = 1
    parts = [word.to_bytes(QUERY_WORD_BITS // 8, "little"), np.packbits(mask, bitorder="little").tobytes()]
    return b"".join([*parts, query.numpy().astype("<f2").tobytes()])

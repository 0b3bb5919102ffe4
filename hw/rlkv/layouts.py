"""Payloads of the KV address generator: operations in, commands out, pools and status beside them."""

from amaranth import Const, Value
from amaranth.lib import data
from amaranth.utils import bits_for, ceil_log2

from spec.rlkv import RlkvConfig
from spec.rlkv_transfers import RlkvError

__all__ = [
    "STATUS_BITS",
    "CommandLayout",
    "ListEntry",
    "OperationLayout",
    "PoolsLayout",
    "RunLayout",
    "StatusLayout",
    "above",
    "address_bits",
    "index_bits",
]

STATUS_BITS = bits_for(max(RlkvError))


def index_bits(count: int) -> int:
    """Width of a number that can hold one value beyond ``count - 1``, so that a wrong one is seen and not wrapped."""
    return bits_for(count)


def above(value, limit: int):
    """``value > limit``, where a value that can never be above it makes no comparison at all."""
    value = Value.cast(value)
    return value > limit if limit < (1 << len(value)) - 1 else Const(0)


def address_bits(depth: int) -> int:
    """Width of an address of ``depth`` places, at least 1."""
    return max(1, ceil_log2(depth))


class OperationLayout(data.StructLayout):
    """:class:`spec.rlkv_transfers.RlkvOperation`, field for field."""

    def __init__(self, config: RlkvConfig):
        super().__init__(
            {
                "op": 3,
                "request": index_bits(config.requests),
                "layer": index_bits(config.layers),
                "head": index_bits(config.heads),
                "last_head": index_bits(config.heads),
                "part": 1,
                "per_query": 1,
                "count": index_bits(config.context),
                "beats": index_bits(config.block_beats),
                "mask": config.heads,
                "last": 1,
            }
        )


def _transfer(config: RlkvConfig) -> dict:
    """Fields that a run and a command share."""
    longest = max(config.residual_slots, config.recent, config.sink, config.block_tokens)
    return {
        "kind": 3,
        "write": 1,
        "part": 1,
        "request": index_bits(config.requests),
        "layer": index_bits(config.layers),
        "head": index_bits(config.heads),
        "query": address_bits(config.query_heads),
        "token": index_bits(config.context),
        "tokens": bits_for(longest),
        "head_last": 1,
        "last": 1,
        "status": STATUS_BITS,
    }


def run_slots(config: RlkvConfig) -> int:
    """Most token slots of one area pool."""
    return 2 * config.areas * max(config.full_slots, config.window_slots)


class RunLayout(data.StructLayout):
    """A transfer counted in slots or blocks: ``index`` is a slot of its area pool, or with ``kind`` BLOCK a block;
    ``beats`` counts for blocks only; ``full``: the area pool of full heads."""

    def __init__(self, config: RlkvConfig):
        index = max(ceil_log2(run_slots(config)), address_bits(config.blocks))
        super().__init__(_transfer(config) | {"full": 1, "index": index, "beats": index_bits(config.block_beats)})


class CommandLayout(data.StructLayout):
    """:class:`spec.rlkv_transfers.RlkvCommand`; ``address`` in bytes."""

    def __init__(self, config: RlkvConfig):
        longest = config.run_beats(max(config.residual_slots, config.recent, config.sink))
        fields = _transfer(config)
        beats = bits_for(max(longest, config.block_beats))
        super().__init__(fields | {"address": config.address_bits, "beats": beats})


class PoolsLayout(data.StructLayout):
    """:class:`spec.rlkv.RlkvPools`; bases in bytes, multiples of a beat (the low bits are ignored)."""

    def __init__(self, config: RlkvConfig):
        super().__init__(
            {
                "full_base": config.address_bits,
                "full_areas": bits_for(config.areas),
                "window_base": config.address_bits,
                "window_areas": bits_for(config.areas),
                "block_base": config.address_bits,
                "blocks": bits_for(config.blocks),
            }
        )


class StatusLayout(data.StructLayout):
    """``errors``: sticky, bit c for :class:`spec.rlkv_transfers.RlkvError` code c; ``count``: failed operations since
    the last clear, up to 65535; ``open``: a bit per request; ``free_blocks``."""

    def __init__(self, config: RlkvConfig):
        super().__init__(
            {"errors": max(RlkvError) + 1, "count": 16, "open": config.requests, "free_blocks": bits_for(config.blocks)}
        )


class ListEntry(data.StructLayout):
    """A block list: its first and last block, how many blocks, how many tokens. 0 blocks: nothing else counts."""

    def __init__(self, config: RlkvConfig):
        block = address_bits(config.blocks)
        super().__init__(
            {"first": block, "last": block, "blocks": bits_for(config.blocks), "tokens": index_bits(config.context)}
        )

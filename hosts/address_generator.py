"""Operations to the simulated address generator, and its commands back."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import cache

import numpy as np

from golden.rlkv import AddressModel, packed_end
from hw.rlkv.generator import KvAddressGenerator
from hw.rlkv.layouts import CommandLayout, OperationLayout, PoolsLayout, StatusLayout
from sim.beats import from_ints, to_ints
from sim.build import Built
from sim.design import build_design
from sim.job import Job, JobResult
from sim.layout import pack, unpack
from spec.rlkv import RlkvConfig, RlkvPools
from spec.rlkv_transfers import KvPart, RlkvCommand, RlkvOp, RlkvOperation

__all__ = ["Case", "build_generator", "from_beats", "tight_pools"]

NAME = "kv_address_generator"


@cache
def build_generator(config: RlkvConfig) -> Built:
    return build_design(KvAddressGenerator(config), NAME)


def tight_pools(config: RlkvConfig, *, full: int, window: int, blocks: int, top: bool = True) -> RlkvPools:
    """Pools back to back, ending at the top of the address space (or starting at its bottom)."""
    sizes = [
        config.whole_beats(2 * full * config.full_slots * config.token_bytes),
        config.whole_beats(2 * window * config.window_slots * config.token_bytes),
        blocks * config.block_bytes,
    ]
    base = (1 << config.address_bits) - sum(sizes) if top else 0
    base -= base % config.beat_bytes
    pools = RlkvPools(
        full_base=base,
        full_areas=full,
        window_base=base + sizes[0],
        window_areas=window,
        block_base=base + sizes[0] + sizes[1],
        blocks=blocks,
    )
    pools.check(config)
    return pools


def columns_of(items: Sequence, kind: type) -> dict[str, np.ndarray]:
    return {
        field.name: np.array([int(getattr(item, field.name)) for item in items], np.uint64) for field in fields(kind)
    }


def from_beats(config: RlkvConfig, beats: np.ndarray) -> list[RlkvCommand]:
    columns = unpack(CommandLayout(config), beats)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [RlkvCommand(**dict(zip(columns, row, strict=True))) for row in rows]


class Case:
    """Operations and what the model says of them; becomes a `Job`."""

    def __init__(self, config: RlkvConfig, pools: RlkvPools):
        self.config, self.pools = config, pools
        self.model = AddressModel(config, pools)
        self.ops: list[RlkvOperation] = []
        self.expected: list[RlkvCommand] = []

    def do(self, op: int, **fields) -> list[RlkvCommand]:
        """Run one operation on the model; its commands."""
        operation = RlkvOperation(op=op, **fields)
        commands = self.model.apply(operation)
        self.ops.append(operation)
        self.expected += commands
        return commands

    def policy(self, masks: Sequence[int]) -> None:
        for layer, mask in enumerate(masks):
            self.do(RlkvOp.POLICY, mask=mask, last=int(layer == len(masks) - 1))

    def pack_due(self, request: int, layer: int, head: int, part: int, beats: int | None = None) -> bool:
        """Pack every block that is due, a page each; False if one was refused."""
        config, sequence = self.config, self.model.sequences[request]
        while True:
            blocks = sequence.blocks.get((layer, head, part), [])
            at = config.sink + sum(block.rows for block in blocks)
            page = (at // config.block_tokens + 1) * config.block_tokens
            if page > packed_end(config, sequence.tokens):
                return True
            fields = {"request": request, "layer": layer, "head": head, "last_head": head, "part": part}
            beats = beats or config.block_beats
            if self.do(RlkvOp.PACK, **fields, count=page - at, beats=beats)[-1].status:
                return False

    def pack_all(self, request: int) -> None:
        for layer in range(self.config.layers):
            for head in range(self.config.heads):
                if self.model.is_full(layer, head):
                    for part in KvPart:
                        self.pack_due(request, layer, head, part)

    def every_layer(self, op: RlkvOp, request: int, **fields) -> None:
        for layer in range(self.config.layers):
            for part in KvPart:
                self.do(op, request=request, layer=layer, last_head=self.config.heads - 1, part=part, **fields)

    def job(self, *, clear: int = 0, **options) -> Job:
        pools = {name: np.array([value], np.uint64) for name, value in asdict(self.pools).items()}
        return Job(
            inputs={"i": pack(OperationLayout(self.config), columns_of(self.ops, RlkvOperation))},
            outputs={"o": len(self.expected)},
            signals={"pools": to_ints(pack(PoolsLayout(self.config), pools))[0], "clear": clear},
            observe=["status"],
            **options,
        )

    def compare(self, result: JobResult, *, cleared: bool = False) -> None:
        """Every command and the status, bit for bit; `cleared`: the error register was held clear."""
        received = from_beats(self.config, result.outputs["o"])
        assert len(received) == len(self.expected) > 0
        for index, (got, wanted) in enumerate(zip(received, self.expected, strict=True)):
            assert got == wanted, f"command {index}: {got}, expected {wanted}"
        layout = StatusLayout(self.config)
        columns = unpack(layout, from_ints([result.observed["status"]], layout.size))
        assert {name: int(column[0]) for name, column in columns.items()} == {
            "errors": 0 if cleared else self.model.errors,
            "count": 0 if cleared else self.model.count,
            "open": sum(1 << request for request in self.model.sequences),
            "free_blocks": self.model.free_blocks,
        }

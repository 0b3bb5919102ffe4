"""A layer's cache in a memory image that is written and read where the simulated address generator says."""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import torch

from golden.attention.reference import real_block
from golden.attention.slots import write_slots
from golden.kv.block import Block
from golden.kv.pack import pack_block
from golden.kv.packed import pack_cache
from golden.kv.residual import Residual, write_int8
from golden.rlkv.plan import MemoryPlan
from hosts.address_generator import Case, from_beats
from hosts.attention.lists import Exact, KeyList
from hosts.attention.value_lists import Run, ValueList
from sim.build import Built
from sim.job import run_jobs
from spec.kv_formats import KvFormat, KvTransform
from spec.rlkv import SLOT_UNIT, RlkvPools
from spec.rlkv_transfers import CommandKind, KvPart, RlkvCommand, RlkvOp

__all__ = ["HeadRead", "LayerCache", "real_rows"]

EXACT_ROWS = 32
"""Rows of a group of exact tokens: their weights take as long to come in as their rows, so long groups would wait."""


class Memory:
    """Bytes by their address, in units of slots; what has not been written cannot be read."""

    def __init__(self):
        self.units = {}

    def put(self, address: int, data: bytes) -> None:
        assert address % SLOT_UNIT == len(data) % SLOT_UNIT == 0
        for start in range(0, len(data), SLOT_UNIT):
            self.units[address + start] = data[start : start + SLOT_UNIT]

    def get(self, address: int, size: int) -> bytes:
        return b"".join(self.units[at] for at in range(address, address + size, SLOT_UNIT))


@dataclass
class HeadRead:
    """What one query head reads in one step: commands with their bytes, keys and values."""

    step: int
    tokens: int
    query: int
    head: int
    full: bool
    keys: list[tuple[RlkvCommand, bytes]]
    values: list[tuple[RlkvCommand, bytes]]


class LayerCache:
    """Operations on the generated address generator, and what their commands move.

    `prefill` and `step` note operations; `run` simulates them all, then follows the commands that came back.

    Parameters
    ----------
    plan : MemoryPlan
        Of a cache of one sequence; of its layers ``layer`` is looked at.
    masks : list of int
        Policy, a row per layer.
    layer : int
    heads : list of int
        KV heads that hold something.
    keys, values : torch.Tensor
        ``[len(heads), tokens, D]``, prefill and steps.
    pools : RlkvPools
    per_query : bool
        A list per query head, else one per KV head.
    """

    def __init__(
        self,
        plan: MemoryPlan,
        masks: list[int],
        layer: int,
        heads: list[int],
        keys: torch.Tensor,
        values: torch.Tensor,
        pools: RlkvPools,
        *,
        per_query: bool = True,
    ):
        self.plan, self.layer, self.heads, self.per_query = plan, layer, heads, per_query
        self.full = {head: bool(masks[layer] >> head & 1) for head in heads}
        self.keys, self.values = keys.float(), values.float()
        self.case = Case(plan.config, pools)
        self.actions: list = []
        self.blocks: dict[tuple[int, int], list[Block]] = {}
        self.exact: dict[int, tuple[Residual, Residual]] = {}
        self.steps = 0
        for number, mask in enumerate(masks):
            self._do(None, op=RlkvOp.POLICY, mask=mask, last=int(number == len(masks) - 1))
        self._do(None, op=RlkvOp.OPEN)

    def _do(self, action, **operation) -> None:
        done = self.case.do(**operation)[-1]
        if done.status:
            raise RuntimeError(f"the address generator's model refused {operation}: {done}")
        self.actions.append(action)

    def _place(self, head: int, part: int) -> dict[str, int]:
        return {"layer": self.layer, "head": head, "last_head": head, "part": part}

    def prefill(self, context: int) -> None:
        """The first ``context`` tokens: blocks packed, exact tokens quantized to INT8, everything written."""
        config = self.plan.config
        packed = pack_cache(self.keys[None, :, :context], self.values[None, :, :context], self.plan.fmt)
        centres = {at: block.scales.view(np.float16).astype(np.float64) for _, at, block in packed.blocks("centre")}
        for part, kind in ((KvPart.KEY, "key"), (KvPart.VALUE, "value")):
            for _, at, block in packed.blocks(kind):
                self.blocks.setdefault((self.heads[at], int(part)), []).append(block)
        for at, head in enumerate(self.heads):
            # The centre is off every key of a head with blocks, exact ones too: softmax does not see it.
            centre = torch.from_numpy(centres[at]) if at in centres and self.full[head] else 0.0
            exact = [write_int8(x[None]) for x in (self.keys[at].double() - centre, self.values[at].double())]
            self.exact[head] = tuple(Residual(r.codes[0], r.scale[0]) for r in exact)
        self._do(None, op=RlkvOp.EXTEND, count=context)
        for (head, part), found in self.blocks.items():
            for block in found if self.full[head] else ():
                packet = pack_block(block)
                beats, rows = len(packet) // config.beat_bytes, block.header.rows
                self._do(packet, op=RlkvOp.PACK, **self._place(head, part), count=rows, beats=beats)
        self._write()

    def _write(self) -> None:
        """The tokens of the last EXTEND that stay exact."""
        for head in self.heads:
            for part in KvPart:
                self._do("write", op=RlkvOp.WRITE, **self._place(head, part))

    def step(self) -> None:
        """Another token comes, and attention over all of them."""
        self._do(None, op=RlkvOp.EXTEND, count=1)
        self._write()
        self.read()
        self.steps += 1

    def read(self) -> None:
        """Attention over what is there."""
        for head in self.heads:
            for part in KvPart:
                self._do(("read", self.steps), op=RlkvOp.READ, **self._place(head, part), per_query=self.per_query)

    def run(self, generator: Built, seed: int) -> tuple[list[HeadRead], int, int]:
        """Simulates the address generator; returns the reads, commands received, and how many of them are not the
        model's."""
        (result,) = run_jobs(generator, [self.case.job()], seed=seed)
        received = from_beats(self.plan.config, result.outputs["o"])
        wrong = sum(got != wanted for got, wanted in zip(received, self.case.expected, strict=True))
        return self._follow(received), len(received), wrong

    def _follow(self, received: list[RlkvCommand]) -> list[HeadRead]:
        memory, found, tokens = Memory(), {}, 0
        commands = deque(received)
        for operation, action in zip(self.case.ops, self.actions, strict=True):
            tokens += operation.count if operation.op == RlkvOp.EXTEND else 0
            while not (command := commands.popleft()).last:
                if action == "write":
                    memory.put(command.address, self._slots(command))
                elif isinstance(action, bytes):
                    memory.put(command.address, action)
                else:
                    key = action[1], command.query
                    new = HeadRead(action[1], tokens, command.query, command.head, self.full[command.head], [], [])
                    read = found.setdefault(key, new)
                    data = self._read(memory, command)
                    (read.keys if operation.part == KvPart.KEY else read.values).append((command, data))
        return list(found.values())

    def _read(self, memory: Memory, command: RlkvCommand) -> bytes:
        """As the bus carries it: a run of slots starts with a beat, and its last beat is filled up."""
        size = command.beats * self.plan.config.beat_bytes
        if command.kind == CommandKind.BLOCK:
            return memory.get(command.address, size)
        data = memory.get(command.address, command.tokens * self.plan.config.token_bytes)
        return data + bytes(size - len(data))

    def _slots(self, command: RlkvCommand) -> bytes:
        keys, values = self.exact[command.head]
        own = slice(command.token, command.token + command.tokens)
        if command.part == KvPart.KEY:
            return write_slots(keys.codes[own], keys.scale[own], values.scale[own]).tobytes()
        return write_slots(values.codes[own], values.scale[own]).tobytes()

    def _block(self, head: int, part: int, token: int) -> Block:
        """The packed block that begins at a position: what must have been read, wherever it was read from."""
        at = self.plan.config.sink
        for block in self.blocks[head, part]:
            if at == token:
                return block
            at += block.header.rows
        raise KeyError(f"no block of head {head} begins at token {token}")

    def key_list(self, read: HeadRead, query: torch.Tensor) -> KeyList:
        """What the score core is sent for a query (float16 ``[D]``): the bytes as they were read."""
        items, packets = [], {}
        keys, values = self.exact[read.head]
        for number, (command, data) in enumerate(read.keys):
            packets[number] = data
            own = slice(command.token, command.token + command.tokens)
            if command.kind == CommandKind.BLOCK:
                items.append(self._block(read.head, KvPart.KEY, command.token))
            else:
                items.append(Exact(keys.codes[own], keys.scale[own], values.scale[own]))
        blocks = [item for item in items if isinstance(item, Block)]
        if blocks:
            return KeyList(query, blocks[0].header, blocks[0].channels, items, packets, {})
        size = len(query)
        header = replace(self.blocks[read.head, int(KvPart.KEY)][0].header, format=KvFormat.K1, segment0=size,
                         transform0=KvTransform.NONE, transform1=KvTransform.NONE)  # fmt: skip
        return KeyList(query, header, np.arange(size), items, packets, {})

    def value_list(self, read: HeadRead, p: torch.Tensor) -> ValueList:
        """What the value core is sent for probabilities (float16 ``[rows]``)."""
        items, shares, packets, start = [], [], {}, 0
        values = self.exact[read.head][1]
        for number, (command, data) in enumerate(read.values):
            packets[number] = data
            if command.kind == CommandKind.BLOCK:
                items.append(self._block(read.head, KvPart.VALUE, command.token))
            else:
                own = slice(command.token, command.token + command.tokens)
                rest = command.tokens % EXACT_ROWS
                cuts = [EXACT_ROWS] * (command.tokens // EXACT_ROWS) + [rest] * (rest > 0)
                items.append(Run(values.codes[own], values.scale[own], tuple(cuts)))
            shares.append(p[start : start + command.tokens])
            start += command.tokens
        return ValueList(items, shares, packets)


def real_rows(items) -> torch.Tensor:
    """float64 ``[tokens, D]`` of a list's keys or values."""
    parts = [
        real_block(item) if isinstance(item, Block) else item.codes.double() * item.scale.double()[:, None]
        for item in items
    ]
    return torch.cat(parts)

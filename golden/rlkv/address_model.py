"""Bit-exact model of the KV address generator: every operation to its list of commands.

Written from docs/rlkv.md alone, token by token: slots by the modulo itself, block lists as Python lists.
"""

from dataclasses import dataclass, field

from spec.rlkv import RlkvConfig, RlkvPools
from spec.rlkv_transfers import CommandKind, KvPart, RlkvCommand, RlkvError, RlkvOp, RlkvOperation

__all__ = ["AddressModel", "packed_end"]


def packed_end(config: RlkvConfig, tokens: int) -> int:
    """First position of the residual in a sequence of ``tokens`` tokens: whole blocks older than the newest
    ``residual`` are packed."""
    due = max(0, tokens - config.residual)
    return max(config.sink, due // config.block_tokens * config.block_tokens)


@dataclass
class Block:
    index: int
    beats: int
    rows: int


@dataclass
class Sequence:
    """One open request: its length, the length before the last EXTEND, and its block lists."""

    start: int = 0
    tokens: int = 0
    blocks: dict[tuple[int, int, int], list[Block]] = field(default_factory=dict)


class AddressModel:
    """The state behind the commands; `apply` runs one operation.

    Parameters
    ----------
    config : RlkvConfig
    pools : RlkvPools
        Taken over by the OPEN that finds no other request open.

    Attributes
    ----------
    errors : int
        Sticky bits, one per `RlkvError` that occurred.
    count : int
        Failed operations, up to 65535.
    free_blocks : int
        Blocks left in the pool; 0 before the first OPEN.
    """

    def __init__(self, config: RlkvConfig, pools: RlkvPools):
        self.config, self.pools = config, pools
        self.rows: list[int] = []
        self.policy: list[int] | None = None
        self.sequences: dict[int, Sequence] = {}
        self.free: list[int] = []
        self.fresh = self.limit = 0
        self.errors = self.count = 0

    @property
    def free_blocks(self) -> int:
        return len(self.free) + self.limit - self.fresh

    def apply(self, op: RlkvOperation) -> list[RlkvCommand]:
        """Commands of one operation, DONE last; what failed has changed nothing but a policy table."""
        commands, status = self._run(op)
        if status:
            self.errors |= 1 << status
            self.count = min(self.count + 1, 65535)
        common = {"write": int(op.op in (RlkvOp.WRITE, RlkvOp.PACK)), "part": op.part,
                  "request": op.request, "layer": op.layer}  # fmt: skip
        done = RlkvCommand(kind=CommandKind.DONE, last=1, status=int(status), **common)
        return [RlkvCommand(**(common | command)) for command in commands] + [done]

    def _run(self, op: RlkvOperation) -> tuple[list[dict], RlkvError]:
        if op.op not in list(RlkvOp):
            return [], RlkvError.OPERATION
        if op.op == RlkvOp.POLICY:
            return [], self._policy(op)
        if op.request >= self.config.requests or (op.request in self.sequences) == (op.op == RlkvOp.OPEN):
            return [], RlkvError.REQUEST
        if op.op == RlkvOp.OPEN:
            return [], self._open(op.request)
        sequence = self.sequences[op.request]
        if op.op == RlkvOp.CLOSE:
            # List after list, each goes to the front of the free ones.
            for key in sorted(sequence.blocks):
                self.free = [block.index for block in sequence.blocks[key]] + self.free
            del self.sequences[op.request]
            return [], RlkvError.NONE
        if op.op == RlkvOp.EXTEND:
            return [], self._extend(sequence, op.count)
        if op.layer >= self.config.layers:
            return [], RlkvError.LAYER
        several = op.op == RlkvOp.PACK and op.head != op.last_head
        if op.last_head >= self.config.heads or op.head > op.last_head or several:
            return [], RlkvError.HEAD
        if not sequence.tokens:
            return [], RlkvError.LENGTH
        return self._pack(sequence, op) if op.op == RlkvOp.PACK else self._transfers(sequence, op)

    def _policy(self, op: RlkvOperation) -> RlkvError:
        if self.sequences:
            return RlkvError.POLICY
        self.policy = None
        self.rows.append(op.mask)
        fits = len(self.rows) == self.config.layers if op.last else len(self.rows) < self.config.layers
        if op.last:
            if fits:
                self.policy = self.rows
            self.rows = []
        return RlkvError.NONE if fits else RlkvError.POLICY

    def _open(self, request: int) -> RlkvError:
        if self.policy is None:
            return RlkvError.POLICY
        if not self.sequences:
            if not self.pools.fits(self.config):
                return RlkvError.ADDRESS
            self.free, self.fresh, self.limit = [], 0, self.pools.blocks
        full = sum(mask.bit_count() for mask in self.policy)
        window = self.config.layers * self.config.heads - full
        if (request + 1) * full > self.pools.full_areas or (request + 1) * window > self.pools.window_areas:
            return RlkvError.AREAS
        self.sequences[request] = Sequence()
        return RlkvError.NONE

    def _extend(self, sequence: Sequence, count: int) -> RlkvError:
        if count == 0:
            return RlkvError.LENGTH
        if sequence.tokens + count > self.config.context:
            return RlkvError.CONTEXT
        sequence.start, sequence.tokens = sequence.tokens, sequence.tokens + count
        return RlkvError.NONE

    def is_full(self, layer: int, head: int) -> bool:
        return bool(self.policy[layer] >> head & 1)

    def _area(self, request: int, layer: int, head: int) -> int:
        """Index of a head's area in its pool: those of earlier requests, layers and heads of its kind come first."""
        kind = self.is_full(layer, head)
        shape = [(at, h) for at in range(self.config.layers) for h in range(self.config.heads)]
        mine = [place for place in shape if self.is_full(*place) == kind]
        return request * len(mine) + mine.index((layer, head))

    def _pack(self, sequence: Sequence, op: RlkvOperation) -> tuple[list[dict], RlkvError]:
        config = self.config
        if not self.is_full(op.layer, op.head):
            return [], RlkvError.WINDOW_HEAD
        blocks = sequence.blocks.get((op.layer, op.head, op.part), [])
        packed = config.sink + sum(block.rows for block in blocks)
        sizes = 1 <= op.beats <= config.block_beats and 1 <= op.count <= config.block_tokens
        if not sizes or packed + op.count > packed_end(config, sequence.tokens):
            return [], RlkvError.ROWS
        if not self.free_blocks:
            return [], RlkvError.BLOCKS
        if self.free:
            index = self.free.pop(0)
        else:
            index, self.fresh = self.fresh, self.fresh + 1
        block = Block(index, op.beats, op.count)
        sequence.blocks[op.layer, op.head, op.part] = [*blocks, block]
        return [self._block(op, op.head, block, packed) | {"head_last": 1}], RlkvError.NONE

    def _block(self, op: RlkvOperation, head: int, block: Block, token: int) -> dict:
        return {"kind": CommandKind.BLOCK, "head": head, "query": head * self.config.group, "token": token,
                "tokens": block.rows, "beats": block.beats,
                "address": self.pools.block_base + block.index * self.config.block_bytes}  # fmt: skip

    def _transfers(self, sequence: Sequence, op: RlkvOperation) -> tuple[list[dict], RlkvError]:
        commands = []
        repeats = self.config.group if op.op == RlkvOp.READ and op.per_query else 1
        for head in range(op.head, op.last_head + 1):
            of_head = self._of_head(sequence, op, head)
            if of_head is None:
                return commands, RlkvError.UNPACKED
            if of_head:
                of_head[-1]["head_last"] = 1
            for i in range(repeats):
                commands += [command | {"query": head * self.config.group + i} for command in of_head]
        return commands, RlkvError.NONE

    def _of_head(self, sequence: Sequence, op: RlkvOperation, head: int) -> list[dict] | None:
        """Commands of one head; None if its blocks do not reach its residual."""
        config, tokens = self.config, sequence.tokens
        start = 0 if op.op == RlkvOp.READ else sequence.start
        full = self.is_full(op.layer, head)
        if full:
            oldest, ring, slots = packed_end(config, tokens), config.residual_slots, config.full_slots
            base, kind = self.pools.full_base, CommandKind.RESIDUAL
        else:
            oldest, ring, slots = max(config.sink, tokens - config.recent), config.recent, config.window_slots
            base, kind = self.pools.window_base, CommandKind.WINDOW
        area = (2 * self._area(op.request, op.layer, head) + (op.part == KvPart.VALUE)) * slots

        def runs(kind: CommandKind, positions: range) -> list[dict]:
            """Neighbours in the sequence that are neighbours in memory share a command."""
            found: list[dict] = []
            for position in positions:
                slot = position if position < config.sink else config.sink + (position - config.sink) % ring
                address = base + (area + slot) * config.token_bytes
                end = found[-1]["address"] + found[-1]["tokens"] * config.token_bytes if found else None
                if address == end:
                    found[-1]["tokens"] += 1
                else:
                    found.append({"kind": kind, "head": head, "address": address, "token": position, "tokens": 1})
            for run in found:
                run["beats"] = config.run_beats(run["tokens"])
            return found

        commands = runs(CommandKind.SINK, range(start, min(config.sink, tokens)))
        if full and op.op == RlkvOp.READ:
            token = config.sink
            for block in sequence.blocks.get((op.layer, head, op.part), []):
                commands.append(self._block(op, head, block, token))
                token += block.rows
            if token != oldest:
                return None
        return commands + runs(kind, range(max(start, oldest), tokens))

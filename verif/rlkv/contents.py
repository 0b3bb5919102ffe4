"""What lies in memory: follows the writes of a run of commands and checks every read against what attention needs."""

from spec.rlkv import SLOT_UNIT, RlkvConfig
from spec.rlkv_transfers import CommandKind, KvPart, RlkvCommand, RlkvOp, RlkvOperation

__all__ = ["Contents"]


class Contents:
    """Memory as a map of the address of every four bytes to what was written there; independent of any address formula.

    `follow` takes the operations of a disciplined run and all of its commands, and raises AssertionError where a read
    would give attention anything but the tokens it has a right to: each once, in order, not overwritten by another.
    """

    def __init__(self, config: RlkvConfig, masks: list[int]):
        self.config, self.masks = config, masks
        self.beats: dict[int, tuple] = {}
        self.tokens: dict[int, int] = {}
        self.reads = 0

    def follow(self, ops: list[RlkvOperation], commands: list[RlkvCommand]) -> None:
        queue = iter(commands)
        for op in ops:
            transfers: list[RlkvCommand] = []
            while not (command := next(queue)).last:
                transfers.append(command)
            assert command.status == 0, f"{op} failed with {command}"
            if op.op == RlkvOp.OPEN:
                self.tokens[op.request] = 0
            elif op.op == RlkvOp.EXTEND:
                self.tokens[op.request] += op.count
            elif op.op in (RlkvOp.WRITE, RlkvOp.PACK):
                for transfer in transfers:
                    self._write(transfer)
            elif op.op == RlkvOp.READ:
                self._read(op, transfers)
        assert next(queue, None) is None

    def _contents(self, command: RlkvCommand) -> dict[int, tuple]:
        """Address of four bytes -> who owns them, which token (or block of tokens), which of it."""
        owner = command.request, command.layer, command.head, KvPart(command.part)
        whole = command.kind == CommandKind.BLOCK
        beats, beat_bytes = command.beats, self.config.beat_bytes
        size = beats * beat_bytes if whole else command.tokens * self.config.token_bytes
        assert beats * beat_bytes - beat_bytes < size <= beats * beat_bytes
        of_one = (size if whole else self.config.token_bytes) // SLOT_UNIT
        return {
            command.address + unit * SLOT_UNIT: (
                *owner,
                range(command.token, command.token + command.tokens) if whole else command.token + unit // of_one,
                unit % of_one,
            )
            for unit in range(size // SLOT_UNIT)
        }

    def _write(self, command: RlkvCommand) -> None:
        assert command.write
        self.beats |= self._contents(command)

    def _read(self, op: RlkvOperation, transfers: list[RlkvCommand]) -> None:
        config, length = self.config, self.tokens[op.request]
        heads = list(range(op.head, op.last_head + 1))
        repeats = config.group if op.per_query else 1
        wanted = [(head, head * config.group + i) for head in heads for i in range(repeats)]
        lists: list[list[RlkvCommand]] = [[]]
        for command in transfers:
            assert not command.write
            for address, held in self._contents(command).items():
                assert self.beats.get(address) == held, f"{command}: {address:#x} holds {self.beats.get(address)}"
            lists[-1].append(command)
            if command.head_last:
                lists.append([])
        assert lists.pop() == []
        assert [(of_head[0].head, of_head[0].query) for of_head in lists] == wanted
        for of_head in lists:
            assert len({(command.head, command.query) for command in of_head}) == 1
            positions = [c.token + i for c in of_head for i in range(c.tokens)]
            if self.masks[op.layer] >> of_head[0].head & 1:
                assert positions == list(range(length))
            else:
                old = range(min(config.sink, length))
                new = range(max(config.sink, length - config.recent), length)
                assert positions == [*old, *new]
                assert len(positions) == min(length, config.sink + config.recent)
            self.reads += 1

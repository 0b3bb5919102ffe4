"""Section ``attention``: a layer of SmolLM2 decoding over its compressed cache, scores and outputs from the Verilog."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gen.verilog import to_verilog, write_atomically
from golden.attention.reference import real_block
from golden.attention.slots import write_slots
from golden.kv.block import Block
from golden.kv.config import preset
from golden.kv.pack import pack_block, unpack_block
from golden.kv.packed import pack_cache
from golden.kv.residual import Residual, write_int8
from golden.llm import KV, MODEL_NAME, capture_kv, text_hash
from golden.rlkv.address_model import AddressModel
from golden.rlkv.plan import MemoryPlan
from hw.attention.layouts import Score
from hw.attention.score import ScoreCore
from hw.attention.value import ValueCore
from hw.attention.value_out import Value
from hw.spec.attention import AttentionConfig
from hw.spec.kv_formats import KvFormat, KvTransform
from hw.spec.rlkv import CommandKind, KvPart, RlkvCommand, RlkvOp, RlkvOperation, rlkv_preset
from sim.build import Built, build
from sim.job import run_jobs
from sim.layout import unpack
from verif.attention.bench import Exact, KeyList, score_job
from verif.attention.value_lists import Run, ValueList, value_job
from verif.demo.report import Column, Item, Section

__all__ = ["run_attention"]

LAYER, CONTEXT, STEPS = 15, 1024, 2
FULL = 0b011
"""KV heads 0 and 1 keep everything, head 2 sinks and a window."""

EXACT_ROWS = 32
"""Rows of a group of exact tokens: their weights take as long to come in as their rows, so long groups would wait."""

COLUMNS = [
    Column("what", "name"),
    Column("query heads x steps", "lists"),
    Column("compared", "compared", ","),
    Column("mismatches", "mismatches", ","),
    Column("cycles per list", "cycles_per_list", ",.0f"),
    Column("max error", "max_rel_error", ".1e"),
    Column("KiB read per step", "kib", ".1f"),
]


@dataclass
class _Cache:
    """The layer's cache in memory, written and read where the address generator says."""

    model: AddressModel
    memory: bytearray
    blocks: dict[tuple[int, int], list[Block]]
    exact: dict[int, tuple[Residual, Residual]]

    def run(self, **operation) -> list[RlkvCommand]:
        commands = self.model.apply(RlkvOperation(**operation))
        if commands[-1].status:
            raise RuntimeError(f"the address generator refused {operation}: {commands[-1]}")
        return commands[:-1]

    def put(self, command: RlkvCommand, data: bytes) -> None:
        self.memory[command.address : command.address + len(data)] = data

    def get(self, command: RlkvCommand) -> bytes:
        return bytes(self.memory[command.address : command.address + command.beats * self.model.config.beat_bytes])

    def slots(self, head: int, part: int, tokens: range) -> bytes:
        keys, values = self.exact[head]
        own = slice(tokens.start, tokens.stop)
        if part == KvPart.KEY:
            return write_slots(keys.codes[own], keys.scale[own], values.scale[own]).tobytes()
        return write_slots(values.codes[own], values.scale[own]).tobytes()

    def write(self) -> None:
        """The tokens of the last EXTEND that stay exact."""
        for part in KvPart:
            for command in self.run(op=RlkvOp.WRITE, last_head=2, part=part):
                tokens = range(command.token, command.token + command.tokens)
                self.put(command, self.slots(command.head, part, tokens))


def _prefill(kv: KV, plan: MemoryPlan, context: int) -> _Cache:
    """The first ``context`` tokens: packed blocks and exact tokens, everything written to memory."""
    k, v = (x[LAYER : LAYER + 1].float() for x in (kv.k, kv.v))
    packed = pack_cache(k[:, :, :context], v[:, :, :context], plan.fmt)
    centres = {head: block.scales.view(np.float16).astype(np.float64) for _, head, block in packed.blocks("centre")}
    blocks: dict[tuple[int, int], list[Block]] = {}
    for part, kind in ((KvPart.KEY, "key"), (KvPart.VALUE, "value")):
        for _, head, block in packed.blocks(kind):
            blocks.setdefault((head, int(part)), []).append(block)
    exact = {}
    for head in range(3):
        # The centre is off every key of a head with blocks, exact ones too: softmax does not see it.
        centre = torch.from_numpy(centres[head]) if FULL >> head & 1 else 0.0
        exact[head] = tuple(_one(write_int8((x[0, head].double() - c)[None])) for x, c in ((k, centre), (v, 0.0)))
    pools = plan.pools(context + plan.config.block_tokens)
    end = max(base + size for base, size in pools.regions(plan.config).values())
    cache = _Cache(AddressModel(plan.config, pools), bytearray(end + plan.config.beat_bytes), blocks, exact)
    cache.run(op=RlkvOp.POLICY, mask=FULL, last=1)
    cache.run(op=RlkvOp.OPEN)
    cache.run(op=RlkvOp.EXTEND, count=context)
    for (head, part), found in blocks.items():
        for block in found if FULL >> head & 1 else ():
            packet = pack_block(block)
            place = {"head": head, "last_head": head, "part": part}
            beats = len(packet) // plan.config.beat_bytes
            (command,) = cache.run(op=RlkvOp.PACK, **place, count=block.header.rows, beats=beats)
            cache.put(command, packet)
    cache.write()
    return cache


def _one(residual: Residual) -> Residual:
    return Residual(residual.codes[0], residual.scale[0])


@dataclass
class _List:
    """What one query head reads in one step: commands and bytes, keys and values."""

    query: int
    head: int
    keys: list[tuple[RlkvCommand, bytes]]
    values: list[tuple[RlkvCommand, bytes]]


def _read(cache: _Cache) -> list[_List]:
    """The reads of one decoding step, in the order of the address generator."""
    found: dict[int, _List] = {}
    for part in KvPart:
        for command in cache.run(op=RlkvOp.READ, last_head=2, part=part, per_query=1):
            entry = found.setdefault(command.query, _List(command.query, command.head, [], []))
            (entry.keys if part == KvPart.KEY else entry.values).append((command, cache.get(command)))
    return list(found.values())


def _key_list(cache: _Cache, entry: _List, query: torch.Tensor) -> KeyList:
    items, packets = [], {}
    for number, (command, data) in enumerate(entry.keys):
        packets[number] = data
        if command.kind == CommandKind.BLOCK:
            items.append(unpack_block(data))
        else:
            own = slice(command.token, command.token + command.tokens)
            keys, values = cache.exact[entry.head]
            items.append(Exact(keys.codes[own], keys.scale[own], values.scale[own]))
    blocks = [item for item in items if isinstance(item, Block)]
    if blocks:
        return KeyList(query, blocks[0].header, blocks[0].channels, items, packets, {})
    header = replace(cache.blocks[entry.head, int(KvPart.KEY)][0].header, format=KvFormat.K1, segment0=64,
                     transform0=KvTransform.NONE, transform1=KvTransform.NONE)  # fmt: skip
    return KeyList(query, header, np.arange(64), items, packets, {})


def _value_list(cache: _Cache, entry: _List, p: torch.Tensor) -> ValueList:
    items, shares, packets, start = [], [], {}, 0
    for number, (command, data) in enumerate(entry.values):
        packets[number] = data
        if command.kind == CommandKind.BLOCK:
            items.append(unpack_block(data))
        else:
            own = slice(command.token, command.token + command.tokens)
            values = cache.exact[entry.head][1]
            cuts = [EXACT_ROWS] * (command.tokens // EXACT_ROWS)
            cuts += [command.tokens % EXACT_ROWS] if command.tokens % EXACT_ROWS else []
            items.append(Run(values.codes[own], values.scale[own], tuple(cuts)))
        shares.append(p[start : start + command.tokens])
        start += command.tokens
    return ValueList(items, shares, packets)


def _real(items) -> torch.Tensor:
    """float64 ``[tokens, D]`` of a list's keys or values."""
    parts = [
        real_block(item) if isinstance(item, Block) else item.codes.double() * item.scale.double()[:, None]
        for item in items
    ]
    return torch.cat(parts)


def _emit(component, name: str, out_dir: Path, section: Section) -> Built:
    text, _ports = to_verilog(component, name)
    path = out_dir / "verilog" / f"{name}.v"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    section.verilog_sha256[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return build(path, name)


def _items(name: str, lists: list[_List], ends: np.ndarray, wrong: list[int], counts: list[int], errors: list[float],
           read: list[int], steps: int) -> list[Item]:  # fmt: skip
    """One item for full heads, one for window heads."""
    cycles = np.diff(np.concatenate([[0], ends]))
    found = []
    for full in (True, False):
        chosen = [n for n, entry in enumerate(lists) if bool(FULL >> entry.head & 1) == full]
        item = Item(f"{name}, {'full' if full else 'window'} heads", expected=sum(int(counts[n]) for n in chosen))
        item.compared = item.expected
        item.mismatches = sum(wrong[n] for n in chosen)
        item.cycles = int(sum(cycles[n] for n in chosen))
        item.max_rel_error = max(errors[n] for n in chosen)
        item.more = {
            "lists": f"{len(chosen) // steps} x {steps}",
            "cycles_per_list": item.cycles / len(chosen),
            "kib": sum(read[n] for n in chosen) / steps / 3 / 1024,
        }
        found.append(item)
    return found


def run_attention(
    out_dir: Path,
    seed: int,
    *,
    context: int = CONTEXT,
    steps: int = STEPS,
    progress: Callable[[str], None] = lambda what: None,
) -> Section:
    """Decode ``steps`` tokens after ``context`` of real text in one layer: scores, softmax here, outputs.

    Parameters
    ----------
    out_dir : Path
        Where the Verilog goes.
    seed : int
        Start values of registers and memories.
    progress : callable
        Told what comes next.
    """
    config = AttentionConfig()
    section = Section("attention", f"{MODEL_NAME}: attention of layer {LAYER} from codes", COLUMNS)
    progress("building the simulators of score_core and value_core")
    score_core = _emit(ScoreCore(config), "score_core", out_dir, section)
    value_core = _emit(ValueCore(config), "value_core", out_dir, section)
    progress(f"packing {context} tokens")
    kv = capture_kv(context + steps)
    plan = MemoryPlan(config=rlkv_preset("smollm2-135m", layers=1), head_dim=64, fmt=preset("default"), n_full=2)
    cache = _prefill(kv, plan, context)
    lists, key_lists = [], []
    for step in range(steps):
        cache.run(op=RlkvOp.EXTEND, count=1)
        cache.write()
        for entry in _read(cache):
            query = (kv.q[LAYER, entry.query, context + step].double() / 8).half()
            lists.append((step, entry))
            key_lists.append(_key_list(cache, entry, query))
    entries = [entry for _, entry in lists]
    read_keys = [sum(len(data) for _, data in entry.keys) for entry in entries]
    read_values = [sum(len(data) for _, data in entry.values) for entry in entries]
    bytes_wrong = [
        int(a + b != plan.read_bytes(context + step + 1, full=bool(FULL >> entry.head & 1)))
        for a, b, (step, entry) in zip(read_keys, read_values, lists, strict=True)
    ]

    progress(f"scores of {len(lists)} query heads")
    job, expected = score_job(key_lists, config)
    (result,) = run_jobs(score_core, [job], seed=seed)
    got = unpack(Score, result.outputs["o"])
    bits = got["value"]["fraction"] | got["value"]["exponent"] << np.uint64(23) | got["value"]["sign"] << np.uint64(31)
    bits = bits.astype(np.uint32)
    names = ("marked", "last", "final", "value_scale")
    differs = bits != np.array([e["value"] for e in expected], np.uint32)
    for name in names:
        differs |= got[name].astype(np.int64) != np.array([e[name] for e in expected])
    stops = np.flatnonzero([e["final"] for e in expected]) + 1
    starts = np.concatenate([[0], stops[:-1]])
    wrong, errors, value_lists, exact = [], [], [], []
    for start, stop, entry, keys in zip(starts, stops, entries, key_lists, strict=True):
        scores = torch.from_numpy(bits[start:stop].view(np.float32).copy()).double()
        real = _real(keys.items)
        error = (scores - real @ keys.query.double()).abs() / (real.abs() @ keys.query.double().abs())
        wrong.append(int(differs[start:stop].sum()))
        errors.append(float(error.max()))
        p = scores.softmax(0).half()
        value_lists.append(_value_list(cache, entry, p))
        values = _real(value_lists[-1].items)
        exact.append((p.double() @ values, p.double() @ values.abs()))
    ends = result.output_cycles["o"][stops - 1]
    wrong = [a + b for a, b in zip(wrong, bytes_wrong, strict=True)]
    section.items += _items("scores", entries, ends, wrong, list(stops - starts), errors, read_keys, steps)

    progress(f"outputs of {len(lists)} query heads")
    job, wanted = value_job(value_lists, config)
    (result,) = run_jobs(value_core, [job], seed=seed)
    got = unpack(Value, result.outputs["o"])
    outputs = got["value"].astype(np.uint16).reshape(len(lists), 64)
    wrong = [
        int((own != want).sum() + marks.sum())
        for own, (want, _), marks in zip(outputs, wanted, got["marked"].reshape(len(lists), 64), strict=True)
    ]
    errors = [
        float(((torch.from_numpy(own.view(np.float16).astype(np.float64)) - real).abs() / total).max())
        for own, (real, total) in zip(outputs, exact, strict=True)
    ]
    ends = result.output_cycles["o"].reshape(len(lists), 64)[:, -1]
    section.items += _items("outputs", entries, ends, wrong, [64] * len(lists), errors, read_values, steps)
    section.notes = [
        f"{context} tokens of real text, then {steps} decoding steps; KV heads 0 and 1 full, 2 a window head, three "
        "query heads each. Every byte is read from a memory image at the addresses of the address generator's READs; "
        "bytes per step are those of golden.rlkv.plan, or the item fails. Error: against float64, same cache, relative "
        f"to the sum of |q k| or |p v|. Text: pydoc_data.topics, SHA-256 {text_hash()[:12]}.",
    ]
    return section

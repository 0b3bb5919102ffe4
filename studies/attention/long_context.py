"""``python -m studies.attention.long_context``: bytes per decoded token at 32k tokens, measured on the Verilog.

A full and a window head of Llama-3.1-8B's shape through address generator and both cores; every head of the published
head tables, at every sparsity, through the address generator. ``--docs FILE`` writes the tables into a document.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gen.synth.liberty import find_data_dir
from gen.verilog import emit
from golden.document import write_between_markers
from golden.kv.config import preset
from golden.llm import capture_kv
from golden.rlkv import MemoryPlan, load_adapter, select_full
from golden.rlkv.plan import CacheShape, kv_bytes_rlkv
from hosts.address_generator import Case, build_generator, tight_pools
from hosts.attention.decode import ListOutcome, decode
from hosts.attention.layer import LayerCache
from hw.rlkv.layouts import CommandLayout
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi
from sim.build import build
from sim.job import run_jobs
from sim.layout import unpack
from spec.attention import AttentionConfig
from spec.rlkv import RlkvConfig, rlkv_preset
from spec.rlkv_transfers import CommandKind, KvPart, RlkvOp
from studies.published_heads import SPARSITIES, TABLES

__all__ = ["MARKERS", "HeadMeasurement", "ReadMeasurement", "measure_heads", "measure_reads", "real_cache"]

LONG = 1 << 15
HEAD_DIM = 128
BLOCKS = 1 << 18
"""Of the address generators built here: at 32k tokens all heads of Qwen3-4B are more than the presets' 2^17."""
MARKERS = "<!-- long context: begin (python -m studies.attention.long_context) -->", "<!-- long context: end -->"


@dataclass(frozen=True)
class HeadMeasurement:
    """One head's decoding step: bytes at both cores' ports, the plan's, FP16's, and what was compared."""

    full: bool
    tokens: int
    measured: int
    planned: int
    fp16: int
    scores: ListOutcome
    outputs: ListOutcome


@dataclass(frozen=True)
class ReadMeasurement:
    """One policy's decoded token: bytes of the simulated address generator's READs, of the plan, and in FP16 with every
    head in full; commands that are not the model's."""

    table: str
    sparsity: float
    n_full: int
    heads: int
    measured: int
    planned: int
    fp16: int
    wrong: int

    @property
    def ratio(self) -> float:
        return self.fp16 / self.measured


def real_cache(tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys and values ``[2, tokens, 128]`` and queries ``[2, 128]``: SmolLM2's caches of 1,024 tokens, two of its heads
    of 64 channels side by side, repeated until there are enough."""
    kv = capture_kv(1024)
    repeats = -(-tokens // 1024)
    keys, values = (
        torch.stack([torch.cat([x[layer, 0], x[layer, 1]], 1).repeat(repeats, 1)[:tokens] for layer in (7, 15)]).float()
        for x in (kv.k, kv.v)
    )
    queries = torch.stack([torch.cat([kv.q[layer, 0, -1], kv.q[layer, 3, -1]]) for layer in (7, 15)])
    return keys, values, (queries.double() / HEAD_DIM**0.5).half()


def measure_heads(seed: int, *, tokens: int = LONG, progress=lambda what: None) -> list[HeadMeasurement]:
    """A full and a window head of layer 9 through address generator, score core and value core."""
    config = rlkv_preset("llama-3.1-8b")
    plan = MemoryPlan(config=config, head_dim=HEAD_DIM, fmt=preset("default"), n_full=128)
    pools = tight_pools(config, full=128, window=128, blocks=2 * -(-tokens // config.block_tokens))
    heads = [5, 2]
    keys, values, queries = real_cache(tokens)
    progress(f"packing {tokens} tokens")
    cache = LayerCache(plan, [0b1111_0000] * config.layers, 9, heads, keys, values, pools, per_query=False)
    cache.prefill(tokens)
    cache.read()
    progress("building the simulators")
    core = AttentionConfig(channels=HEAD_DIM)
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
        cores = [
            build(emit(component(core), name, Path(scratch), parameters={}, latency=None).path_v, name)
            for name, component in (("score_core_axi", ScoreCoreAxi), ("value_core_axi", ValueCoreAxi))
        ]
    reads, _, wrong = cache.run(build_generator(config), seed)
    if wrong:
        raise AssertionError(f"{wrong} commands of the address generator are not the model's")
    asked = [queries[heads.index(read.head)] for read in reads]
    scores, outputs = decode(cache, reads, asked, tuple(cores), core, seed=seed, progress=progress)
    return [
        HeadMeasurement(
            full=read.full,
            tokens=read.tokens,
            measured=score.port_bytes + output.port_bytes,
            planned=plan.read_bytes(read.tokens, full=read.full),
            fp16=2 * 2 * HEAD_DIM * read.tokens,
            scores=score,
            outputs=output,
        )
        for read, score, output in zip(reads, scores, outputs, strict=True)
    ]


def _one_token(config: RlkvConfig, plan: MemoryPlan, masks: list[int], tokens: int) -> tuple[Case, int]:
    """Everything packed, then all heads read once; and the number of commands before the reads."""
    # A block at least: pools end at the top of the address space, where none can begin.
    pools = tight_pools(config, full=plan.n_full, window=plan.n_window, blocks=max(1, plan.blocks(tokens)))
    case = Case(config, pools)
    case.policy(masks)
    case.do(RlkvOp.OPEN)
    case.do(RlkvOp.EXTEND, count=tokens)
    sizes = {part: plan.block_bytes(part, tokens) for part in KvPart}
    for layer, mask in enumerate(masks):
        for head in (head for head in range(config.heads) if mask >> head & 1):
            for part in KvPart:
                start = config.sink
                for size in sizes[part]:
                    end = (start // config.block_tokens + 1) * config.block_tokens
                    case.do(RlkvOp.PACK, layer=layer, head=head, last_head=head, part=part, count=end - start,
                            beats=size // config.beat_bytes)  # fmt: skip
                    start = end
    before = len(case.expected)
    case.every_layer(RlkvOp.READ, 0)
    return case, before


def measure_reads(table: str, path: Path, sparsity: float, seed: int, *, tokens: int = LONG) -> ReadMeasurement:
    """The policy of an adapter table at a sparsity: one decoded token's READs from the simulated address generator."""
    config = rlkv_preset(TABLES[table], blocks=BLOCKS)
    policy = select_full(load_adapter(path), sparsity)
    plan = MemoryPlan(config=config, head_dim=HEAD_DIM, fmt=preset("default"), n_full=policy.n_full)
    case, before = _one_token(config, plan, policy.masks(), tokens)
    (result,) = run_jobs(build_generator(config), [case.job()], seed=seed)
    columns = unpack(CommandLayout(config), result.outputs["o"])
    names = list(columns)
    wanted = np.array([[int(getattr(command, name)) for name in names] for command in case.expected], np.uint64)
    got = np.stack([columns[name].astype(np.uint64) for name in names], 1)
    moved = columns["kind"][before:] != CommandKind.DONE
    shape = CacheShape(layers=config.layers, heads=config.heads, head_dim=HEAD_DIM)
    return ReadMeasurement(
        table=table,
        sparsity=sparsity,
        n_full=policy.n_full,
        heads=shape.total,
        measured=int(columns["beats"][before:][moved].sum()) * config.beat_bytes,
        planned=plan.read_bytes_per_token(tokens),
        fp16=kv_bytes_rlkv(shape, shape.total, tokens),
        wrong=int((got != wanted).any(1).sum()) + len(case.expected[before:]) * bool(case.model.errors),
    )


def markdown(heads: list[HeadMeasurement], reads: list[ReadMeasurement]) -> str:
    """Both tables."""
    lines = [
        f"{LONG:,} tokens, D = {HEAD_DIM}, default formats; keys and values of one decoded token.",
        "",
        "| head | bytes at the ports | plan | FP16 | FP16 / ports | compared | mismatches | cycles: scores, outputs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for head in heads:
        wrong = head.scores.mismatches + head.outputs.mismatches
        cells = ["full" if head.full else "window", f"{head.measured:,}", f"{head.planned:,}", f"{head.fp16:,}"]
        cells += [f"{head.fp16 / head.measured:.1f}", f"{head.scores.compared + head.outputs.compared:,}", f"{wrong}"]
        lines.append(f"| {' | '.join(cells)} | {head.scores.cycles:,}, {head.outputs.cycles:,} |")
    lines += [
        "",
        "| head table | sparsity | full heads | bytes read, address generator | plan | FP16, all heads full | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for read in reads:
        cells = [read.table, f"{read.sparsity:g}", f"{read.n_full} of {read.heads}", f"{read.measured:,}"]
        cells += [f"{read.planned:,}", f"{read.fp16:,}", f"{read.ratio:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m studies.attention.long_context", description=__doc__)
    parser.add_argument("--docs", type=Path, help="document whose tables to replace")
    parser.add_argument("--seed", type=int, default=1, help="start values of registers and memories")
    arguments = parser.parse_args()
    heads = measure_heads(arguments.seed, progress=lambda what: print(what, flush=True))
    reads, data = [], find_data_dir()
    for table in TABLES:
        path = data / "rlkv" / f"{table}.tsv" if data else None
        if path is None or not path.is_file():
            print(f"{table}: left out, no {table}.tsv in $BITMOSAIC_DATA/rlkv")
            continue
        for sparsity in SPARSITIES:
            print(f"{table}: sparsity {sparsity:g}", flush=True)
            reads.append(measure_reads(table, path, sparsity, arguments.seed))
    text = markdown(heads, reads)
    print(text, end="")
    wrong = [head for head in heads if head.scores.mismatches or head.outputs.mismatches]
    wrong += [row for row in (*heads, *reads) if row.measured != row.planned]
    wrong += [read for read in reads if read.wrong]
    for row in wrong:
        print(f"WRONG: {row}")
    if arguments.docs and not wrong:
        write_between_markers(arguments.docs, text, MARKERS)
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())

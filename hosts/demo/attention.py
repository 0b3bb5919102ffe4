"""Section ``attention``: a layer of SmolLM2 decoding over its compressed cache, scores and outputs from the Verilog."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from gen.verilog import to_verilog
from golden.kv.config import preset
from golden.llm import MODEL_NAME, capture_kv, text_hash
from golden.rlkv.plan import MemoryPlan
from hosts.attention.decode import ListOutcome, decode
from hosts.attention.layer import HeadRead, LayerCache
from hosts.demo.report import Column, Item, Section
from hw.rlkv.generator import KvAddressGenerator
from hw.tops.score_core import ScoreCoreAxi
from hw.tops.value_core import ValueCoreAxi
from shell.output import write_file
from sim.build import Built, build
from spec.attention import AttentionConfig
from spec.rlkv import rlkv_preset

__all__ = ["run_attention"]

LAYER, CONTEXT, STEPS = 15, 1024, 2
FULL = 0b011
"""KV heads 0 and 1 keep everything, head 2 sinks and a window."""

COLUMNS = [
    Column("what", "name"),
    Column("query heads x steps", "lists"),
    Column("compared", "compared", ","),
    Column("mismatches", "mismatches", ","),
    Column("cycles per list", "cycles_per_list", ",.0f"),
    Column("max error", "max_rel_error", ".1e"),
    Column("KiB read per step", "kib", ".1f"),
]


def _emit(component, name: str, out_dir: Path, section: Section) -> Built:
    text, _ports = to_verilog(component, name)
    path = out_dir / "verilog" / f"{name}.v"
    write_file(path, text)
    section.verilog_sha256[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return build(path, name)


def _items(name: str, reads: list[HeadRead], outcomes: list[ListOutcome], steps: int) -> list[Item]:
    """One item for full heads, one for window heads."""
    found = []
    for full in (True, False):
        chosen = [outcome for read, outcome in zip(reads, outcomes, strict=True) if read.full == full]
        item = Item(f"{name}, {'full' if full else 'window'} heads", expected=sum(one.compared for one in chosen))
        item.compared = item.expected
        item.mismatches = sum(one.mismatches for one in chosen)
        item.cycles = sum(one.cycles for one in chosen)
        item.max_rel_error = max(one.max_rel_error for one in chosen)
        item.more = {
            "lists": f"{len(chosen) // steps} x {steps}",
            "cycles_per_list": item.cycles / len(chosen),
            "kib": sum(one.port_bytes for one in chosen) / steps / 3 / 1024,
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
    """Decode ``steps`` tokens after ``context`` of real text in one layer: reads of the generated address generator,
    scores, softmax here, outputs.

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
    plan = MemoryPlan(config=rlkv_preset("smollm2-135m", layers=1), head_dim=64, fmt=preset("default"), n_full=2)
    progress("building the simulators of address generator, score core and value core")
    generator = _emit(KvAddressGenerator(plan.config), "kv_address_generator", out_dir, section)
    cores = (
        _emit(ScoreCoreAxi(config), "score_core_axi", out_dir, section),
        _emit(ValueCoreAxi(config), "value_core_axi", out_dir, section),
    )
    progress(f"packing {context} tokens")
    kv = capture_kv(context + steps)
    pools = plan.pools(context + plan.config.block_tokens)
    cache = LayerCache(plan, [FULL], 0, [0, 1, 2], kv.k[LAYER], kv.v[LAYER], pools)
    cache.prefill(context)
    for _ in range(steps):
        cache.step()
    progress("addresses")
    reads, received, wrong = cache.run(generator, seed)
    queries = [(kv.q[LAYER, read.query, read.tokens - 1].double() / 8).half() for read in reads]
    scores, outputs = decode(cache, reads, queries, cores, config, seed=seed, progress=progress)
    planned = [plan.read_bytes(read.tokens, full=read.full) for read in reads]
    measured = [a.port_bytes + b.port_bytes for a, b in zip(scores, outputs, strict=True)]
    section.items = [
        Item("commands of the address generator", received, received, wrong),
        Item("lists whose bytes at the ports are the plan's", len(planned), len(measured),
             sum(a != b for a, b in zip(planned, measured, strict=True))),
        *_items("scores", reads, scores, steps),
        *_items("outputs", reads, outputs, steps),
    ]  # fmt: skip
    section.notes = [
        f"{context} tokens of real text, then {steps} decoding steps; KV heads 0 and 1 full, 2 a window head, three "
        "query heads each. Every byte is written to and read from a memory image at the addresses that the simulated "
        "address generator gives; KiB are counted at the cores' ports `s_axis_packets`, and must be those of "
        "golden.rlkv.plan. Error: against float64, same cache, relative "
        f"to the sum of |q k| or |p v|. Text: pydoc_data.topics, SHA-256 {text_hash()[:12]}.",
    ]
    return section

"""Section ``kv``: real keys and values of SmolLM2, packed, through the generated KV dequant engine."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from golden.kv.bits import effective_bits
from golden.kv.block import Block
from golden.kv.config import PRESETS, CacheFormat, KeyFormat, ValueFormat
from golden.kv.float64 import decibels, float64_values
from golden.kv.pack import unpack_block
from golden.kv.packed import KINDS, PackedCache, pack_cache
from golden.kv.protection import protected_tokens, protection_scores
from golden.llm import KV, MODEL_NAME, capture_activations, capture_kv, text_hash
from hosts.demo.report import Column, Item, Section
from hosts.kv_dequantizer import TOP, by_channel, emit_engine, mismatches, run_packets
from sim.build import Built, build
from sim.runner import SimulationError
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat
from spec.system import SYSTEMS

__all__ = ["Workload", "run_kv", "workloads"]

RFFT_TOP = "kv_dequantizer_rfft_axi"
TOKENS = 784
"""16 sinks, 5 groups of which the first is short, 128 newest."""
FEW_TOKENS = 400
FEW_LAYERS = (0, 14, 29)
QUERIES = 64
"""The newest tokens are the text whose hidden states decide which values are protected."""

COLUMNS = [
    Column("format", "format"),
    Column("transform", "transform"),
    Column("what", "what"),
    Column("elements", "compared", ","),
    Column("mismatches", "mismatches", ","),
    Column("cycles", "cycles", ","),
    Column("el./cycle", "elements_per_cycle", ".2f"),
    Column("bits/el.", "bits_per_element", ".3f"),
    Column("dB float64", "float64_db", ".0f"),
    Column("dB cache", "reconstruction_db", ".1f"),
    Column("max error", "max_rel_error", ".2f"),
]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """An item: the keys or the values of some layers in one format.

    Attributes
    ----------
    kind : str
        ``"key"`` or ``"value"``.
    fmt : CacheFormat
    layers : tuple of int
        Empty: all.
    tokens : int
        Of the text; sinks and newest tokens among them are not packed.
    top : str
        Which of the engines.
    only : KvFormat or None
        Leave out blocks of other formats.
    """

    kind: str
    fmt: CacheFormat
    layers: tuple[int, ...] = FEW_LAYERS
    tokens: int = FEW_TOKENS
    top: str = TOP
    only: KvFormat | None = None


def _key(code: str, anomalous_code: str | None = None, transform: str = "none") -> CacheFormat:
    metadata = "q8" if "u2" in (code, anomalous_code) else "f6"
    return CacheFormat(key=KeyFormat(code=code, anomalous_code=anomalous_code, transform=transform, metadata=metadata))


def workloads() -> list[Workload]:
    """The default formats on all layers, then every other format and transform on some."""
    default = PRESETS["default"]
    stp = replace(default, value=replace(default.value, protected=0.2))
    everything = {"layers": (), "tokens": TOKENS}
    jobs = [
        Workload(kind="key", fmt=default, **everything),
        Workload(kind="value", fmt=default, **everything),
        Workload(kind="value", fmt=stp, only=KvFormat.V158, **everything),
        Workload(kind="value", fmt=stp, only=KvFormat.V2, **everything),
    ]
    codes = [("binary", None), ("s2", None), ("binary", "s2"), ("ternary", None)]
    for transform in ("none", "wht", "rfft"):
        top = RFFT_TOP if transform == "rfft" else TOP
        formats = [_key(*pair, transform) for pair in codes]
        jobs += [Workload(kind="key", fmt=fmt, top=top) for fmt in formats if fmt != default]
    jobs.append(Workload(kind="key", fmt=_key("u2")))
    jobs.append(Workload(kind="key", fmt=_key("binary", "u2", "wht")))
    jobs.append(Workload(kind="value", fmt=CacheFormat(value=ValueFormat(code="u2", metadata="q8"))))
    jobs += [Workload(kind=kind, fmt=PRESETS["vidkv"], top=RFFT_TOP) for kind in ("key", "value")]
    return jobs


@dataclass(frozen=True)
class _Packed:
    """Packets of an item: bytes and parsed, and what each was made from, float64 ``[rows, D]``."""

    packets: list[bytes]
    blocks: list[Block]
    originals: list[np.ndarray]


def _pack(job: Workload, kv: KV, protected: torch.Tensor) -> _Packed:
    layers = list(job.layers) or list(range(kv.k.shape[0]))
    keys, values = (x[layers, :, : job.tokens] for x in (kv.k, kv.v))
    cache = pack_cache(keys, values, job.fmt, protected=protected[: job.tokens] if job.fmt.value.protected else None)
    source, centres = (keys if job.kind == "key" else values).double().numpy(), _centres(cache)
    found = _Packed([], [], [])
    for number in np.flatnonzero(cache.index[:, 2] == KINDS.index(job.kind)):
        packet = cache.packet(number)
        block = unpack_block(packet)
        if job.only in (None, block.header.format):
            layer, head, _ = cache.index[number].tolist()
            found.packets.append(packet)
            found.blocks.append(block)
            centre = centres.get((layer, head), 0.0) if job.kind == "key" else 0.0
            found.originals.append(source[layer, head, block.tokens] - centre)
    return found


def _centres(cache: PackedCache) -> dict[tuple[int, int], np.ndarray]:
    return {
        (layer, head): block.scales.view(np.float16).astype(np.float64) for layer, head, block in cache.blocks("centre")
    }


def _label(blocks: list[Block]) -> tuple[str, str, str]:
    """(formats, transforms, metadata) as the headers have them."""
    header = blocks[0].header
    names = [header.format.name] + (["K1"] if header.segment1 else [])
    transforms = [header.transform0] + ([header.transform1] if header.segment1 else [])
    shown = [transform.name.lower() for transform in transforms]
    return "+".join(names), shown[0] if len(set(shown)) == 1 else "+".join(shown), header.metadata.name


def _run_item(built: Built, engine: KvEngineConfig, job: Workload, kv: KV, protected: torch.Tensor, seed: int) -> Item:
    packed = _pack(job, kv, protected)
    formats, transform, metadata = _label(packed.blocks)
    layers = len(job.layers) or kv.k.shape[0]
    elements = sum(block.codes.size for block in packed.blocks)
    item = Item(f"{formats} {transform} {metadata} {job.kind}s", expected=elements)
    item.more = {
        "format": f"{formats}, {metadata}",
        "transform": transform,
        "what": f"{job.kind[0].upper()}, {layers} layers" + (", STP" if job.only else ""),
        "layers": layers,
        "top": job.top,
        "lanes": engine.lanes,
        "blocks": len(packed.packets),
        "bits_per_element": 8 * sum(map(len, packed.packets)) / elements,
    }
    try:
        output = run_packets(built, engine, packed.packets, seed=seed)
    except SimulationError as error:
        item.more["error"] = str(error).splitlines()[0]
        return item
    item.compared, item.cycles = output.elements, output.cycles
    item.mismatches = mismatches(output, packed.blocks, engine)
    error, worst, exact = [], 0.0, []
    for block, original, values in zip(packed.blocks, packed.originals, output.values, strict=True):
        found = by_channel(values, block, engine)
        got = found.astype(np.float64)
        error.append(original - got)
        worst = max(worst, float(np.abs(error[-1]).max() / np.abs(original).max()))
        exact.append(float64_values(block) - got)
    signal = np.concatenate(packed.originals)
    arithmetic = decibels(signal, np.concatenate(exact))
    item.max_rel_error = worst
    item.more |= {
        "elements_per_cycle": output.elements / output.cycles,
        "reconstruction_db": decibels(signal, np.concatenate(error)),
        "float64_db": None if math.isinf(arithmetic) else arithmetic,
        "simulated_cycles_per_second": output.cycles / output.seconds,
    }
    return item


def run_kv(
    out_dir: Path,
    seed: int,
    *,
    jobs: list[Workload] | None = None,
    engines: dict[str, KvEngineConfig] | None = None,
    verilog: dict[str, Path] | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> Section:
    """Pack keys and values, run the packets through the simulated engines and compare every element bit for bit.

    Parameters
    ----------
    out_dir : Path
        Where the Verilog goes.
    seed : int
        Start values of registers and memories.
    jobs : list of Workload, optional
        As :func:`workloads` gives them.
    engines : dict, optional
        Top -> what it is built for; default: those of preset ``paper``.
    verilog : dict, optional
        Top -> file to simulate instead of a newly generated one.
    progress : callable
        Told what comes next.
    """
    jobs = workloads() if jobs is None else jobs
    engines = SYSTEMS["paper"].kv_engines if engines is None else engines
    section = Section("kv", f"{MODEL_NAME}: packed keys and values through the KV dequant engine", COLUMNS)
    built = {}
    for top in dict.fromkeys(job.top for job in jobs):
        progress(f"building the simulator of {top} ({engines[top].lanes} lanes)")
        source = (verilog or {}).get(top) or emit_engine(engines[top], out_dir / "verilog", top).path_v
        built[top] = build(source, top)
        section.verilog_sha256[top] = hashlib.sha256(source.read_bytes()).hexdigest()
    progress("capturing keys and values")
    tokens = max(job.tokens for job in jobs)
    kv = capture_kv(tokens)
    layer = "model.layers.0.self_attn.q_proj"
    hidden = capture_activations([layer], tokens)[layer]
    share = max(job.fmt.value.protected for job in jobs)
    protected = protected_tokens(protection_scores(hidden.double(), hidden[-QUERIES:].double()), share)
    for number, job in enumerate(jobs, 1):
        progress(f"kv {number}/{len(jobs)}: {job.kind}s")
        section.items.append(_run_item(built[job.top], engines[job.top], job, kv, protected, seed))
    keys, values = effective_bits(PRESETS["default"], kv.k.shape[-1])
    section.notes = [
        "dB cache and max error compare with the original cache, keys without the free centre: 10 log10 of the energy "
        "of the signal over that of the error; the largest error over the largest magnitude of its block. dB float64 "
        "is the engine's own arithmetic against float64 on the same codes and scales, FP16 rounding included (- is "
        f"exact). STP: blocks with bitmaps, a fifth of the tokens protected by the hidden states of the newest "
        f"{QUERIES}.",
        f"{engines[TOP].lanes} lanes"
        + (f", with rfft {engines[RFFT_TOP].lanes}" if RFFT_TOP in built else "")
        + f". Bits count everything in a block; in a long cache the default format has {keys:.3f} and {values:.3f}. "
        f"Text: pydoc_data.topics, SHA-256 {text_hash()[:12]}.",
    ]
    return section

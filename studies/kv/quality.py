"""``python -m studies eval``: what caches keep of a model's quality, per bit that they store, on several texts.

Protocol: teacher-forced over windows of each text; sinks and newest tokens exact, older ones through the format
(`golden.kv.attention`). "Kept" is the share that a format recovers of the perplexity that dropping old tokens loses.
Plans are calibrated on the texts' ends and evaluated on their beginnings. ``in-domain``: the text's own end is among
the calibration's; ``out-of-domain``: only the ends of the others are.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from golden.alloc.calibrate import RECENT, SINKS, Moments, calibrate
from golden.alloc.model import open_model
from golden.alloc.plan import Plan, make_plan
from golden.alloc.planes import DISTORTION, STEPS
from golden.alloc.rotation import rotation, widths
from golden.alloc.texts import TEXTS, text_digest, windows
from golden.document import write_between_markers
from golden.kv.attention import Old, cached_attention
from golden.kv.bits import effective_bits
from golden.kv.config import PRESETS
from golden.kv.evaluate import jackknife, kept_share, make_old
from golden.llm import MODEL_NAME, token_losses
from shell.console import progress_bar, say
from shell.output import write_file

__all__ = ["MARKERS", "evaluate", "rows", "table"]

MARKERS = "<!-- kv quality: make eval -->", "<!-- end of kv quality -->"
OUT = Path("build/eval")
TOKENS = 1536
MakeOld = Callable[..., Old]


@dataclass(frozen=True)
class Row:
    """A cache that is evaluated: its name, bits per element with everything counted, and how old tokens are read.

    ``old(text)`` gives it for a text, since an out-of-domain plan is another for each.
    """

    name: str
    bits: float
    calibration: str | None
    old: Callable[[str], MakeOld]


def planes(plan: Plan) -> MakeOld:
    """Old tokens as a plan stores them."""

    def old(layer, _q, k, v) -> Old:
        pair = plan.stored(layer, "keys", k), plan.stored(layer, "values", v)
        return lambda _first: pair

    return old


def alike(plan: Plan, moments: Moments, bits: float) -> Plan:
    """The same rotations and scales with one width for every channel of every head but for the fraction's share."""
    turned = rotation(moments, within=plan.scales != "plan")
    heads = turned.loss.flatten(0, 2)
    chosen = torch.stack([widths(head, bits, DISTORTION) for head in heads / heads[:, :1]]).view_as(plan.widths)
    steps = torch.tensor(STEPS, dtype=torch.float64)[chosen.long()] * turned.deviation
    return replace(plan, widths=chosen, steps=steps.float())


def rows(moments: dict[str | None, Moments], identity: str) -> list[Row]:
    """All rows. ``moments``: of all texts under None, and of all texts but one under its name."""

    def plan(bits: float, scales: str, left_out: str | None = None) -> Plan:
        return make_plan(moments[left_out], bits, scales=scales, identity=identity, texts={})

    coded = TOKENS - SINKS
    found = [
        Row("FP16 cache", 16.0, None, lambda _text: make_old(PRESETS["fp16"])),
        Row("old tokens dropped", 0.0, None, lambda _text: make_old(None)),
    ]
    for name, title in (
        ("kivi", "KIVI-like: 2-bit min/max, G 32"),
        ("vidkv", "VidKV corrected: 1.5-bit keys, 1.58-bit values"),
        ("default", "block formats, default: 1.5-bit keys, ternary values"),
        ("keys-s2-attention", "block formats, 2-bit keys, rounded for attention"),
    ):
        fmt = PRESETS[name]
        found.append(Row(title, sum(effective_bits(fmt, 64)) / 2, None, lambda _text, fmt=fmt: make_old(fmt)))
    cases = [(bits, "group") for bits in (0.75, 1.0, 1.25, 1.5, 2.0, 3.0)]
    cases += [(1.5, "sequence"), (1.0, "plan"), (1.5, "plan"), (2.0, "plan")]
    for bits, scales in cases:
        made = plan(bits, scales)
        size = sum(made.effective_bits(coded)) / 2
        found.append(Row(f"planes, {bits:g} bits, {scales} scales", size, "in-domain", lambda _text, p=made: planes(p)))
    for scales in ("group", "plan"):
        size = sum(plan(1.5, scales).effective_bits(coded)) / 2
        title = f"planes, 1.5 bits, {scales} scales, other texts"
        found.append(Row(title, size, "out-of-domain", lambda text, s=scales: planes(plan(1.5, s, text))))
    same = alike(plan(1.5, "group"), moments[None], 1.5)
    size = sum(same.effective_bits(coded)) / 2
    found.append(Row("planes, 1.5 bits for every head alike", size, "in-domain", lambda _text: planes(same)))
    return found


class _Losses:
    """Mean losses per row and window on disk, by hash of everything that they depend on."""

    def __init__(self, path: Path, key: dict):
        self._path, self._key = path, key
        self._found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, row: Row, old: MakeOld, ids: torch.Tensor) -> float:
        what = self._key | {"row": row.name, "bits": row.bits, "ids": hashlib.sha256(ids.numpy().tobytes()).hexdigest()}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        if key not in self._found:
            with cached_attention(old, sinks=SINKS, recent=RECENT):
                self._found[key] = token_losses(ids).mean().item()
            write_file(self._path, json.dumps(self._found, indent=0).encode())
        return self._found[key]


def evaluate(texts: Sequence[str], count: int, out: Path = OUT) -> list[dict]:
    """Entries for ``build/eval/report.json``, one per row and text and one per row for all texts together.

    Parameters
    ----------
    texts : sequence of str
        Names or files; at least two, since each is left out once.
    count : int
        Windows of :data:`TOKENS` tokens per text, for calibration and for evaluation.
    """
    if len(texts) < 2:
        raise ValueError(f"texts must be at least two, not {', '.join(texts)}")
    model, tokenizer, identity = open_model(MODEL_NAME)
    ends = {text: windows(text, tokenizer, count, TOKENS, last=True) for text in texts}
    starts = {text: windows(text, tokenizer, count, TOKENS) for text in texts}
    options = {"identity": identity, "cache_dir": out / "moments"}
    with progress_bar("calibrating", len(texts) * count) as advance:
        every = [ids for text in texts for ids in ends[text]]
        moments = {None: calibrate(model, every, progress=advance, **options)}
    for text in texts:
        others = [ids for other in texts if other != text for ids in ends[other]]
        moments[text] = calibrate(model, others, **options)
    digests = {text: text_digest(text) for text in texts}
    key = {"checkpoint": identity, "texts": digests, "count": count, "step": STEPS, "protocol": 1}
    losses, found = _Losses(out / "losses.json", key), rows(moments, identity)
    lost: dict[str, dict[str, list[float]]] = {}
    with progress_bar("evaluating", len(found) * len(texts) * count) as advance:
        for row in found:
            lost[row.name] = {text: [] for text in texts}
            for text in texts:
                old = row.old(text)
                for ids in starts[text]:
                    lost[row.name][text].append(losses.of(row, old, ids))
                    advance(f"{row.name}, {text}")
    return [entry for row in found for entry in _entries(row, lost, texts)]


def _entries(row: Row, lost: dict[str, dict[str, list[float]]], texts: Sequence[str]) -> list[dict]:
    entries = []
    for text in texts:
        own = lost[row.name][text]
        share, error = jackknife(kept_share, own, lost["FP16 cache"][text], lost["old tokens dropped"][text])
        perplexity = math.exp(sum(own) / len(own))
        entries.append({"text": text, "kept": share, "kept_error": error, "perplexity": perplexity, "losses": own})
    shares = [entry["kept"] for entry in entries]
    errors = [entry["kept_error"] or 0.0 for entry in entries]
    mean = {"text": "mean", "kept": sum(shares) / len(shares), "perplexity": None}
    mean["kept_error"] = math.sqrt(sum(error**2 for error in errors)) / len(errors)
    common = {"format": row.name, "model": MODEL_NAME, "bits_effective": row.bits, "calibration": row.calibration}
    return [common | entry for entry in [*entries, mean]]


def table(entries: Sequence[dict], texts: Sequence[str]) -> str:
    """Markdown: a row per format, kept per text and on average."""
    lines = [
        "| format | bits per element | " + " | ".join(texts) + " | mean kept |",
        "|---|---:|" + "---:|" * (len(texts) + 1),
    ]
    by_row = {}
    for entry in entries:
        by_row.setdefault(entry["format"], {})[entry["text"]] = entry
    for name, found in by_row.items():
        bits = found["mean"]["bits_effective"]
        cells = [f"{100 * found[t]['kept']:.0f}%" for t in texts]
        cells.append(f"{100 * found['mean']['kept']:.0f}% ± {100 * found['mean']['kept_error']:.0f}")
        if name in ("FP16 cache", "old tokens dropped"):
            cells = [f"{found[t]['perplexity']:.2f}" for t in texts] + ["perplexities"]
        lines.append(f"| {name} | {bits:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(entries: Sequence[dict], path: Path) -> None:
    """Mean kept against bits per element: plans' scales as lines, other formats as points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    means = [entry for entry in entries if entry["text"] == "mean" and entry["bits_effective"] not in (0.0, 16.0)]
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in means:
        name, place = entry["format"], (entry["bits_effective"], 100 * entry["kept"])
        if name.startswith("planes") and name.endswith("scales"):
            lines.setdefault(f"planes, {name.split(', ')[-1]}", []).append(place)
        else:
            axes.errorbar(*place, yerr=100 * entry["kept_error"], fmt="o", label=name, capsize=2)
    for name, places in lines.items():
        axes.plot(*zip(*sorted(places), strict=True), marker=".", label=name)
    axes.set(xlabel="bits per element, everything stored counted", ylabel="kept, %", ylim=(0, 105))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)
    write_file(path, _svg(figure))


def _svg(figure) -> bytes:
    """The same bytes for the same figure."""
    import io

    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "bitmosaic"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def eval(
    texts: Annotated[list[str] | None, typer.Option(help="Texts by name or file; default: the four of docs.")] = None,
    count: Annotated[int, typer.Option("--windows", min=1, help="Windows of each text.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the report and of what is remembered.")] = OUT,
    document: Annotated[Path | None, typer.Option(help="Document whose table between markers to replace.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Where a plot goes (SVG); default: beside the report.")] = None,
) -> None:
    """Evaluate KV cache formats and plans on real texts."""
    sources = texts or list(TEXTS)
    entries = evaluate(sources, count, out)
    write_file(out / "report.json", (json.dumps({"kv": entries}, indent=1) + "\n").encode())
    plot(entries, figure or out / "kept.svg")
    text = table(entries, sources)
    hashes = ", ".join(f"{source} {text_digest(source)[:12]}" for source in sources)
    text += (
        f"\n{MODEL_NAME}, {count} x {TOKENS} tokens of each text ({hashes}); first {SINKS} and newest {RECENT} exact.\n"
    )
    if document is not None:
        write_between_markers(document, text, MARKERS)
    say(text)
    say(f"report: {out / 'report.json'}")

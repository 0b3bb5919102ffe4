"""Perplexity of SmolLM2 under KV cache formats: ``python -m golden.kv.evaluate``.

Protocol: teacher-forced over windows of real text; token t sees sinks and newest tokens exactly and older ones through
the format (`golden.kv.attention`); all layers, keys and values at once, each layer quantizing what it gets from the
layers below. "Kept" is the share that a format recovers of the perplexity lost by dropping the old tokens altogether.
Results are kept by hash of format, text and checkpoint, so a second run only evaluates what is new.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from golden.document import write_between_markers
from golden.kv.attention import Old, cached_attention
from golden.kv.bits import effective_bits
from golden.kv.config import PRESETS, CacheFormat
from golden.kv.moments import model_moments
from golden.kv.quantized import old_keys, old_values
from golden.kv.released import ReleasedCache
from golden.kv.table import MARKERS, PAIRS, ROWS, table
from golden.llm.capture import capture_kv
from golden.llm.checkpoint import checkpoint_hash
from golden.llm.perplexity import token_losses
from golden.llm.text import text_hash, text_tokens
from shell.output import write_file

__all__ = ["DROPPED", "evaluate", "jackknife", "kept_share", "main", "make_old", "window_loss"]

DROPPED = "dropped"
"""Name of the row in which old tokens are not kept at all."""
OUT = Path("build/kv")
HEAD_DIM = 64
TIMED_LAYER, TIMED_TOKENS = 14, 784
PROTOCOL = 1
"""Changes when the same format would give another result."""


def make_old(fmt: CacheFormat | None) -> Callable[..., Old]:
    """How old tokens are read through a format, for `cached_attention`; None drops them."""
    refined = fmt is not None and "attention" in (fmt.key.rounding, fmt.value.rounding)
    moments = model_moments() if refined else None

    def plain(layer, _q, k, v) -> Old:
        key_moment, value_moment = moments[layer] if moments else (None, None)
        keys = old_keys(k, fmt, key_moment)
        values = old_values(v, fmt, _protected(fmt, k.shape[1]), value_moment)
        return lambda _first: (keys, values)

    def released(_layer, _q, k, v) -> Old:
        cache, packed = ReleasedCache(fmt), 0

        def at(first: int) -> tuple[torch.Tensor, torch.Tensor]:
            nonlocal packed
            if first > packed:
                cache.flush(k[:, packed:first], v[:, packed:first])
                packed = first
            return cache.keys.float(), cache.values.float()

        return at

    if fmt is None:
        return lambda *_: None
    return released if fmt.mode == "released" else plain


def _protected(fmt: CacheFormat, tokens: int) -> torch.Tensor | None:
    """Plain text has no queries about a video, so tokens are protected at random: a floor for what scores would do."""
    if not fmt.value.protected:
        return None
    return torch.rand(tokens, generator=torch.Generator().manual_seed(0)) < fmt.value.protected


def window_loss(fmt: CacheFormat | None, start: int, tokens: int, sinks: int = 16, recent: int = 128) -> float:
    """Mean loss, nats per token, of one window of the text; `fmt` None drops old tokens.

    `sinks` and `recent` are used for None; a format brings its own.
    """
    if fmt is not None:
        sinks, recent = fmt.sinks, fmt.recent
    with cached_attention(make_old(fmt), sinks=sinks, recent=recent):
        return token_losses(text_tokens(tokens, start)).mean().item()


class _Results:
    """Losses per (format, window) on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def loss(self, fmt: CacheFormat | None, start: int, tokens: int) -> float:
        what = {"format": fmt and asdict(fmt), "start": start, "tokens": tokens, "protocol": PROTOCOL}
        what |= {"checkpoint": checkpoint_hash(), "text": text_hash()}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        if key not in self._found:
            self._found[key] = window_loss(fmt, start, tokens)
            write_file(self._path, json.dumps(self._found, indent=0).encode())
        return self._found[key]


def evaluate(
    formats: dict[str, CacheFormat], windows: int, tokens: int = 1536, out: Path = OUT, console: Console | None = None
) -> dict:
    """Perplexity of each format, of the FP16 cache and of dropping old tokens.

    Returns
    -------
    dict
        ``protocol`` (hashes, window starts); ``rows``: name, bits of keys and values, perplexity, kept, its standard
        error over the windows (None for one window), seconds of quantizing, and the losses per window; ``pairs``: by
        how much more one format keeps than another, window by window.
    """
    results = _Results(Path(out) / "losses.json")
    starts = [i * tokens for i in range(windows)]
    entries: dict[str, CacheFormat | None] = {"fp16": PRESETS["fp16"], DROPPED: None, **formats}
    losses: dict[str, list[float]] = {}
    with Progress(console=console or Console(stderr=True)) as progress:
        task = progress.add_task("perplexity", total=len(entries) * windows)
        for name, fmt in entries.items():
            progress.update(task, description=f"perplexity: {name}")
            losses[name] = []
            for start in starts:
                losses[name].append(results.loss(fmt, start, tokens))
                progress.advance(task)
    exact, dropped = losses["fp16"], losses[DROPPED]
    rows = [_row(name, fmt, losses[name], exact, dropped) for name, fmt in entries.items()]
    pairs = []
    for better, plain in PAIRS.items():
        if better in losses and plain in losses:
            gain, error = jackknife(
                lambda new, old, *ends: kept_share(new, *ends) - kept_share(old, *ends),
                losses[better],
                losses[plain],
                exact,
                dropped,
            )
            pairs.append({"name": better, "than": plain, "gain": gain, "error": error})
    protocol = {
        "text_sha256": text_hash(),
        "checkpoint_sha256": checkpoint_hash(),
        "tokens": tokens,
        "starts": starts,
        "sinks": PRESETS["default"].sinks,
        "recent": PRESETS["default"].recent,
        "torch": torch.__version__,
    }
    return {"protocol": protocol, "rows": rows, "pairs": pairs}


def kept_share(loss: float, exact: float, dropped: float) -> float:
    """What a format recovers of the perplexity that dropping loses, all three as losses in nats."""
    ppl, low, high = (math.exp(x) for x in (loss, exact, dropped))
    return (high - ppl) / (high - low)


def jackknife(function: Callable[..., float], *losses: list[float]) -> tuple[float, float | None]:
    """`function` of the means of ``losses`` over windows (a ratio), and its standard error; None for one window."""

    def without(left_out: int | None) -> float:
        chosen = [[x for j, x in enumerate(values) if j != left_out] for values in losses]
        return function(*(sum(values) / len(values) for values in chosen))

    n = len(losses[0])
    if n == 1:
        return without(None), None
    parts = [without(i) for i in range(n)]
    return without(None), math.sqrt((n - 1) / n * sum((x - sum(parts) / n) ** 2 for x in parts))


def quantizing_seconds(fmt: CacheFormat | None) -> float | None:
    """Processor time per token to quantize keys and values of one layer of a real prefill; None where nothing is."""
    if fmt is None or fmt.mode == "released" or fmt.key.code == fmt.value.code == "fp16":
        return None
    kv = capture_kv(TIMED_TOKENS)
    old = make_old(fmt)
    start = time.process_time()
    old(TIMED_LAYER, None, kv.k[TIMED_LAYER], kv.v[TIMED_LAYER])
    return (time.process_time() - start) / TIMED_TOKENS


def _row(name: str, fmt: CacheFormat | None, losses: list[float], exact: list[float], dropped: list[float]) -> dict:
    kept, error = jackknife(kept_share, losses, exact, dropped)
    keys, values = (0.0, 0.0) if fmt is None else effective_bits(fmt, HEAD_DIM)
    return {
        "name": name,
        "bits_keys": keys,
        "bits_values": values,
        "perplexity": math.exp(sum(losses) / len(losses)),
        "perplexity_first_window": math.exp(losses[0]),
        "kept": kept,
        "kept_error": error,
        "quantizing_seconds": quantizing_seconds(fmt),
        "losses": losses,
        "format": None if fmt is None else asdict(fmt),
    }


def main(argv: list[str] | None = None) -> None:
    """Evaluate the formats of the documentation's table; write the report and, with ``--docs``, the table."""
    parser = argparse.ArgumentParser(prog="python -m golden.kv.evaluate", description=main.__doc__)
    parser.add_argument("--windows", type=int, default=4, help="windows of text (default 4)")
    parser.add_argument("--tokens", type=int, default=1536, help="tokens per window (default 1536)")
    parser.add_argument(
        "--formats",
        nargs="+",
        metavar="NAME",
        default=[name for name in ROWS if name in PRESETS],
        help="presets to evaluate",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the report (default build/kv)")
    parser.add_argument("--docs", type=Path, help="document whose table between markers to replace")
    options = parser.parse_args(argv)
    unknown = [name for name in options.formats if name not in PRESETS]
    if unknown:
        parser.error(f"--formats must be among {', '.join(PRESETS)}, not {', '.join(unknown)}")
    for name in ("windows", "tokens"):
        if getattr(options, name) < (1 if name == "windows" else 2):
            parser.error(f"--{name} must be at least {1 if name == 'windows' else 2}, not {getattr(options, name)}")
    formats = {name: PRESETS[name] for name in options.formats if name != "fp16"}
    report = evaluate(formats, options.windows, options.tokens, options.out)
    text = table(report)
    write_file(options.out / "perplexity.json", json.dumps(report, indent=1).encode())
    write_file(options.out / "perplexity.md", text.encode())
    if options.docs:
        write_between_markers(options.docs, text, MARKERS)
    print(text)


if __name__ == "__main__":
    main()

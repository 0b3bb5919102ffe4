"""Real activations and KV caches of SmolLM2 over real text, in FP16, cached on disk.

One forward pass in float32 over the first n tokens of the text; what is captured is rounded once to FP16 (nearest
even, saturating at 65504). Files are safetensors under ``build/data``; their metadata hold the format version, the
hashes of checkpoint and text, the options and the hash of the payload. A file is re-used when its key matches, and
its payload hash is checked each time, so results on two machines can be compared by comparing hashes.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import safe_open

from golden.llm.checkpoint import MODEL_NAME, checkpoint_hash, context_length, layer_names, load_model
from golden.llm.store import payload_hash
from golden.llm.text import CACHE_DIR, text_hash, text_tokens
from shell.output import write_file
from spec import checks

FORMAT = "bitmosaic-capture"
VERSION = "1.0"
FP16_MAX = 65504.0


@dataclass(frozen=True)
class KV:
    """Post-RoPE keys and queries, and values, of every layer; FP16.

    Attributes
    ----------
    k, v : torch.Tensor
        ``[layers, kv_heads, tokens, head_dim]``
    q : torch.Tensor
        ``[layers, heads, tokens, head_dim]``; head h reads KV head ``h // (heads // kv_heads)``.
    metadata : dict[str, str]
        Provenance: hashes of checkpoint, text and payload.
    """

    k: torch.Tensor
    v: torch.Tensor
    q: torch.Tensor
    metadata: dict[str, str]


class _PassDone(Exception):
    """Everything asked for is captured: the rest of the forward pass is not needed."""


def to_fp16(x: torch.Tensor) -> torch.Tensor:
    """Round to FP16, nearest even, saturating at +-65504; NaN raises `ValueError`."""
    if torch.isnan(x).any():
        raise ValueError("the captured tensor holds NaN")
    return x.clamp(-FP16_MAX, FP16_MAX).to(torch.float16)


def capture_activations(
    layers: list[str], tokens: int = 512, start: int = 0, cache_dir: Path = CACHE_DIR
) -> dict[str, torch.Tensor]:
    """Inputs of linear layers over ``tokens`` tokens of real text.

    Parameters
    ----------
    layers : list[str]
        Names as `layer_names` gives them, for example ``"model.layers.0.self_attn.q_proj"``.
    tokens : int
        Tokens of the forward pass, 1 to the model's context of 8192.
    start : int
        First token of the text.

    Returns
    -------
    dict[str, torch.Tensor]
        Layer -> FP16 ``[tokens, in]``.

    Raises
    ------
    ValueError
        Unknown layer or token range.
    """
    known = set(layer_names())
    for name in layers:
        if name not in known:
            raise ValueError(f"layers holds {name!r}, which is no linear layer of {MODEL_NAME}; see layer_names()")
    if not layers:
        raise ValueError("layers must name at least one linear layer, not []")
    wanted = sorted(set(layers))

    def run() -> dict[str, torch.Tensor]:
        model, got = load_model(), {}

        def hook(name):
            def take(_module, inputs):
                got[name] = to_fp16(inputs[0][0])
                if len(got) == len(wanted):
                    raise _PassDone

            return take

        handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in wanted]
        try:
            _forward(text_tokens(tokens, start, cache_dir), "activations", head="lm_head" in wanted)
        finally:
            for handle in handles:
                handle.remove()
        return {name: got[name].contiguous() for name in wanted}

    options = {"kind": "activations", "layers": wanted, "tokens": _checked_tokens(tokens), "start": start}
    found, _ = _cached(options, run, cache_dir)
    return {name: found[name] for name in layers}


def capture_kv(tokens: int = 1536, start: int = 0, cache_dir: Path = CACHE_DIR) -> KV:
    """Keys and queries after rotary embedding, and values, of all layers over real text; see `KV`."""

    def run() -> dict[str, torch.Tensor]:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        model, got = load_model(), {"k": [], "v": [], "q": []}
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]

        def attention(module, query, key, value, *args, **kwargs):
            for name, x in (("q", query), ("k", key), ("v", value)):
                got[name].append(to_fp16(x[0]))
            return sdpa(module, query, key, value, *args, **kwargs)

        with attention_function(model, "bitmosaic_capture", attention):
            _forward(text_tokens(tokens, start, cache_dir), "keys and values", head=False)
        return {name: torch.stack(parts).contiguous() for name, parts in got.items()}

    options = {"kind": "kv", "tokens": _checked_tokens(tokens), "start": start}
    found, metadata = _cached(options, run, cache_dir)
    return KV(**found, metadata=metadata)


class attention_function:
    """Context in which every attention layer of `model` calls `function` (the transformers attention interface)."""

    def __init__(self, model: torch.nn.Module, name: str, function: Callable) -> None:
        from transformers import AttentionInterface
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
        self._model, self._name = model, name

    def __enter__(self) -> None:
        self._before = self._model.config._attn_implementation
        self._model.config._attn_implementation = self._name

    def __exit__(self, *_exc) -> None:
        self._model.config._attn_implementation = self._before


def _checked_tokens(tokens: int) -> int:
    checks.whole("tokens", tokens, 1, context_length())
    return tokens


def _forward(ids: torch.Tensor, what: str, *, head: bool) -> None:
    """One forward pass with a progress bar over the blocks; ends early on `_PassDone`."""
    model = load_model()
    blocks = model.model.layers
    with Progress(console=Console(stderr=True), transient=True) as progress, torch.no_grad():
        task = progress.add_task(f"{MODEL_NAME}: capturing {what}, {len(ids)} tokens", total=len(blocks))
        handles = [block.register_forward_hook(lambda *_: progress.advance(task)) for block in blocks]
        try:
            (model if head else model.model)(ids[None], use_cache=False)
        except _PassDone:
            pass
        finally:
            for handle in handles:
                handle.remove()


def _cached(options: dict, run: Callable[[], dict], cache_dir: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of an earlier capture with the same key, or of a new one."""
    key = {"format": FORMAT, "version": VERSION, "checkpoint": checkpoint_hash(), "text": text_hash(), **options}
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(cache_dir) / f"{options['kind']}-{name}.safetensors"
    if path.exists():
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata()
            found = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118 (no mapping)
        if json.loads(metadata["key"]) == key and metadata["payload"] == payload_hash(found):
            return found, metadata
    found = run()
    metadata = {"key": json.dumps(key, sort_keys=True), "payload": payload_hash(found), "torch": torch.__version__}
    write_file(path, safetensors.torch.save(found, metadata=metadata))
    return found, metadata

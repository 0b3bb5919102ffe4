"""What the loss says about a cache: moments of gradients and of vectors, by back-propagation through a model.

A window of text goes through the model as it would with a cache: sinks and newest tokens are read exactly, older ones
from the cache (`golden.kv.attention`). The gradient g of the summed loss in a vector that is read *as an old one* tells
what an error e there costs: to second order, and with the gradients' second moment for the curvature (Fisher's),
``e G e / 2`` with ``G = E[g g^T]``. No labels are needed but the text itself.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from golden.kv.attention import cached_attention
from golden.llm.store import payload_hash
from golden.tensor_file import TensorFile
from shell.output import write_file
from spec import checks

__all__ = ["KINDS", "RECENT", "SINKS", "Moments", "calibrate"]

KINDS = ("keys", "values")
SINKS, RECENT = 16, 128
CACHE = Path("build/alloc")
_VERSION = "2"
_LOGITS = 256  # tokens whose logits are in memory at a time


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over windows, float64; the axis of 2 is keys, values.

    Attributes
    ----------
    gradients : torch.Tensor
        Mean of g g^T over old tokens, ``[2, layers, kv_heads, D, D]``.
    mean : torch.Tensor
        Of the vectors themselves, sinks left out, ``[2, layers, kv_heads, D]``.
    covariance : torch.Tensor
        About that mean, ``[2, layers, kv_heads, D, D]``.
    within : torch.Tensor
        Covariance about each window's own mean, of the same shape: what is left where a sequence stores its mean.
    """

    gradients: torch.Tensor
    mean: torch.Tensor
    covariance: torch.Tensor
    within: torch.Tensor


def calibrate(
    model: torch.nn.Module,
    windows: Sequence[torch.Tensor],
    *,
    identity: str,
    sinks: int = SINKS,
    recent: int = RECENT,
    cache_dir: Path = CACHE,
    progress: Callable[[str], None] = lambda what: None,
) -> Moments:
    """Moments of a causal LM of transformers over windows of tokens; what is done is kept, window by window.

    Parameters
    ----------
    model : torch.nn.Module
        Any with ``model`` and ``lm_head`` whose attention goes through transformers' attention interface: rotary
        embedding and query groups included. Its parameters get no gradients.
    windows : sequence of int64 tensors [tokens]
        More than ``sinks + recent`` tokens each.
    identity : str
        Hash of the checkpoint: with the tokens it is the key of what is kept.
    progress : callable
        Told of each window that is done.

    Raises
    ------
    ValueError
        No window, a short one, or a model whose gradients or vectors are not finite.
    """
    checks.whole("number of windows", len(windows), 1)
    parts = []
    for number, ids in enumerate(windows):
        checks.whole(f"tokens of window {number}", len(ids), sinks + recent + 1)
        key = {"version": _VERSION, "model": identity, "sinks": sinks, "recent": recent}
        key["tokens"] = hashlib.sha256(ids.numpy().tobytes()).hexdigest()
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        parts.append(
            _kept(Path(cache_dir) / f"moments-{name}.safetensors", lambda i=ids: _window(model, i, sinks, recent))
        )
        progress(f"window {number + 1} of {len(windows)}")
    total = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    if not all(bool(torch.isfinite(sums).all()) for sums in total.values()):
        raise ValueError("the calibration's gradients or vectors are not finite: the model overflows on this text")
    old, vectors = total["old"].sum(), total["vectors"].sum()
    mean = total["sum"].sum(0) / vectors
    means = total["sum"] / total["vectors"].reshape(-1, 1, 1, 1, 1)
    squares = total["squares"].sum(0) / vectors
    share = (total["vectors"] / vectors).reshape(-1, 1, 1, 1, 1, 1)
    outer = mean[..., :, None] * mean[..., None, :]
    own = (share * means[..., :, None] * means[..., None, :]).sum(0)
    return Moments(total["gradients"].sum(0) / old, mean, squares - outer, squares - own)


def _kept(path: Path, run: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    if path.exists():
        file = TensorFile(path, "file of moments")
        found = {name: file.read(name) for name in file.tensors}
        if file.metadata.get("payload") == payload_hash(found):
            return found
    found = run()
    write_file(path, safetensors.torch.save(found, metadata={"payload": payload_hash(found)}))
    return found


def _window(model: torch.nn.Module, ids: torch.Tensor, sinks: int, recent: int) -> dict[str, torch.Tensor]:
    """Sums of one window."""
    vectors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    errors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def old(layer, _q, k, v):
        vectors[layer] = k.detach(), v.detach()
        # Not the vectors detached: an error here changes what later layers store, too.
        errors[layer] = tuple(torch.zeros_like(x, requires_grad=True) for x in (k, v))
        pair = k + errors[layer][0], v + errors[layer][1]
        return lambda _first: pair

    with torch.enable_grad(), cached_attention(old, sinks=sinks, recent=recent, model=model):
        hidden = model.model(ids[None], use_cache=False).last_hidden_state[0]
        top = hidden.detach().requires_grad_(True)
        for begin in range(0, len(ids) - 1, _LOGITS):
            end = min(begin + _LOGITS, len(ids) - 1)
            logits = torch.log_softmax(model.lm_head(top[begin:end]), -1)
            (-logits.gather(1, ids[begin + 1 : end + 1, None]).sum()).backward()
        hidden.backward(top.grad)
    layers = range(len(vectors))
    x = torch.stack([torch.stack([vectors[i][j] for i in layers]) for j in (0, 1)]).double()[..., sinks:, :]
    g = torch.stack([torch.stack([errors[i][j].grad for i in layers]) for j in (0, 1)]).double()
    g = g[..., sinks : len(ids) - recent, :]
    return {
        "gradients": g.mT @ g,
        "sum": x.sum(-2),
        "squares": x.mT @ x,
        "old": torch.tensor([float(g.shape[-2])], dtype=torch.float64),
        "vectors": torch.tensor([float(x.shape[-2])], dtype=torch.float64),
    }

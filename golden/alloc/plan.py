"""Plan files: for every KV head of a model its rotation, widths, steps and mean. Safetensors with checked metadata."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from golden.alloc.calibrate import KINDS, RECENT, SINKS, Moments
from golden.alloc.planes import DISTORTION, MOST_BITS, STEPS, codes, row_bytes, values
from golden.alloc.rotation import rotation, widths
from golden.llm.store import payload_hash
from golden.tensor_file import TensorFile, sorted_header
from shell.output import write_file
from spec import checks

__all__ = ["GROUP", "SCALES", "Plan", "PlanError", "load_plan", "make_plan", "save_plan"]

SCALES = ("plan", "sequence", "group")
"""What is fixed when: all by the plan; mean and steps by a sequence's prefill; steps anew every `GROUP` tokens."""
GROUP = 128
FORMAT, VERSION = "bitmosaic.plan", "1.0"
_FACTOR_BITS, _FACTOR_ZERO, _PER_OCTAVE = 4, 8, 4


class PlanError(ValueError):
    """A plan that is damaged, or not for this."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A KV cache's formats, head by head.

    Attributes
    ----------
    forward, backward : float32 ``[2, layers, kv_heads, D, D]``
        ``z = (x - mean) forward``, ``x = z backward + mean``; the axis of 2 is keys, values.
    mean : float32 ``[2, layers, kv_heads, D]``
    widths : uint8, of the same shape
        0..4, descending in every head.
    steps : float32, of the same shape
        Steps of the codes under ``scales == "plan"``; else what the factors of a sequence or group multiply.
    scales : str
        One of :data:`SCALES`.
    identity : str
        Hash of the checkpoint that it was made for.
    texts : dict of str to str
        Calibration texts and their hashes.
    sinks, recent : int
        Tokens that stay exact.
    """

    forward: torch.Tensor
    backward: torch.Tensor
    mean: torch.Tensor
    widths: torch.Tensor
    steps: torch.Tensor
    scales: str
    identity: str
    texts: dict[str, str]
    sinks: int = SINKS
    recent: int = RECENT

    def __post_init__(self):
        checks.choice("scales", self.scales, SCALES)
        shape = tuple(self.mean.shape)
        if len(shape) != 4 or shape[0] != 2:
            raise PlanError(f"mean must be [2, layers, kv_heads, D], not {list(shape)}")
        wanted = {"forward": (*shape, shape[-1]), "backward": (*shape, shape[-1]), "widths": shape, "steps": shape}
        for name, size in wanted.items():
            if tuple(getattr(self, name).shape) != size:
                raise PlanError(f"{name} must be {list(size)}, not {list(getattr(self, name).shape)}")
        for name in ("forward", "backward", "mean", "steps"):
            if not torch.isfinite(getattr(self, name)).all():
                raise PlanError(f"{name} must be finite")
        if int(self.widths.max()) > MOST_BITS:
            raise PlanError(f"each width must be in 0..{MOST_BITS}, not {int(self.widths.max())}")
        if (self.steps < 0).any():
            raise PlanError(f"each step must be at least 0, not {float(self.steps.min())}")
        eye = torch.eye(shape[-1], dtype=torch.float64)
        error = (self.forward.double() @ self.backward.double() - eye).abs().amax((-2, -1))
        if not (error < 1e-2).all():
            raise PlanError("backward must be the inverse of forward: a rotation is singular or damaged")

    @property
    def bits(self) -> tuple[float, float]:
        """Mean widths of keys and of values."""
        return tuple(float(part) for part in self.widths.double().mean((1, 2, 3)))

    def effective_bits(self, tokens: int) -> tuple[float, float]:
        """Bits per element of keys and of values in a cache of ``tokens`` coded tokens, everything stored counted:
        rows filled up to bytes; FP16 means and 4-bit factors, once per sequence or per group."""
        found = []
        for kind in range(2):
            heads = self.widths[kind].flatten(0, 1).numpy()
            bits = 8.0 * sum(row_bytes(head) for head in heads)
            stored = float((heads > 0).sum()) * _FACTOR_BITS
            if self.scales != "plan":
                bits += (16.0 * (heads > 0).any(1).sum() * heads.shape[1]) / tokens
                bits += stored / (GROUP if self.scales == "group" else tokens)
            found.append(bits / heads.size)
        return tuple(found)

    def stored(self, layer: int, kind: str, x: torch.Tensor) -> torch.Tensor:
        """Vectors ``[kv_heads, tokens, D]`` as read back; sinks and an unfinished last group come back as they are."""
        found, sinks, tokens = x.clone(), self.sinks, x.shape[1]
        at = (KINDS.index(kind), layer)
        coded = x[:, sinks:].double()
        if self.scales == "group":
            coded = coded[:, : tokens // GROUP * GROUP - sinks]
        if not coded.shape[1]:
            return found
        mean = self.mean[at][:, None].double() if self.scales == "plan" else x[:, sinks:].double().mean(1, keepdim=True)
        mean = mean if self.scales == "plan" else mean.half().double()
        z = (coded - mean) @ self.forward[at].double()
        width, steps = self.widths[at][:, None], self.steps[at][:, None].double()
        # The first group lacks the sinks: from then on groups end at multiples of their size.
        sizes = [GROUP - sinks] + [GROUP] * (tokens // GROUP - 1) if self.scales == "group" else [coded.shape[1]]
        read = []
        for part in z.split(sizes, 1):
            factor = 1.0 if self.scales == "plan" else _factors(part, width, steps)
            read.append(values(codes(part, width, steps * factor), width, steps * factor))
        found[:, sinks : sinks + coded.shape[1]] = (torch.cat(read, 1) @ self.backward[at].double() + mean).to(x.dtype)
        return found


def _factors(z: torch.Tensor, width: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """What steps are multiplied by, ``2^((f - 8) / 4)`` with f in 0..15: nearest to the rms of the tokens at hand."""
    table = torch.tensor(STEPS, dtype=torch.float64)[width.long()]
    wanted = z.square().mean(1, keepdim=True).sqrt() * table / steps.clamp(min=torch.finfo(torch.float64).tiny)
    field = (wanted.log2() * _PER_OCTAVE).round() + _FACTOR_ZERO
    return torch.pow(2.0, (field.clamp(0, 2**_FACTOR_BITS - 1) - _FACTOR_ZERO) / _PER_OCTAVE)


def make_plan(
    moments: Moments, bits: float, *, scales: str, identity: str, texts: dict[str, str], damping: float = 0.1
) -> Plan:
    """The plan that stores ``bits`` per element, keys and values of all layers and heads from one budget.

    Raises
    ------
    ValueError
        Bits outside 0..4, or gradients that reach no vector of a head.
    """
    checks.number("bits", bits, 0, MOST_BITS)
    checks.choice("scales", scales, SCALES)
    turned = rotation(moments, within=scales != "plan", damping=damping)
    chosen = widths(turned.loss, bits, DISTORTION)
    return Plan(
        forward=turned.forward.float(),
        backward=turned.backward.float(),
        mean=moments.mean.float(),
        widths=chosen,
        steps=(torch.tensor(STEPS, dtype=torch.float64)[chosen.long()] * turned.deviation).float(),
        scales=scales,
        identity=identity,
        texts=dict(texts),
    )


_TENSORS = ("forward", "backward", "mean", "widths", "steps")


def save_plan(path: str | os.PathLike, plan: Plan) -> None:
    """Write a plan, whole or not at all; equal plans give equal bytes."""
    tensors = {name: getattr(plan, name).contiguous() for name in _TENSORS}
    about = {"scales": plan.scales, "identity": plan.identity, "texts": plan.texts}
    about |= {"sinks": plan.sinks, "recent": plan.recent}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "generator": "bitmosaic",
        "plan": json.dumps(about, sort_keys=True),
    }
    metadata["payload_sha256"] = payload_hash(tensors)
    write_file(Path(path), sorted_header(safetensors.torch.save(tensors, metadata=metadata)))


def load_plan(path: str | os.PathLike, *, identity: str | None = None) -> Plan:
    """The plan of a file, checked; ``identity``: of the checkpoint that it must have been made for.

    Raises
    ------
    FileNotFoundError
        No such file.
    PlanError
        Not a plan, of another major version, damaged, or of another model.
    """
    file = TensorFile(path, "plan", PlanError)
    about = file.metadata
    if about.get("format") != FORMAT:
        raise PlanError(f"{path} is not a plan: its format is {about.get('format')!r}, not {FORMAT!r}")
    if about.get("version", "").split(".")[0] != VERSION.split(".")[0]:
        raise PlanError(f"{path} has version {about.get('version')!r}; this reader knows {VERSION.split('.')[0]}.x")
    missing = [name for name in _TENSORS if name not in file.tensors]
    if missing:
        raise PlanError(f"{path} lacks {', '.join(missing)}")
    tensors = {name: file.read(name) for name in _TENSORS}
    if about.get("payload_sha256") != payload_hash(tensors):
        raise PlanError(f"{path} is damaged: its contents do not have the hash that it names")
    try:
        plan = Plan(**tensors, **json.loads(about["plan"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise PlanError(f"{path} has metadata that are no plan's: {error}") from error
    if identity is not None and plan.identity != identity:
        raise PlanError(f"{path} was made for the checkpoint {plan.identity[:12]}, not for {identity[:12]}")
    return plan

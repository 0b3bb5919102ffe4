"""Which tensors of a model are packed: what patterns match, why the rest of it cannot be, and what was lost."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shell.console import stderr, warn
from spec.packet import MAX_INPUTS

if TYPE_CHECKING:
    from golden.weights.loss import Loss
    from golden.weights.model_files import TensorInfo

__all__ = ["Selection", "check_loss", "select_layers", "tell"]

_SUFFIX = ".weight"
_NO_WEIGHTS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F64")
"""Number formats of tensors that are no weights to be quantized."""


@dataclass
class Selection:
    """What a command packs, and what not.

    Attributes
    ----------
    layers : dict of str to str
        Layer name -> tensor name, in the model's order. A layer's name is its tensor's without ``.weight``.
    skipped : dict of str to str
        Tensors that patterns with wildcards match beside them -> why they cannot be packed.
    refused : dict of str to str
        Layers that looked right but could not be packed -> why; filled while packing.
    """

    layers: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def refuse(self, layer: str, error: Exception) -> None:
        """Note that a layer could not be packed. Raises ValueError if that was the last one."""
        self.refused[layer] = str(error)
        if len(self.refused) == len(self.layers):
            raise ValueError(f"layer {layer}: {error}") from error

    def packed(self) -> list[str]:
        """The layers that were not refused."""
        return [layer for layer in self.layers if layer not in self.refused]


def select_layers(tensors: Mapping[str, "TensorInfo"], patterns: Sequence[str]) -> Selection:
    """The matrices that any pattern matches, by the names of layers, of tensors, or of stacks of experts.

    A pattern is a name, or as of :mod:`fnmatch` (case counts); a name with brackets in it matches itself.

    Raises
    ------
    ValueError
        A pattern matches nothing, or nothing that can be packed; two tensors would be packed under one name.
    """
    wanted, selection = set(), Selection()
    for pattern in patterns:
        found = [name for name, info in tensors.items() if pattern in _names(info)]
        named = bool(found)
        found = found or [name for name, info in tensors.items() if _matches(info, pattern)]
        if not found:
            raise ValueError(f"no layer matches {pattern!r}; the model has {_examples(tensors, pattern)}")
        unfit = {name: reason for name in found if (reason := _unfit(tensors[name]))}
        if unfit and (named or len(unfit) == len(found)):
            name, reason = next(iter(unfit.items()))
            raise ValueError(f"{name} {reason}")
        wanted.update(name for name in found if name not in unfit)
        selection.skipped |= unfit
    for name in tensors:
        if name in wanted:
            layer = name.removesuffix(_SUFFIX)
            if layer in selection.layers:
                raise ValueError(f"{selection.layers[layer]} and {name} would both be packed as {layer}")
            selection.layers[layer] = name
    return selection


def _unfit(info: "TensorInfo") -> str | None:
    """Why a tensor cannot be packed, if it cannot."""
    shape = list(info.shape)
    if len(shape) != 2:
        return f"has shape {shape}, and only matrices [output channels, input channels] can be packed"
    if 0 in shape or shape[1] > MAX_INPUTS:
        return f"must have shape [output channels, 1..{MAX_INPUTS} input channels], not {shape}"
    if info.dtype in _NO_WEIGHTS:
        return f"must be one of F32, F16, BF16 or quantized, not {info.dtype}"
    return None


def _names(info: "TensorInfo") -> set[str]:
    return {name for full in (info.name, info.source) if full for name in (full, full.removesuffix(_SUFFIX))}


def _matches(info: "TensorInfo", pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in _names(info))


def _examples(tensors: Mapping[str, "TensorInfo"], pattern: str) -> str:
    """Some layers of the model, those whose names look like the pattern if there are such."""
    names = [name.removesuffix(_SUFFIX) for name, info in tensors.items() if len(info.shape) == 2]
    if not names:
        return "no matrix at all"
    close = difflib.get_close_matches(pattern, names, n=3)
    shown = close or names[:3]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def check_loss(layer: str, loss: "Loss", max_error: float) -> None:
    """Raise ValueError if a row of a layer comes back with more than ``max_error``, or with nothing at all."""
    if loss.error > max_error:
        raise ValueError(
            f"layer {layer}: row {loss.row} comes back with a relative error of {loss.error:.3f}, "
            f"more than max_error {max_error:g}"
        )


def tell(selection: Selection, losses: "Mapping[str, Loss]") -> None:
    """Say what was skipped, refused and lost, each with its reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in selection.skipped.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        stderr.print(f"skipped: {', '.join(names)}: {reason}", soft_wrap=True)
    for layer, reason in selection.refused.items():
        warn(f"layer {layer} is not packed: {reason}")
    for layer, loss in losses.items():
        if loss.lost:
            warn(
                f"layer {layer}: {loss.lost:,} of {loss.weights:,} weights are in groups whose scale could not be "
                f"stored; row {loss.row} comes back with a relative error of {loss.error:.3f}"
            )

"""Adapter tables (RLKV's `adapter_weights.tsv`): one learned gate per (layer, KV head)."""

import math
import re
from pathlib import Path

import torch

__all__ = ["AdapterError", "load_adapter"]


_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


class AdapterError(ValueError):
    """Not an adapter table; the message says where it goes wrong."""


def load_adapter(path: Path | str, *, layers: int | None = None, heads: int | None = None) -> torch.Tensor:
    """Read tab-separated numbers, a line per layer, a column per KV head, no header.

    Parameters
    ----------
    layers, heads : int, optional
        Shape that the model wants; None: any.

    Returns
    -------
    torch.Tensor
        float64 ``[layers, heads]``, as written: published values leave [0, 1] a little, `select_full` clips them.

    Raises
    ------
    AdapterError
        No such file, an empty one, lines of different lengths, something that is not a finite number, a wrong shape.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError(f"cannot read adapter table {path}: {error}") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        row = []
        for column, text in enumerate(line.split("\t"), 1):
            value = float(text) if _NUMBER.fullmatch(text.strip(" ")) else math.inf
            if not math.isfinite(value):
                raise AdapterError(f"{path}, line {number}, column {column}: must be a finite number, not {text!r}")
            row.append(value)
        if rows and len(row) != len(rows[0]):
            raise AdapterError(f"{path}, line {number}: must have {len(rows[0])} columns like line 1, not {len(row)}")
        rows.append(row)
    if not rows:
        raise AdapterError(f"{path} is empty")
    for name, wanted, found in (("layers", layers, len(rows)), ("heads", heads, len(rows[0]))):
        if wanted is not None and found != wanted:
            raise AdapterError(f"{path} must have {wanted} {name}, not {found}")
    return torch.tensor(rows, dtype=torch.float64)

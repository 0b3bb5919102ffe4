"""``python -m golden.kv.dump``: a K/V dump of SmolLM2 over real text, to be packed by ``bitmosaic kv-pack``."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from golden.kv.files import Dump, save_dump
from golden.kv.moments import model_moments
from golden.kv.protection import protected_tokens, protection_scores
from golden.llm import capture_activations, capture_kv
from shell.console import say, single
from spec import checks

__all__ = ["dump_model"]

_HIDDEN = "model.layers.0.self_attn.q_proj"
"""The layer whose input is the states that protection scores."""


def dump_model(tokens: int, start: int = 0, *, protect: float = 0.0, queries: int = 64, moments: bool = False) -> Dump:
    """Keys after rotary embedding and values of every layer, FP16.

    Parameters
    ----------
    tokens, start : int
        Which tokens of the text (`golden.llm.text`).
    protect : float
        Share of the tokens that semantic token protection marks, 0..1; the newest `queries` tokens are the questions.
    moments : bool
        What rounding ``"attention"`` works with, from the last part of the text.

    Raises
    ------
    ValueError
        Naming the parameter.
    """
    checks.number("protect", protect, 0, 1)
    checks.whole("queries", queries, 1, tokens - 1)
    kv = capture_kv(tokens, start)
    protected: torch.Tensor | None = None
    if protect:
        hidden = capture_activations([_HIDDEN], tokens, start)[_HIDDEN].double()
        protected = protected_tokens(protection_scores(hidden, hidden[-queries:]), protect)
    return Dump(kv.k, kv.v, protected, model_moments() if moments else None)


def main(
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of the text.")] = 784,
    start: Annotated[int, typer.Option(min=0, help="First of them.")] = 0,
    protect: Annotated[float, typer.Option(help="Share of the tokens to protect (for format vidkv-stp).")] = 0.0,
    moments: Annotated[bool, typer.Option("--moments", help="Add what rounding for attention needs.")] = False,
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("dump.safetensors"),
):
    """Dump keys and values of SmolLM2-135M over real text."""
    dump = dump_model(tokens, start, protect=protect, queries=min(64, tokens - 1), moments=moments)
    save_dump(output, dump)
    say(f"{output}: k and v {list(dump.k.shape)}")


if __name__ == "__main__":
    single(main, "dump")()

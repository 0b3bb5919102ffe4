"""``bitmosaic alloc``: widths for every channel of a model's KV cache, from the loss on calibration texts.

torch and the models of ``golden`` are imported only when the command runs: nothing else of the generator needs them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shell.output import output_file, write_file
from spec import checks

if TYPE_CHECKING:
    from golden.alloc import Plan

__all__ = ["alloc"]

MODEL = "SmolLM2-135M-Instruct"
TEXTS = ["docs", "code", "headers", "licenses"]


def alloc(
    model: Annotated[
        str, typer.Argument(help="SmolLM2-135M-Instruct, or a directory that transformers can load.")
    ] = MODEL,
    texts: Annotated[
        list[str] | None, typer.Option(help="Calibration texts: docs, code, headers, licenses, or files; default: all.")
    ] = None,
    kv_bits: Annotated[float, typer.Option(help="Mean bits per element of the coded keys and values, 0..4.")] = 1.5,
    scales: Annotated[
        str, typer.Option(help="What a sequence adds: plan (nothing), sequence (mean, steps), group (steps anew).")
    ] = "group",
    windows: Annotated[int, typer.Option(min=1, help="Windows of each text, from its end.")] = 1,
    tokens: Annotated[int, typer.Option(min=256, help="Tokens of a window.")] = 1536,
    output: Annotated[Path, typer.Option(help="File to write; a report is put beside it.")] = Path(
        "build/alloc/plan.safetensors"
    ),
) -> None:
    """Allocate the bits of a KV cache from the loss and write the plan."""
    try:
        from golden.alloc.calibrate import calibrate
        from golden.alloc.model import open_model
        from golden.alloc.plan import SCALES, make_plan, save_plan
        from golden.alloc.texts import text_digest
        from golden.alloc.texts import windows as cut
    except ModuleNotFoundError as error:
        raise ValueError(
            f"alloc needs {error.name}, which is not installed; make setup-all or pip install '.[golden]' installs it"
        ) from error
    from shell.console import progress_bar, say, stdout

    checks.number("kv-bits", kv_bits, 0, 4)
    checks.choice("scales", scales, SCALES)
    output_file(output)
    sources = texts or TEXTS
    opened, tokenizer, identity = open_model(model)
    stretches = [ids for source in sources for ids in cut(source, tokenizer, windows, tokens, last=True)]
    with progress_bar("alloc", len(stretches)) as advance:
        moments = calibrate(opened, stretches, identity=identity, cache_dir=output.parent / "moments", progress=advance)
    digests = {source: text_digest(source) for source in sources}
    plan = make_plan(moments, kv_bits, scales=scales, identity=identity, texts=digests)
    save_plan(output, plan)
    report = {"model": model, "checkpoint_sha256": identity, "texts": digests, "scales": scales, "kv_bits": kv_bits}
    report |= {"bits": plan.bits, "layers": [part.tolist() for part in plan.widths.double().mean((2, 3))]}
    report |= {"bits_effective_at_4096": plan.effective_bits(4096)}
    write_file(output.with_name("report.json"), (json.dumps(report, indent=1) + "\n").encode())
    stdout.print(_table(plan))
    say(f"plan: {output}")


def _table(plan: "Plan") -> Table:
    keys, values = plan.effective_bits(4096)
    table = Table(
        caption="mean width per layer; heads without bits keep their exact tokens only. Everything counted, a cache of "
        f"4,096 tokens stores {keys:.3f} bits per element of keys and {values:.3f} of values."
    )
    for name in ("layer", "keys", "values", "heads without bits"):
        table.add_column(name, justify="right")
    widths = plan.widths.double()
    none = (plan.widths == 0).all(-1).sum((0, 2))
    for layer, (k, v) in enumerate(zip(*widths.mean((2, 3)).tolist(), strict=True)):
        table.add_row(str(layer), f"{k:.2f}", f"{v:.2f}", str(int(none[layer])))
    table.add_section()
    table.add_row("all", *(f"{bits:.2f}" for bits in plan.bits), str(int(none.sum())))
    return table

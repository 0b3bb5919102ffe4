"""``bitmosaic kv-pack``: quantize dumped keys and values and write them as the packets that the KV engine reads.

torch and the models of ``golden`` are imported only when the command runs: nothing else of the generator needs them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shell.output import output_file

if TYPE_CHECKING:
    from golden.kv.config import CacheFormat
    from golden.kv.files import Dump
    from golden.kv.packed import PackedCache

from spec import checks

__all__ = ["kv_pack", "open_dump", "pack_dump"]


def kv_pack(
    dump: Annotated[Path, typer.Argument(help="A .safetensors file with k and v, [layers, heads, tokens, D] each.")],
    format: Annotated[str, typer.Option(help="Preset of the cache's format; docs/kv-formats.md.")] = "default",
    residual: Annotated[str, typer.Option(help="How sinks and newest tokens are kept: fp16 or int8.")] = "fp16",
    output: Annotated[Path, typer.Option(help="File to write.")] = Path("packed.safetensors"),
) -> None:
    """Quantize a K/V dump and pack it into the blocks that the KV engine reads."""
    from shell.console import progress_bar, say, stdout

    source, fmt = open_dump(dump, format, output)
    with progress_bar("kv-pack", source.k.shape[0]) as advance:
        cache = pack_dump(source, fmt, output, residual=residual, progress=advance)
    stdout.print(_table(cache, output))
    say(f"packed: {output}")


def open_dump(dump: Path, format: str, output: Path) -> "tuple[Dump, CacheFormat]":
    """The dump and the format of that name, if the one can be packed in the other and written to ``output``.

    Raises
    ------
    ValueError, OSError
        Saying which of them is not possible and why.
    """
    try:
        from golden.kv.config import PRESETS
        from golden.kv.files import load_dump
    except ModuleNotFoundError as error:
        raise ValueError(
            f"kv-pack needs {error.name}, which is not installed; make setup-all or pip install '.[golden]' installs it"
        ) from error

    packable = [n for n, f in PRESETS.items() if f.mode == "paper" and "fp16" not in (f.key.code, f.value.code)]
    fmt = checks.named("format", format, {name: PRESETS[name] for name in packable})
    output_file(output)
    source = load_dump(dump)
    if output.exists() and output.samefile(dump):
        raise ValueError(f"output must not be the dump {dump} itself")
    if fmt.value.protected and source.protected is None:
        raise ValueError(f"format {format} protects tokens: {dump} must hold a tensor 'protected' that says which")
    if "attention" in (fmt.key.rounding, fmt.value.rounding) and source.moments is None:
        raise ValueError(f"format {format} rounds for attention: {dump} must hold 'key_moments' and 'value_moments'")
    return source, fmt


def pack_dump(
    source: "Dump",
    fmt: "CacheFormat",
    output: Path,
    *,
    residual: str = "fp16",
    progress: Callable[[str], None] = lambda layer: None,
) -> "PackedCache":
    """Pack a dump and write ``output``, whole or not at all; ``progress`` is told each layer that is done.

    Raises
    ------
    ValueError
        Keys or values that cannot be packed, or too few of them.
    OSError
        The output cannot be written.
    """
    from golden.kv.files import save_cache
    from golden.kv.packed import pack_cache

    cache = pack_cache(
        source.k,
        source.v,
        fmt,
        residual=residual,
        protected=source.protected if fmt.value.protected else None,
        moments=source.moments,
        progress=lambda layer: progress(f"layer {layer}"),
    )
    if not (cache.index[:, 2] > 0).any():
        raise ValueError(
            f"the dump must have more tokens for a single block, not {source.k.shape[2]}: {fmt.sinks} sinks and "
            f"{fmt.recent} newest tokens stay outside blocks"
        )
    save_cache(output, cache)
    return cache


def _table(cache: "PackedCache", output: Path) -> Table:
    layers, heads, tokens, head_dim = cache.shape
    table = Table(caption="bits per element of the packed tokens, everything in their blocks included")
    for name in ("", "blocks", "bytes", "bits/element"):
        table.add_column(name, justify="left" if not name else "right")
    sizes, kinds = cache.offsets[1:] - cache.offsets[:-1], cache.index[:, 2]
    for kind, name, bits in zip((1, 2), ("keys", "values"), cache.effective_bits, strict=True):
        table.add_row(name, f"{(kinds == kind).sum():,}", f"{sizes[kinds == kind].sum():,}", f"{bits:.4f}")
    exact = sum(array.nbytes for array in cache.exact.values())
    table.add_row("sinks and newest tokens", "", f"{exact:,}", "")
    table.add_section()
    table.add_row(
        f"file (FP16 cache: {4 * layers * heads * tokens * head_dim:,})", "", f"{output.stat().st_size:,}", ""
    )
    return table

"""``bitmosaic pack``: quantize the linear layers of a model file and write them as row packets.

At most one layer is in memory at a time, whatever the size of model and output. torch and the models of ``golden`` are
imported only when the command runs: nothing else of the generator needs them.
"""

import difflib
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from shell.output import output_file
from spec import checks
from spec.core import CORE_PRESETS, core_preset
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from spec.packet import MAX_ROW_LENGTH

if TYPE_CHECKING:
    from golden.weights.model_files import ModelFile, TensorInfo
    from golden.weights.packing import PackedPlan

__all__ = ["pack", "pack_layers", "packing_table", "select_layers"]

_SUFFIX = ".weight"


def pack(
    model: Annotated[Path, typer.Argument(help="A .safetensors or .gguf file.")],
    patterns: Annotated[list[str] | None, typer.Argument(metavar="[PATTERN]...", help="Further patterns.")] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN...", help="Names of layers, or patterns with *, ? and []; may be repeated."),
    ] = None,
    datatype: Annotated[str, typer.Option(help=f"{', '.join(d.name.lower() for d in WEIGHT_DATATYPES)}.")] = "fp4",
    group_size: Annotated[int, typer.Option(help="Weights per scaling factor: 32, 64 or 128.")] = 128,
    lanes: Annotated[
        int | None, typer.Option(help="Lanes of the PE: groups are padded to a multiple of them. Default 4.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write; with --core a directory. Default packed.safetensors or packed.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Unpack what was written and compare it with the model, quantized anew.")
    ] = False,
    core: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help=f"Memory images for an accelerator core: {', '.join(CORE_PRESETS)}."),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="With --core: FP16 [tokens, in] of each layer, in a .safetensors file.")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="With --core: FP16 results.")] = False,
    streams: Annotated[bool, typer.Option("--streams", help="With --core: whole streams too, for $readmemh.")] = False,
) -> None:
    """Quantize linear layers of a model file and pack them into the bits that the hardware reads."""
    from shell.console import progress_bar, say, stdout

    if not layers:
        raise ValueError("layers must name at least one layer: --layers PATTERN")
    if core is None and (activations or fp16 or streams):
        raise ValueError("activations, fp16 and streams go with --core PRESET")
    if core is not None and lanes is not None:
        raise ValueError("lanes follows from --core, and must not be given with it")
    kind = _datatype(datatype)
    source = _open(model)
    chosen = select_layers(source.tensors, [*layers, *(patterns or ())])
    if core is not None:
        from gen.pack.core import core_table, pack_core_layers

        directory = output or Path("packed")
        with progress_bar("pack", len(chosen) * (1 + verify)) as advance:
            options = {"group_size": group_size, "activations": activations, "fp16": fp16, "streams": streams}
            described = pack_core_layers(
                source, chosen, directory, kind, core, **options, verify=verify, progress=advance
            )
        stdout.print(core_table(described, kind, core_preset(core)))
        say(f"packed: {directory}")
        return
    lanes, output = 4 if lanes is None else lanes, output or Path("packed.safetensors")
    with progress_bar("pack", len(chosen) * (1 + verify)) as advance:
        plans = pack_layers(
            source, chosen, output, kind, group_size=group_size, lanes=lanes, verify=verify, progress=advance
        )
    stdout.print(packing_table(plans, kind))
    say(f"packed: {output}")


def _datatype(name: str) -> Datatype:
    return checks.named("datatype", name.lower(), {datatype.name.lower(): datatype for datatype in WEIGHT_DATATYPES})


def _open(model: Path) -> "ModelFile":
    try:
        from golden.weights.model_files import open_model
    except ModuleNotFoundError as error:
        raise ValueError(
            f"pack needs {error.name}, which is not installed; make setup-all or pip install '.[golden]' installs it"
        ) from error
    return open_model(model)


def select_layers(tensors: Mapping[str, "TensorInfo"], patterns: Sequence[str]) -> dict[str, str]:
    """Layer name -> tensor name of the matrices that any pattern matches, in the model's order.

    A layer's name is its tensor's without ``.weight``; patterns (as of :mod:`fnmatch`, case counts) may match either.
    What a pattern with wildcards matches beside matrices is passed over.

    Raises
    ------
    ValueError
        A pattern matches nothing, or no matrix; a matrix has no weights or longer rows than a packet takes.
    """
    wanted = set()
    for pattern in patterns:
        found = [name for name in tensors if _matches(name, pattern)]
        matrices = [name for name in found if len(tensors[name].shape) == 2]
        if not found:
            raise ValueError(f"no layer matches {pattern!r}; the model has {_examples(tensors, pattern)}")
        if not matrices:
            raise ValueError(
                f"{found[0]} has shape {list(tensors[found[0]].shape)}, and only matrices "
                "[output channels, input channels] can be packed"
            )
        wanted.update(matrices)
    chosen = {}
    for name in tensors:
        if name not in wanted:
            continue
        shape, layer = list(tensors[name].shape), name.removesuffix(_SUFFIX)
        if 0 in shape or shape[1] > MAX_ROW_LENGTH:
            raise ValueError(
                f"{name} must have shape [output channels, 1..{MAX_ROW_LENGTH} input channels], not {shape}"
            )
        if layer in chosen:
            raise ValueError(f"{chosen[layer]} and {name} would both be packed as {layer}")
        chosen[layer] = name
    return chosen


def _matches(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(text, pattern) for text in (name, name.removesuffix(_SUFFIX)))


def _examples(tensors: Mapping[str, "TensorInfo"], pattern: str) -> str:
    """Some layers of the model, those whose names look like the pattern if there are such."""
    names = [name.removesuffix(_SUFFIX) for name, info in tensors.items() if len(info.shape) == 2]
    if not names:
        return "no matrix at all"
    close = difflib.get_close_matches(pattern, names, n=3)
    shown = close or names[:3]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def pack_layers(
    model: "ModelFile",
    chosen: Mapping[str, str],
    output: Path,
    datatype: Datatype,
    *,
    group_size: int = 128,
    lanes: int = 4,
    verify: bool = False,
    progress: Callable[[str], None] = lambda layer: None,
) -> "dict[str, PackedPlan]":
    """Quantize and pack layers (name -> tensor of the model) into ``output``, one at a time, all or nothing.

    With ``verify``, every layer is read back before the file gets its name, checked against its hash, unpacked, and
    compared field by field with the model's layer quantized anew. ``progress`` is called with each layer's name when it
    is packed, and again when it is verified. Returns what was packed.

    Raises
    ------
    ValueError
        A parameter is not allowed, a layer cannot be packed (says which and why), or verifying found a difference.
    OSError
        The output cannot be written.
    """
    from golden.weights import PackedPlan, PackedReader, PackedWriter, quantize, unpack
    from golden.weights import pack as pack_weight

    output_file(output)
    if output.exists() and output.samefile(model.path):
        raise ValueError(f"output must not be the model file {model.path} itself")
    plans = {
        layer: PackedPlan.uniform(model.tensors[name].shape, datatype, group_size=group_size, lanes=lanes)
        for layer, name in chosen.items()
    }

    def quantized(layer: str):
        weight = model.read(chosen[layer])
        try:
            return quantize(weight, datatype, group_size=group_size)
        except ValueError as error:
            raise ValueError(f"layer {layer}: {error}") from error

    with PackedWriter(output, plans) as writer:
        for layer in plans:
            writer.add(layer, pack_weight(quantized(layer), lanes=lanes))
            progress(layer)
        writer.finish()
        if verify:
            written = PackedReader(writer.temporary)
            for layer in plans:
                field = unpack(written.load(layer)).first_difference(quantized(layer))
                if field is not None:
                    raise ValueError(f"layer {layer}: what was written unpacks to other {field}")
                progress(layer)
    return plans


def packing_table(plans: "Mapping[str, PackedPlan]", datatype: Datatype) -> Table:
    """What was packed: layer, shape, datatype, effective bits per weight, bytes, and their totals."""
    table = Table(caption="bits per weight and bytes count codes, group and row headers, fill and channel scales")
    table.add_column("layer", overflow="fold")
    table.add_column("shape", justify="right")
    table.add_column("datatype")
    for name in ("bits/weight", "bytes"):
        table.add_column(name, justify="right")
    for layer, plan in plans.items():
        out, length = plan.shape
        table.add_row(layer, f"{out} x {length}", datatype.name, f"{plan.effective_bits():.3f}", f"{plan.size:,}")
    weights, size = sum(plan.shape[0] * plan.shape[1] for plan in plans.values()), sum(p.size for p in plans.values())
    table.add_section()
    table.add_row(f"{len(plans)} layers", f"{weights:,}", datatype.name, f"{8 * size / weights:.3f}", f"{size:,}")
    return table

"""``bitmosaic pack``: quantize the linear layers of a model file and write them as row packets.

At most one layer is in memory at a time, whatever the size of model and output. torch and the models of ``golden`` are
imported only when the command runs: nothing else of the generator needs them.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from gen.pack.selection import Selection, check_loss, select_layers, tell
from shell.console import progress_bar, say, stdout
from shell.output import output_file
from spec import checks
from spec.datatypes import WEIGHT_DATATYPES, Datatype
from spec.packet import MAX_ROW_LENGTH
from spec.system import SYSTEMS, core_preset

if TYPE_CHECKING:
    from golden.weights.loss import Loss
    from golden.weights.model_files import ModelFile
    from golden.weights.packing import PackedPlan
    from golden.weights.quantized import QuantizedWeight

__all__ = ["pack", "pack_layers", "packing_table"]


def pack(
    model: Annotated[Path, typer.Argument(help="A .safetensors or .gguf file, an index of shards, or a directory.")],
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
    max_error: Annotated[
        float, typer.Option(min=0, help="With --verify: largest relative error that a row may come back with.")
    ] = 0.5,
    core: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help=f"Memory images for an accelerator core: {', '.join(SYSTEMS)}."),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="With --core: FP16 [tokens, in] of each layer, in a .safetensors file.")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="With --core: FP16 results.")] = False,
    streams: Annotated[bool, typer.Option("--streams", help="With --core: whole streams too, for $readmemh.")] = False,
) -> None:
    """Quantize linear layers of a model file and pack them into the bits that the hardware reads."""
    if not layers:
        raise ValueError("layers must name at least one layer: --layers PATTERN")
    if core is None and (activations or fp16 or streams):
        raise ValueError("activations, fp16 and streams go with --core PRESET")
    if core is not None and lanes is not None:
        raise ValueError("lanes follows from --core, and must not be given with it")
    kind = _datatype(datatype)
    source = _open(model)
    selection = select_layers(source.tensors, [*layers, *(patterns or ())])
    bound = max_error if verify else None
    with progress_bar("pack", len(selection.layers) * (1 + verify)) as advance:
        if core is not None:
            from gen.pack.core import core_table, pack_core_layers

            place = output or Path("packed")
            options = {"group_size": group_size, "activations": activations, "fp16": fp16, "streams": streams}
            described, losses = pack_core_layers(
                source, selection, place, kind, core, **options, max_error=bound, progress=advance
            )
            table = core_table(described, kind, core_preset(core))
        else:
            place = output or Path("packed.safetensors")
            options = {"group_size": group_size, "lanes": 4 if lanes is None else lanes}
            plans, losses = pack_layers(source, selection, place, kind, **options, max_error=bound, progress=advance)
            table = packing_table(plans, kind)
    stdout.print(table)
    tell(selection, losses)
    say(f"packed: {place}")
    if selection.refused:
        raise typer.Exit(1)


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


def pack_layers(
    model: "ModelFile",
    selection: Selection,
    output: Path,
    datatype: Datatype,
    *,
    group_size: int = 128,
    lanes: int = 4,
    max_error: float | None = None,
    progress: Callable[[str], None] = lambda layer: None,
) -> "tuple[dict[str, PackedPlan], dict[str, Loss]]":
    """Quantize and pack layers into ``output``, one at a time; returns what was packed, and what each layer lost.

    A layer that cannot be packed (numbers that are not finite, a format that cannot be read) is left out and noted in
    ``selection``. One of more than 16384 input channels is packed in parts, ``name[0:16384]`` and so on, of one channel
    scale: their results are added. With ``max_error``, every layer is read back before the file gets its name, checked
    against its hash, unpacked, and compared field by field with the model's layer quantized anew; and no row may come
    back with a relative error above it. ``progress`` is called with each layer's name when it is packed, and again when
    it is verified.

    Raises
    ------
    ValueError
        A parameter is not allowed, no layer can be packed (says why), or verifying found a difference.
    OSError
        The output cannot be written.
    """
    from golden.core.layer import input_channels
    from golden.weights import PackedPlan, PackedReader, PackedWriter, quantize, unpack
    from golden.weights import pack as pack_weight
    from golden.weights.loss import quantization_loss

    output_file(output)
    if output.exists() and any(output.samefile(path) for path in model.paths):
        raise ValueError(f"output must not be the model file {output} itself")
    parts = {
        layer: {
            name: PackedPlan.uniform((rows, stop - start), datatype, group_size=group_size, lanes=lanes)
            for name, start, stop in _parts(layer, length)
        }
        for layer, name in selection.layers.items()
        for rows, length in (model.tensors[name].shape,)
    }

    def packed(layer: str, weight: "QuantizedWeight") -> "Iterator[tuple[str, QuantizedWeight]]":
        for name, start, stop in _parts(layer, weight.shape[1]):
            yield name, input_channels(weight, start, stop)

    losses: dict[str, Loss] = {}
    with PackedWriter(output, {name: plan for plans in parts.values() for name, plan in plans.items()}) as writer:
        for layer, tensor in selection.layers.items():
            try:
                weight = model.read(tensor)
                quantized = quantize(weight, datatype, group_size=group_size)
            except ValueError as error:
                selection.refuse(layer, error)
                writer.drop(*parts[layer])
            else:
                losses[layer] = quantization_loss(weight, quantized)
                for name, part in packed(layer, quantized):
                    writer.add(name, pack_weight(part, lanes=lanes))
            progress(layer)
        writer.finish()
        if max_error is not None:
            written = PackedReader(writer.temporary)
            for layer in selection.packed():
                check_loss(layer, losses[layer], max_error)
                anew = quantize(model.read(selection.layers[layer]), datatype, group_size=group_size)
                for name, part in packed(layer, anew):
                    field = unpack(written.load(name)).first_difference(part)
                    if field is not None:
                        raise ValueError(f"layer {layer}: what was written unpacks to other {field}")
                progress(layer)
        return {name: plan for layer in selection.packed() for name, plan in parts[layer].items()}, losses


def _parts(layer: str, length: int) -> list[tuple[str, int, int]]:
    """Name, first input channel and the one behind the last of each tensor that a layer is written as."""
    starts = range(0, length, MAX_ROW_LENGTH)
    if len(starts) == 1:
        return [(layer, 0, length)]
    return [
        (f"{layer}[{start}:{stop}]", start, stop) for start in starts for stop in (min(start + MAX_ROW_LENGTH, length),)
    ]


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

"""``bitmosaic pack --core PRESET``: linear layers as memory images for the accelerator core, a directory per layer.

At most one layer is in memory at a time. torch and the models of ``golden`` are imported only when the command runs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from gen.pack.selection import Selection
from shell.output import directory_name, output_directory
from spec import checks
from spec.core import CoreConfig
from spec.datatypes import Datatype
from spec.system import core_preset

if TYPE_CHECKING:
    from golden.weights.loss import Loss
    from golden.weights.model_files import ModelFile

__all__ = ["core_table", "open_activations", "pack_core_layers"]


def open_activations(path: Path, inputs: Mapping[str, int]) -> Callable:
    """Reader of one layer's activations, float16 [tokens, in], of a ``.safetensors`` file that holds each by its name.

    ``inputs`` is each layer's number of input channels. Raises ValueError if a layer is missing, or its tensor is not
    FP16 or has another shape.
    """
    from golden.tensor_file import TensorFile

    file = TensorFile(path, "activations")
    for layer, length in inputs.items():
        if layer not in file.tensors:
            raise ValueError(f"activations must hold a tensor for each layer, and {path} has none for {layer}")
        info = file.tensors[layer]
        if info.dtype != "F16":
            raise ValueError(f"activations of {layer} must be FP16, not {info.dtype}")
        if len(info.shape) != 2 or info.shape[0] < 1 or info.shape[1] != length:
            raise ValueError(f"activations of {layer} must have shape [tokens, {length}], not {list(info.shape)}")
    return file.read


def pack_core_layers(
    model: "ModelFile",
    selection: Selection,
    output: Path,
    datatype: Datatype,
    preset: str,
    *,
    group_size: int = 128,
    activations: Path | None = None,
    fp16: bool = False,
    streams: bool = False,
    max_error: float | None = None,
    progress: Callable[[str], None] = lambda layer: None,
) -> "tuple[dict[str, dict], dict[str, Loss]]":
    """Quantize layers, each into a directory of its own; returns their descriptions, and what each lost.

    Parameters
    ----------
    model, selection, datatype, group_size, max_error, progress
        As for :func:`gen.pack.weights.pack_layers`.
    output : Path
        Directory. A layer's own, named by `directory_name`, appears whole; one of an earlier run is replaced.
    preset : str
        Name of a core configuration.
    activations : Path, optional
        ``.safetensors`` file with a float16 [tokens, in] tensor for each layer, by the layer's name.
    fp16 : bool
        FP16 results.
    streams : bool
        Write the job's complete streams too, for ``$readmemh``.

    Raises
    ------
    ValueError
        A parameter is not allowed, or this core cannot take a layer (says which and why).
    OSError
        The output cannot be written.
    """
    from gen.pack.weights import check_loss
    from golden.core.files import read_weight, write_layer
    from golden.weights import quantize
    from golden.weights.loss import quantization_loss

    config = core_preset(preset)
    checks.choice(f"group_size for core {preset}", group_size, config.group_sizes)
    output_directory(output, "output with --core")
    lengths = {layer: model.tensors[name].shape[1] for layer, name in selection.layers.items()}
    inputs = open_activations(activations, lengths) if activations else None
    described, losses = {}, {}
    for layer, name in selection.layers.items():
        try:
            weight = model.read(name)
            quantized = quantize(weight, datatype, group_size=group_size)
            vectors = inputs(layer) if inputs else None
            place = output / directory_name(layer)
            described[layer] = write_layer(place, config, quantized, vectors, fp16=fp16, streams=streams)
            losses[layer] = quantization_loss(weight, quantized)
        except (TypeError, ValueError) as error:
            selection.refuse(layer, error)
        progress(layer)
    for layer in selection.packed() if max_error is not None else ():
        check_loss(layer, losses[layer], max_error)
        field = read_weight(output / directory_name(layer), config).first_difference(
            quantize(model.read(selection.layers[layer]), datatype, group_size=group_size)
        )
        if field is not None:
            raise ValueError(f"layer {layer}: what was written unpacks to other {field}")
        progress(layer)
    return described, losses


def core_table(described: Mapping[str, dict], datatype: Datatype, config: CoreConfig) -> Table:
    """What was written: layer, shape, datatype, stored bits per weight, beats and bytes of the weight image."""
    table = Table(caption=f"weight images for {config.rows} x {config.columns} PEs; headers, fill and scales included")
    table.add_column("layer", overflow="fold")
    table.add_column("shape", justify="right")
    table.add_column("datatype")
    for name in ("bits/weight", "beats", "bytes"):
        table.add_column(name, justify="right")
    for layer, entry in described.items():
        registers, image = entry["registers"], entry["images"]["weights"]
        size = image["beats"] * image["beat_bytes"]
        weights = registers["OUTPUTS"] * registers["INPUTS"]
        shape = f"{registers['OUTPUTS']} x {registers['INPUTS']}"
        table.add_row(layer, shape, datatype.name, f"{8 * size / weights:.3f}", f"{image['beats']:,}", f"{size:,}")
    return table

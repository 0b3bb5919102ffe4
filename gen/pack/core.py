"""``bitmosaic pack --core PRESET``: linear layers as memory images for the accelerator core, a directory per layer.

At most one layer is in memory at a time. torch and the models of ``golden`` are imported only when the command runs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from shell.output import directory_name, output_directory
from spec import checks
from spec.core import CoreConfig, core_preset
from spec.datatypes import Datatype

if TYPE_CHECKING:
    from golden.weights.model_files import ModelFile

__all__ = ["core_table", "open_activations", "pack_core_layers"]


def open_activations(path: Path, inputs: Mapping[str, int]) -> Callable:
    """Reader of one layer's activations, float16 [tokens, in], of a ``.safetensors`` file that holds each by its name.

    ``inputs`` is each layer's number of input channels. Raises ValueError if a layer is missing, or its tensor is not
    FP16 or has another shape.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        held = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        for layer, length in inputs.items():
            if layer not in held:
                raise ValueError(f"activations must hold a tensor for each layer, and {path} has none for {layer}")
            if held[layer].get_dtype() != "F16":
                raise ValueError(f"activations of {layer} must be FP16, not {held[layer].get_dtype()}")
            shape = held[layer].get_shape()
            if len(shape) != 2 or shape[0] < 1 or shape[1] != length:
                raise ValueError(f"activations of {layer} must have shape [tokens, {length}], not {shape}")

    def read(layer: str):
        with safe_open(str(path), framework="pt") as file:
            return file.get_tensor(layer)

    return read


def pack_core_layers(
    model: "ModelFile",
    chosen: Mapping[str, str],
    output: Path,
    datatype: Datatype,
    preset: str,
    *,
    group_size: int = 128,
    activations: Path | None = None,
    fp16: bool = False,
    streams: bool = False,
    verify: bool = False,
    progress: Callable[[str], None] = lambda layer: None,
) -> dict[str, dict]:
    """Quantize layers (name -> tensor of the model), each into a directory of its own; returns their descriptions.

    Parameters
    ----------
    model, chosen, datatype, group_size, verify, progress
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
    from golden.core.files import read_weight, write_layer
    from golden.weights import quantize

    config = core_preset(preset)
    checks.choice(f"group_size for core {preset}", group_size, config.group_sizes)
    output_directory(output, "output with --core")
    lengths = {layer: model.tensors[name].shape[1] for layer, name in chosen.items()}
    inputs = open_activations(activations, lengths) if activations else None
    described = {}
    for layer, name in chosen.items():
        try:
            weight = quantize(model.read(name), datatype, group_size=group_size)
            vectors = inputs(layer) if inputs else None
            described[layer] = write_layer(
                output / directory_name(layer), config, weight, vectors, fp16=fp16, streams=streams
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {layer}: {error}") from error
        progress(layer)
    if verify:
        for layer, name in chosen.items():
            field = read_weight(output / directory_name(layer), config).first_difference(
                quantize(model.read(name), datatype, group_size=group_size)
            )
            if field is not None:
                raise ValueError(f"layer {layer}: what was written unpacks to other {field}")
            progress(layer)
    return described


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

"""A layer's job as files: what a host writes to registers, and memory images for its DMA engines.

A layer is a directory with

=====================  ===========================================================================================
``job.json``           format and version, registers, shapes, packets, byte counts and SHA-256 of every image
``weights.bin``        TDATA of the weight stream for one token block, beat after beat, little endian
``weights.ends``       uint32 little endian: for every packet of ``weights.bin``, the number of its last beat
``activations.bin``    only with activations: TDATA of every token block's activations, once, in order
``activations.ends``   as ``weights.ends``
=====================  ===========================================================================================

The job's streams are these images repeated: the weights once for each token block; of the activations each token
block's part once for each super-block (``replays`` in ``job.json``). Complete streams, a beat a line for ``$readmemh``,
are written on demand.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from golden.core.job import CoreJob
from golden.core.streams import Packets, activation_image, activation_stream, chunk_slices, weight_image
from golden.weights.quantized import QuantizedWeight
from golden.weights.unpacking import unpack_rows
from shell.output import staged_directory, write_file
from spec.bitserial import BitSerialConfig
from spec.core import CoreConfig
from spec.datatypes import Datatype

__all__ = ["FORMAT", "VERSION", "memh", "read_weight", "write_layer"]

FORMAT = "bitmosaic.core"
VERSION = "1.0"
_FILES = ("job.json", *(f"{name}.{kind}" for name in ("weights", "activations") for kind in ("bin", "ends", "memh")))


def memh(packets: Packets) -> str:
    """A stream for ``$readmemh``: a beat a line, TLAST as the digit above TDATA."""
    rows = packets.octets()[:, ::-1]
    return "".join(f"{last}{row.tobytes().hex()}\n" for last, row in zip(packets.last, rows, strict=True))


def write_layer(
    directory: Path,
    config: CoreConfig,
    weight: QuantizedWeight,
    activations: torch.Tensor | None = None,
    *,
    tokens: int | None = None,
    fp16: bool = False,
    streams: bool = False,
) -> dict:
    """Write a layer's images into ``directory``, all of them or none; returns what ``job.json`` holds.

    Parameters
    ----------
    directory : Path
        Replaced if it is there and holds nothing but what this function writes.
    config : CoreConfig
        The build of the core.
    weight : QuantizedWeight
    activations : float16 tensor [tokens, in], optional
    tokens : int, optional
        TOKENS of the job without activations; default one token block.
    fp16 : bool
        FP16 results.
    streams : bool
        Also write ``weights.memh`` and ``activations.memh``, the job's complete streams.

    Raises
    ------
    TypeError, ValueError
        This build of the core cannot take the layer, or the activations do not fit it; names what is wrong.
    FileExistsError
        ``directory`` is there and holds something else.
    """
    if activations is not None:
        if activations.dim() != 2 or activations.shape[1] != weight.shape[1]:
            raise ValueError(f"activations must have shape [tokens, {weight.shape[1]}], not {list(activations.shape)}")
        tokens = activations.shape[0]
    tokens = config.block_tokens if tokens is None else tokens
    job = CoreJob.of(config, weight, tokens, fp16=fp16)
    tiling = config.tiling(tokens, job.inputs, job.outputs)
    images = {"weights": weight_image(config, weight)}
    replays = {"weights": len(tiling.tokens)}
    whole = {"weights": lambda: Packets.chain([images["weights"]] * len(tiling.tokens))}
    if activations is not None:
        blocks = activations.split(config.block_tokens)
        images["activations"] = Packets.chain([activation_image(config, block) for block in blocks])
        replays["activations"] = len(tiling.outputs)
        whole["activations"] = lambda: activation_stream(config, activations, job.outputs)

    with staged_directory(directory, _FILES) as staged:
        entries = {}
        for name, image in images.items():
            entries[name] = _write_image(staged, name, image) | {"replays": replays[name]}
            if streams:
                (staged / f"{name}.memh").write_text(memh(whole[name]()), encoding="ascii")
        description = {
            "format": FORMAT,
            "version": VERSION,
            "core": _plain(config),
            "registers": job.registers(),
            "special_values": {Datatype(d).name: list(v) for d, v in weight.special_values.items()},
            "tiling": asdict(tiling),
            "images": entries,
        }
        write_file(staged / "job.json", json.dumps(description, indent=2, sort_keys=True) + "\n")
    return description


def read_weight(directory: Path, config: CoreConfig) -> QuantizedWeight:
    """The weight that a layer's image holds, read back packet by packet.

    Raises
    ------
    ValueError
        The directory was written for another core or in another format, or its image is damaged.
    """
    directory = Path(directory)
    entry = json.loads((directory / "job.json").read_text())
    if entry["format"] != FORMAT or entry["version"].split(".")[0] != VERSION.split(".")[0]:
        raise ValueError(f"{directory} must hold {FORMAT} {VERSION}, not {entry['format']} {entry['version']}")
    if entry["core"] != _plain(config):
        raise ValueError(f"{directory} was written for another core")
    octets, ends = ((directory / f"weights.{part}").read_bytes() for part in ("bin", "ends"))
    if hashlib.sha256(octets + ends).hexdigest() != entry["images"]["weights"]["sha256"]:
        raise ValueError(f"{directory}: the weight image is damaged")
    beats = np.frombuffer(octets, "<u8").astype(np.uint64).reshape(-1, config.rows)
    packets = iter(np.split(beats, np.frombuffer(ends, "<u4").astype(np.int64)[:-1] + 1))
    specials = {Datatype[name]: tuple(values) for name, values in entry["special_values"].items()}
    slices, chunks = [], chunk_slices(config, entry["registers"]["INPUTS"])
    for size in entry["tiling"]["outputs"]:
        parts = [_super_block(config, packets, size, specials) for _ in chunks]
        slices.append({name: torch.cat([getattr(part, name) for part in parts], 1) for name in _PER_INPUT})
        slices[-1]["channel_scale"] = parts[-1].channel_scale
    joined = {name: torch.cat([part[name] for part in slices]) for name in slices[0]}
    return QuantizedWeight(**joined, group_size=parts[0].group_size, special_values=specials)


_PER_INPUT = ("datatype", "codes", "select", "scale8")


def _super_block(config: CoreConfig, packets, size: int, specials) -> QuantizedWeight:
    """One chunk of a super-block of ``size`` channels: the next packets."""
    rows, scales = [], []
    for first in range(0, size, config.rows):
        packet = next(packets)
        for channel in range(min(config.rows, size - first)):
            header = int(packet[0, channel])
            rows.append(packet[1 : 1 + (header >> 32 & 0xFFFF), channel].copy())
            scales.append(header & 0xFFFFFFFF)
    scales = np.array(scales, np.uint32).view(np.float32)
    return unpack_rows(rows, lanes=config.datapath.lanes, channel_scale=scales, special_values=specials)


def _write_image(directory: Path, name: str, image: Packets) -> dict:
    octets = image.octets()
    ends = (np.cumsum(image.lengths) - 1).astype("<u4")
    (directory / f"{name}.bin").write_bytes(octets.tobytes())
    (directory / f"{name}.ends").write_bytes(ends.tobytes())
    return {
        "beats": len(octets),
        "beat_bytes": octets.shape[1],
        "packets": len(ends),
        "sha256": hashlib.sha256(octets.tobytes() + ends.tobytes()).hexdigest(),
    }


def _plain(config: CoreConfig) -> dict:
    """The configuration's parameters that matter to a host, as JSON."""
    data = config.datapath
    if isinstance(data, BitSerialConfig):
        kind = {"rounding": data.rounding, "accumulator_bits": data.accumulator_bits}
    else:
        kind = {"activation_bits": data.activation_bits, "digits": list(data.digits.multiples)}
    return {
        **{name: getattr(config, name) for name in ("rows", "columns", "token_sets", "chunk", "block_outputs")},
        "result_lanes": config.result_lanes,
        "lanes": data.lanes,
        "group_size": data.group_size,
        **kind,
    }

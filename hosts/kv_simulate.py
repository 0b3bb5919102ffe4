"""``python -m hosts.kv_simulate``: a packed cache through the generated KV engine, back to keys and values.

What comes out is compared with the exact model; the file holds what the simulator gave.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import safetensors.numpy
import typer

from golden.kv.engine_model import decode, round_fp16
from golden.kv.files import load_cache, load_dump
from golden.kv.float64 import decibels
from golden.kv.pack import unpack_block
from golden.kv.packed import KINDS, PackedCache
from hosts.kv_dequantizer import TOP, by_channel, emit_engine, mismatches, needed_config, run_packets
from shell.console import progress_bar, say, single
from shell.output import output_file, write_file
from sim.build import build
from spec import checks
from spec.kv_config import ENGINE_LANES

__all__ = ["Simulated", "simulate"]


@dataclass(frozen=True)
class Simulated:
    """A cache as the engine gave it.

    Attributes
    ----------
    tensors : dict of str to np.ndarray
        ``k`` and ``v``, float16 ``[layers, heads, tokens, D]``: sinks and newest tokens as the file holds them, all
        others from the engine.
    elements, mismatches, marked : int
        Elements out of the engine; those that differ from the exact model, are misplaced, or are marked and the model's
        not, or the other way round; those beyond FP16, which became +-65504.
    cycles : int
    lanes : int
    """

    tensors: dict[str, np.ndarray]
    elements: int
    mismatches: int
    marked: int
    cycles: int
    lanes: int


def simulate(
    cache: PackedCache,
    *,
    lanes: int | None = None,
    centre: bool = True,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Simulated:
    """Run every block of ``cache`` through the engine, built for what the blocks need.

    Parameters
    ----------
    lanes : int, optional
        Default: 16, with rfft 4.
    centre : bool
        Add the key centre back to the keys that the engine gives (docs/kv-engine.md, equation C3); else they come
        without, and sinks and newest tokens, which are stored with it, get it taken off.
    progress : callable
        Told how many blocks are done, of how many.
    """
    numbers = np.flatnonzero(cache.index[:, 2] != KINDS.index("centre"))
    packets = [cache.packet(number) for number in numbers]
    blocks = [unpack_block(packet) for packet in packets]
    for number, block in zip(numbers, blocks, strict=True):
        if decode(block).unused_overflow:
            layer, head, kind = cache.index[number].tolist()
            raise ValueError(
                f"{KINDS[kind]}s of layer {layer}, head {head}, tokens {block.tokens[0]}..{block.tokens[-1]} have a "
                "scale that takes some code beyond FP16: an engine refuses the block"
            )
    config = needed_config([block.header for block in blocks], lanes)
    with tempfile.TemporaryDirectory(prefix="bitmosaic-") as scratch:
        built = build(emit_engine(config, Path(scratch)).path_v, TOP)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(packets))

    output = run_packets(built, config, packets, seed=seed, progress=advance)
    centres = {(layer, head): block.scales for layer, head, block in cache.blocks("centre")}
    tensors = _outside(cache, {} if centre else centres)
    marked = 0
    for number, block, values, tokens in zip(numbers, blocks, output.values, output.tokens, strict=True):
        layer, head, kind = cache.index[number].tolist()
        out = by_channel(values, block, config)
        marked += int(decode(block).overflow.sum())
        name = "k" if kind == KINDS.index("key") else "v"
        if name == "k" and centre and (layer, head) in centres:
            mu = centres[layer, head].view(np.float16).astype(np.float64)
            out = round_fp16(out.astype(np.float64) + mu)[0]
        tensors[name][layer, head, np.clip(tokens, 0, cache.shape[2] - 1)] = out
    layers, heads, length, _ = cache.shape
    for name, x in tensors.items():
        joined = x.reshape(layers, heads, -1, length, x.shape[-1]).transpose(0, 1, 3, 2, 4)
        tensors[name] = np.ascontiguousarray(joined).reshape(cache.shape)
    wrong = mismatches(output, blocks, config)
    return Simulated(tensors, output.elements, wrong, marked, output.cycles, config.lanes)


def _outside(cache: PackedCache, centres: dict[tuple[int, int], np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors with the tokens outside blocks filled in, NaN elsewhere; ``centres`` are taken off these keys."""
    tensors = {name: np.full(cache.stored_shape, np.nan, np.float16) for name in "kv"}
    for name, side in (("k", "key"), ("v", "value")):
        residual_tokens = cache.exact[f"residual_{side}_tokens"]
        for part, tokens in (("sinks", slice(0, cache.fmt.sinks)), ("residual", residual_tokens)):
            held = cache.exact[f"{part}_{side}s"].astype(np.float64)
            scale = cache.exact.get(f"{part}_{side}s_scale")
            if scale is not None:
                held = held * scale.astype(np.float64)[..., None]
            tensors[name][:, :, tokens] = round_fp16(held)[0]
    for (layer, head), bits in centres.items():
        mu, keys = bits.view(np.float16).astype(np.float64), tensors["k"][layer, head].astype(np.float64)
        tensors["k"][layer, head] = np.where(np.isnan(keys), np.nan, round_fp16(np.nan_to_num(keys) - mu)[0])
    return tensors


def main(
    packed: Annotated[Path, typer.Argument(help="A file that `bitmosaic kv-pack` wrote.")],
    output: Annotated[Path, typer.Option(help="File for k and v.")] = Path("simulated.safetensors"),
    lanes: Annotated[
        int | None, typer.Option(help="Elements per cycle of the engine; default 16, with rfft 4.")
    ] = None,
    centre: Annotated[bool, typer.Option(help="Add the key centre back to what the engine gives.")] = True,
    reference: Annotated[Path | None, typer.Option(help="The dump that was packed, to state the error.")] = None,
    seed: Annotated[int, typer.Option(min=1, help="Start values of registers and memories.")] = 1,
):
    """Run a packed cache through the generated KV engine; exit status 1 if anything differs from the exact model."""
    if lanes is not None:
        checks.choice("lanes", lanes, ENGINE_LANES)
    output_file(output)
    cache = load_cache(packed)
    if output.exists() and output.samefile(packed):
        raise ValueError(f"output must not be the packed file {packed} itself")
    dump = None if reference is None else load_dump(reference)
    if dump is not None and tuple(dump.k.shape) != cache.shape:
        raise ValueError(f"reference must have shape {list(cache.shape)}, not {list(dump.k.shape)}")
    blocks = int((cache.index[:, 2] != KINDS.index("centre")).sum())
    with progress_bar("simulate", blocks) as advance:

        def tell(done: int, total: int) -> None:
            advance(f"blocks {done}/{total}", done)

        found = simulate(cache, lanes=lanes, centre=centre, seed=seed, progress=tell)
    write_file(output, safetensors.numpy.save(found.tensors))
    verdict = "PASS" if not found.mismatches else "FAIL"
    marked = f"{found.marked:,} beyond FP16, marked as in the model; " if found.marked else ""
    typer.echo(
        f"{verdict}: {found.elements:,} elements of the Verilog, {found.mismatches:,} mismatches; {marked}"
        f"{found.cycles:,} cycles, {found.elements / found.cycles:.2f} elements per cycle at {found.lanes} lanes"
    )
    if dump is not None and centre:
        for name, exact in (("k", dump.k), ("v", dump.v)):
            exact = exact.double().numpy()
            error = exact - found.tensors[name].astype(np.float64)
            typer.echo(f"{name}: {decibels(exact, error):.2f} dB to {reference}")
    say(output)
    raise typer.Exit(0 if not found.mismatches else 1)


app = single(main, "simulate")

if __name__ == "__main__":
    app()

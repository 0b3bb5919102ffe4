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
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from golden.kv.engine_model import decode, round_fp16
from golden.kv.files import load_cache, load_dump
from golden.kv.float64 import decibels
from golden.kv.pack import unpack_block
from golden.kv.packed import KINDS, PackedCache
from hosts.kv_dequantizer import TOP, by_channel, emit_engine, needed_config, run_packets
from shell.output import write_file
from sim.build import BuildError, build
from sim.runner import SimulationError
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
    elements, mismatches : int
        Elements out of the engine; those that differ from the exact model, or are marked or misplaced.
    cycles : int
    lanes : int
    """

    tensors: dict[str, np.ndarray]
    elements: int
    mismatches: int
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
    mismatches = sum(output.wrong)
    for number, block, values, tokens in zip(numbers, blocks, output.values, output.tokens, strict=True):
        layer, head, kind = cache.index[number].tolist()
        expected = decode(block)
        out = by_channel(values, block, config)
        mismatches += int((expected.values.view(np.uint16) != out.view(np.uint16)).sum())
        mismatches += block.header.channels * int((tokens != expected.tokens).sum())
        name = "k" if kind == KINDS.index("key") else "v"
        if name == "k" and centre and (layer, head) in centres:
            mu = centres[layer, head].view(np.float16).astype(np.float64)
            out = round_fp16(out.astype(np.float64) + mu)[0]
        tensors[name][layer, head, np.clip(tokens, 0, cache.shape[2] - 1)] = out
    return Simulated(tensors, output.elements, mismatches, output.cycles, config.lanes)


def _outside(cache: PackedCache, centres: dict[tuple[int, int], np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors with the tokens outside blocks filled in, NaN elsewhere; ``centres`` are taken off these keys."""
    tensors = {name: np.full(cache.shape, np.nan, np.float16) for name in "kv"}
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
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        if lanes is not None:
            checks.choice("lanes", lanes, ENGINE_LANES)
        if output.is_dir():
            raise IsADirectoryError(f"output must be a file, and {output} is a directory")
        if output.exists() and output.samefile(packed):
            raise ValueError(f"output must not be the packed file {packed} itself")
        cache = load_cache(packed)
        dump = None if reference is None else load_dump(reference)
        if dump is not None and tuple(dump.k.shape) != cache.shape:
            raise ValueError(f"reference must have shape {list(cache.shape)}, not {list(dump.k.shape)}")
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("building the simulator", total=None)

            def advance(done: int, total: int) -> None:
                bar.update(task, description="blocks", completed=done, total=total)
                if not console.is_terminal:
                    console.print(f"blocks {done}/{total}", highlight=False)

            found = simulate(cache, lanes=lanes, centre=centre, seed=seed, progress=advance)
        write_file(output, safetensors.numpy.save(found.tensors))
    except (ValueError, OSError, BuildError, SimulationError) as error:
        typer.echo(f"simulate: {error}", err=True)
        raise typer.Exit(2) from error
    verdict = "PASS" if not found.mismatches else "FAIL"
    typer.echo(
        f"{verdict}: {found.elements:,} elements of the Verilog, {found.mismatches:,} mismatches; {found.cycles:,} "
        f"cycles, {found.elements / found.cycles:.2f} elements per cycle at {found.lanes} lanes"
    )
    if dump is not None and centre:
        for name, exact in (("k", dump.k), ("v", dump.v)):
            exact = exact.double().numpy()
            error = exact - found.tensors[name].astype(np.float64)
            typer.echo(f"{name}: {decibels(exact, error):.2f} dB to {reference}")
    typer.echo(str(output))
    raise typer.Exit(0 if not found.mismatches else 1)


if __name__ == "__main__":
    typer.run(main)

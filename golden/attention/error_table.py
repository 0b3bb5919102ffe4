"""``python -m golden.attention.error_table``: what the integers' widths cost in a real layer's attention outputs."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from golden.attention.reference import real_block
from golden.attention.scores import block_scores, exact_scores, prepare_query
from golden.attention.values import add_block, add_exact, align_weights
from golden.document import write_between_markers
from golden.kv.config import preset
from golden.kv.engine_model import decode
from golden.kv.packed import PackedCache, pack_cache
from golden.kv.residual import write_int8
from golden.llm import capture_kv
from shell.console import single
from spec.attention import GROUP_ROWS, AttentionConfig

__all__ = ["output_errors"]

TOKENS = 1024
LAYERS = (3, 9, 15, 21, 27)
WIDTHS = tuple(
    (max(12, w), w, p) for w, p in ((8, 8), (9, 9), (10, 8), (10, 10), (11, 10), (11, 11), (12, 10), (12, 11), (16, 11))
)
MARKERS = "<!-- attention error: begin (python -m golden.attention.error_table) -->", "<!-- attention error: end -->"


def _exact(x: torch.Tensor, outside: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    kept = write_int8(x[None, outside])
    return kept.codes[0], kept.scale[0]


def output_errors(kv, layer: int, head: int, packed: PackedCache) -> dict[str, list[float]]:
    """Relative errors ``|o - o_64| / |o_64|`` of the newest token's outputs, one per query head of a KV head.

    o_64 is float64 attention over the same compressed cache. Keys: ``"W, Wp"`` of each of WIDTHS; ``"fp16"``: cache
    dequantized to FP16, float64 from there on, FP16 probabilities; ``"cache"``: what compression itself does to o_64.
    """
    blocks = {kind: [b for _, h, b in packed.blocks(kind) if h == head] for kind in ("centre", "key", "value")}
    centre = torch.from_numpy(blocks["centre"][0].scales.view(np.float16).astype(np.float64))
    k, v = kv.k[layer, head, :TOKENS].double(), kv.v[layer, head, :TOKENS].double()
    old = np.concatenate([b.tokens for b in blocks["key"]])
    outside = [t for t in range(TOKENS) if t not in set(old.tolist())]
    key_codes, key_scale = _exact(k - centre, outside)
    value_codes, value_scale = _exact(v, outside)
    order = torch.tensor([*outside, *old.tolist()])
    near = [key_codes.double() * key_scale.double()[:, None], value_codes.double() * value_scale.double()[:, None]]
    keys = torch.cat([near[0], *(real_block(b) for b in blocks["key"])])
    values = torch.cat([near[1], *(real_block(b) for b in blocks["value"])])
    fp16 = [
        torch.cat([x.half().double(), *(torch.from_numpy(decode(b).values).double() for b in blocks[kind])])
        for x, kind in zip(near, ("key", "value"), strict=True)
    ]
    found: dict[str, list[float]] = {}
    share = kv.q.shape[1] // kv.k.shape[1]
    for query_head in range(head * share, head * share + share):
        q = (kv.q[layer, query_head, TOKENS - 1].double() / k.shape[1] ** 0.5).half()
        reference = (keys @ q.double()).softmax(0) @ values

        def note(name, output, reference=reference):
            found.setdefault(name, []).append(float((output.double() - reference).norm() / reference.norm()))

        note("cache", ((k - centre)[order] @ q.double()).softmax(0) @ v[order])
        note("fp16", (fp16[0] @ q.double()).softmax(0).half().double() @ fp16[1])
        for query_bits, fold_bits, weight_bits in WIDTHS:
            config = AttentionConfig(query_bits=query_bits, fold_bits=fold_bits, weight_bits=weight_bits)
            header = blocks["key"][0].header
            query = prepare_query(q, header, blocks["key"][0].channels, config)
            scores = [exact_scores(query, key_codes, key_scale), *(block_scores(query, b) for b in blocks["key"])]
            p = torch.cat(scores).double().softmax(0).half()
            sums, start = torch.zeros(k.shape[1]), 0
            while start < len(outside):
                own = slice(start, min(start + GROUP_ROWS, len(outside)))
                sums = add_exact(sums, value_codes[own], align_weights(p[own], config, value_scale[own]))
                start = own.stop
            for block in blocks["value"]:
                stop = start + block.header.rows
                sums = add_block(sums, block, align_weights(p[start:stop], config))
                start = stop
            note(f"{fold_bits}, {weight_bits}", sums)
    return found


def table(errors: dict[str, list[float]]) -> str:
    """Markdown rows: median and largest."""
    names = {"cache": "the compression itself", "fp16": "dequantized to FP16"}
    lines = ["| W, Wp | median error | largest |", "|---|---:|---:|"]
    lines += [f"| {names.get(n, n)} | {np.median(x):.1e} | {max(x):.1e} |" for n, x in errors.items()]
    return "\n".join(lines)


def main(docs: Annotated[Path | None, typer.Option(help="Document with the markers.")] = None):
    """Measure the errors of attention outputs on SmolLM2's caches, default formats."""
    kv = capture_kv(TOKENS)
    errors: dict[str, list[float]] = {}
    for layer in LAYERS:
        one = slice(layer, layer + 1)
        packed = pack_cache(kv.k[one].float(), kv.v[one].float(), preset("default"))
        for head in range(kv.k.shape[1]):
            for name, found in output_errors(kv, layer, head, packed).items():
                errors.setdefault(name, []).extend(found)
    text = table(errors)
    print(text)
    if docs is not None:
        write_between_markers(docs, text, MARKERS)


if __name__ == "__main__":
    single(main, "error_table")()

"""``python -m golden.rlkv``: bytes of a cache of full and window heads; ``--doc`` writes the table into a document."""

import argparse
from pathlib import Path

from golden.document import write_between_markers
from golden.kv.config import preset
from golden.rlkv.plan import CacheShape, MemoryPlan, kv_bytes_rlkv
from golden.rlkv.policy import full_count
from spec.rlkv import rlkv_preset

MARKERS = ("<!-- rlkv bytes: begin (python -m golden.rlkv) -->", "<!-- rlkv bytes: end -->")
MODELS = {"llama-3.1-8b": 128, "qwen-2.5-7b": 128, "qwen-3-4b": 128}
"""Preset -> head dim."""
SPARSITIES = (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1)


def table(tokens: int) -> str:
    """Markdown: a row per model and sparsity."""
    lines = [
        f'{tokens} tokens, one sequence; sizes in GiB. "Read" is what one decoded token reads, each KV head once.',
        "",
        "| model | sparsity | full heads | FP16 (RLKV) | read, default formats | memory reserved | FP16 full / read |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, head_dim in MODELS.items():
        config = rlkv_preset(name)
        shape = CacheShape(layers=config.layers, heads=config.heads, head_dim=head_dim)
        everything = kv_bytes_rlkv(shape, shape.total, tokens)
        for sparsity in SPARSITIES:
            n_full = full_count(shape.total, sparsity)
            plan = MemoryPlan(config=config, head_dim=head_dim, fmt=preset("default"), n_full=n_full)
            plain = kv_bytes_rlkv(shape, n_full, tokens, window=config.window_slots)
            read = plan.read_bytes_per_token(tokens)
            sizes = [f"{size / (1 << 30):.4f}" for size in (plain, read, plan.reserved_bytes(tokens))]
            row = [name, f"{sparsity:g}", f"{n_full} of {shape.total}", *sizes, f"{everything / read:.1f}"]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m golden.rlkv", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1 << 15, help="length of the sequence (default: %(default)s)")
    parser.add_argument("--doc", type=Path, help="document whose table to replace")
    arguments = parser.parse_args()
    try:
        text = table(arguments.tokens)
        if arguments.doc:
            write_between_markers(arguments.doc, text, MARKERS)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(text, end="")


if __name__ == "__main__":
    main()

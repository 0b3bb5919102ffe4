"""The three published adapter tables, where they are at hand."""

import pytest
import torch

from gen.synth.liberty import find_data_dir
from golden.rlkv import load_adapter

__all__ = ["SPARSITIES", "TABLES", "adapter"]

TABLES = {"llama-3.1-8b-r1": "llama-3.1-8b", "qwen-2.5-7b-r1": "qwen-2.5-7b", "qwen-3-4b-thinking": "qwen-3-4b"}
"""Name of the table -> preset of its model's shape."""
SPARSITIES = (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1)


def adapter(name: str) -> torch.Tensor:
    """The named table from the data directory; skips the test without it."""
    data = find_data_dir()
    path = data / "rlkv" / f"{name}.tsv" if data else None
    if path is None or not path.is_file():
        pytest.skip(f"no {name}.tsv in $BITMOSAIC_DATA/rlkv")
    return load_adapter(path)

"""Real text with no download: the Python language reference as the standard library carries it.

`pydoc_data.topics` changes between Python releases, so whatever is computed from it reports `text_hash`.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import torch

from golden.llm.checkpoint import checkpoint_hash, load_tokenizer
from shell.output import write_file
from spec import checks

CACHE_DIR = Path("build/data")


@lru_cache(maxsize=1)
def source_text() -> str:
    """All topics in alphabetical order of their names, one newline between them."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def text_hash() -> str:
    """SHA-256 of `source_text` in UTF-8, hexadecimal."""
    return hashlib.sha256(source_text().encode()).hexdigest()


def text_tokens(count: int, start: int = 0, cache_dir: Path = CACHE_DIR) -> torch.Tensor:
    """Tokens ``start .. start + count - 1`` of the text, int64 ``[count]``, no begin-of-text token added.

    The tokenised text is cached under `cache_dir` by checkpoint and text hash.

    Raises
    ------
    ValueError
        `count` or `start` reaches outside the text.
    """
    ids = _all_tokens(Path(cache_dir).resolve())
    checks.whole("start", start, 0, len(ids) - 1)
    checks.whole("count", count, 1, len(ids) - start)
    return torch.tensor(ids[start : start + count], dtype=torch.int64)


def token_count(cache_dir: Path = CACHE_DIR) -> int:
    """Tokens of the whole text."""
    return len(_all_tokens(Path(cache_dir).resolve()))


@lru_cache(maxsize=1)
def _all_tokens(cache_dir: Path) -> list[int]:
    path = cache_dir / f"tokens-{checkpoint_hash()[:12]}-{text_hash()[:12]}.json"
    if path.exists():
        return json.loads(path.read_text())
    # One call over the whole text: it is far longer than the context, which is no error here.
    ids = load_tokenizer()(source_text(), verbose=False)["input_ids"]
    write_file(path, json.dumps(ids).encode())
    return ids

"""Texts to calibrate and to evaluate on: four kinds that every installation has, or files.

All change with the versions of what they come from, so whoever uses one reports its hash.
"""

import hashlib
import sysconfig
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from golden.llm.text import source_text
from spec import checks

__all__ = ["TEXTS", "read_text", "text_digest", "windows"]

_ENOUGH = 400_000
"""Characters of a text at most: a hundred thousand tokens."""


def _joined(paths: list[Path]) -> str:
    parts, length = [], 0
    for path in paths:
        parts.append(path.read_text(errors="replace"))
        length += len(parts[-1])
        if length > _ENOUGH:
            break
    return "\n".join(parts)[:_ENOUGH]


def _code() -> str:
    """Python: the modules of the standard library, alphabetically."""
    return _joined(sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*.py")))


def _headers() -> str:
    """C++: headers that PyTorch ships."""
    return _joined(sorted((Path(torch.__file__).parent / "include" / "ATen").glob("*.h")))


def _licenses() -> str:
    """Legal prose: the licenses that come with PyTorch, each paragraph once."""
    homes = Path(torch.__file__).parent.parent.glob("torch-*.dist-info")
    paths = sorted(
        path for home in homes for path in home.rglob("*") if "LICENSE" in path.name.upper() and path.is_file()
    )
    paragraphs = dict.fromkeys(part.strip() for part in _joined(paths).split("\n\n"))
    return "\n\n".join(paragraphs)


TEXTS: dict[str, Callable[[], str]] = {"docs": source_text, "code": _code, "headers": _headers, "licenses": _licenses}
"""``docs``: the Python reference (`golden.llm.text`); ``code``: Python; ``headers``: C++; ``licenses``: legal prose."""


@lru_cache(maxsize=8)
def read_text(source: str) -> str:
    """The text of that name, or of the file at that path.

    Raises
    ------
    ValueError
        Neither a name nor a file, or an empty one.
    """
    if source in TEXTS:
        text = TEXTS[source]()
    elif Path(source).is_file():
        text = Path(source).read_text(errors="replace")
    else:
        raise ValueError(f"text must be one of {', '.join(TEXTS)}, or a file, not {source!r}")
    if not text.strip():
        raise ValueError(f"text {source!r} is empty")
    return text


def text_digest(source: str) -> str:
    """SHA-256 of the text in UTF-8, hexadecimal."""
    return hashlib.sha256(read_text(source).encode()).hexdigest()


def windows(source: str, tokenizer, count: int, tokens: int, *, last: bool = False) -> list[torch.Tensor]:
    """The first (or last) ``count`` stretches of ``tokens`` tokens, int64 each, so that both ends do not overlap.

    Raises
    ------
    ValueError
        The text is shorter than twice that, of which half is left to whoever takes the other end.
    """
    checks.whole("count", count, 1)
    checks.whole("tokens", tokens, 2)
    text = read_text(source)
    # Twelve characters a token are more than any text has: less need not be tokenized.
    text = text[-12 * count * tokens :] if last else text[: 12 * count * tokens]
    ids = tokenizer(text, verbose=False)["input_ids"]
    if len(ids) < count * tokens or len(read_text(source)) < 2 * len(text) * count * tokens / len(ids):
        raise ValueError(
            f"text {source!r} must have more than {2 * count * tokens} tokens for {count} windows at either end, "
            f"not about {len(ids) * len(read_text(source)) // len(text)}"
        )
    ids = ids[-count * tokens :] if last else ids[: count * tokens]
    return list(torch.tensor(ids, dtype=torch.int64).split(tokens))

"""The model that a plan is for: SmolLM2 as it is installed, or a directory as transformers saves one."""

import hashlib
from pathlib import Path

import torch

from golden.llm.checkpoint import MODEL_NAME, checkpoint_hash, load_model, load_tokenizer

__all__ = ["DEFAULT", "open_model"]

DEFAULT = MODEL_NAME


def open_model(name: str) -> tuple[torch.nn.Module, object, str]:
    """(model in float32 without gradients, tokenizer, hash of the checkpoint) of :data:`DEFAULT` or a directory.

    Raises
    ------
    ValueError
        Neither; no weights in the directory; a model that transformers cannot load, or that is no causal LM with
        rotary embedding.
    """
    if name == DEFAULT:
        return load_model(), load_tokenizer(), checkpoint_hash()
    home = Path(name)
    if not home.is_dir():
        raise ValueError(f"model must be {DEFAULT} or a directory with a Hugging Face checkpoint, not {name!r}")
    files = sorted(path for kind in ("*.safetensors", "*.bin") for path in home.glob(kind))
    if not files:
        raise ValueError(f"{home} holds no .safetensors or .bin file")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    try:
        options = {"local_files_only": True}
        model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32, attn_implementation="sdpa", **options)
        tokenizer = AutoTokenizer.from_pretrained(home, **options)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"transformers cannot load {home}: {str(error).splitlines()[0]}") from error
    if not hasattr(model, "lm_head") or not hasattr(getattr(model, "model", None), "rotary_emb"):
        raise ValueError(f"{home} must hold a causal LM with rotary embedding, not {type(model).__name__}")
    return model.eval().requires_grad_(False), tokenizer, digest.hexdigest()

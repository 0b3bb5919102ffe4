"""A real LLM as a source of weights, activations and KV caches: SmolLM2-135M over real text, offline."""

from golden.llm.capture import KV, capture_activations, capture_kv
from golden.llm.checkpoint import (
    CHECKPOINT_CAVEAT,
    MODEL_NAME,
    CheckpointNotFoundError,
    checkpoint_hash,
    layer_names,
    layer_shapes,
    layer_weight,
    load_model,
    load_tokenizer,
)
from golden.llm.perplexity import perplexity, token_losses
from golden.llm.text import text_hash, text_tokens

__all__ = [
    "CHECKPOINT_CAVEAT",
    "KV",
    "MODEL_NAME",
    "CheckpointNotFoundError",
    "capture_activations",
    "capture_kv",
    "checkpoint_hash",
    "layer_names",
    "layer_shapes",
    "layer_weight",
    "load_model",
    "load_tokenizer",
    "perplexity",
    "text_hash",
    "text_tokens",
    "token_losses",
]

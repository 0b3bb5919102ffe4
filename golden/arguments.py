"""One check for tensors that are handed in: what is taken, what is refused, and by which name."""

from collections.abc import Sequence

import torch

__all__ = ["tensor"]


def tensor(name: str, value: object, axes: Sequence[str], dtypes: Sequence[torch.dtype] = ()) -> torch.Tensor:
    """``value`` without its history of gradients, on the CPU.

    Parameters
    ----------
    axes : sequence of str
        Names of the axes, for the message and their number.
    dtypes : sequence of torch.dtype
        What is allowed; none: any real floating point number of at least 16 bits.

    Raises
    ------
    TypeError, ValueError
        Not a torch tensor, another dtype; sparse, without contents (meta), or of other axes.
    """
    allowed = tuple(dtypes) or (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
    wanted = f"a tensor [{', '.join(axes)}] of {kinds}"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be {wanted}, not {type(value).__module__}.{type(value).__qualname__}")
    if value.dtype not in allowed:
        raise TypeError(f"{name} must be {wanted}, not {str(value.dtype).removeprefix('torch.')}")
    if value.layout != torch.strided or value.is_meta:
        raise ValueError(f"{name} must be dense and have contents, not {value.layout} on {value.device}")
    if value.dim() != len(axes):
        raise ValueError(f"{name} must be {wanted}, not of shape {list(value.shape)}")
    return value.detach().cpu()

"""What VidKV's released code does to a cache, so that the difference to the paper's intent can be shown.

Re-implemented from a description of its behaviour (KD-TAO/VidKV, vidkv_quant and cache_utils): groups of 32 tokens,
FP16 scale and minimum everywhere, and

- 1-bit keys are reconstructed as {0, s}, not {-s, +s};
- the Fourier transform is complex, and its full spectrum is stored: two values per channel;
- ternary values are read back as -1, 0, +1: their scale is dropped;
- each flush of the residual dequantizes and requantizes the whole cache and chooses the 2-bit channels anew.
"""

import torch

from golden.kv.config import CacheFormat

__all__ = ["GROUP", "ReleasedCache", "one_bit", "released_bits", "released_keys", "released_values", "two_bit"]

GROUP = 32
TERNARY_GAMMA = 0.5


def _grouped(x: torch.Tensor, function) -> torch.Tensor:
    heads, tokens, channels = x.shape
    if tokens % GROUP:
        raise ValueError(f"tokens must be a multiple of {GROUP}, not {tokens}")
    return function(x.double().reshape(heads, tokens // GROUP, GROUP, channels)).reshape(x.shape)


def two_bit(x: torch.Tensor) -> torch.Tensor:
    """2-bit minimum/maximum of ``[heads, tokens, channels]`` and back, float64, FP16 scale and minimum."""

    def groups(y):
        low = y.amin(2, keepdim=True)
        scale = ((y.amax(2, keepdim=True) - low) / 3).half().double()
        low = low.half().double()
        return torch.round((y - low) / torch.where(scale > 0, scale, 1.0)).clamp(0, 3) * scale + low

    return _grouped(x, groups)


def one_bit(x: torch.Tensor) -> torch.Tensor:
    """1 bit: x >= 0 comes back as s = mean |x|, everything else as 0."""
    return _grouped(x, lambda y: (y >= 0) * y.abs().mean(2, keepdim=True).half().double())


def ternary(x: torch.Tensor) -> torch.Tensor:
    """Ternary codes, read back without a scale: -1, 0, +1."""
    return _grouped(x, lambda y: torch.sign(y) * (y.abs() > TERNARY_GAMMA * y.abs().mean(2, keepdim=True)))


def released_keys(keys: torch.Tensor, anomalous: float) -> torch.Tensor:
    """Keys ``[heads, tokens, D]`` of one layer after one trip through the cache, float64.

    The int(D * anomalous) channels of largest range over all heads and tokens are stored at 2 bits in every head; the
    complex spectrum of the others at 1 bit.
    """
    keys = keys.double()
    head_dim = keys.shape[-1]
    spread = keys.amax((0, 1)) - keys.amin((0, 1))
    order = spread.argsort(descending=True, stable=True)
    count = int(head_dim * anomalous)
    hard, easy = order[:count].sort().values, order[count:].sort().values
    out = torch.empty_like(keys)
    out[..., hard] = two_bit(keys[..., hard])
    if len(easy):
        spectrum = torch.view_as_real(torch.fft.fft(keys[..., easy], dim=-1)).flatten(-2)
        stored = one_bit(spectrum).unflatten(-1, (-1, 2)).contiguous()
        out[..., easy] = torch.fft.ifft(torch.view_as_complex(stored), dim=-1).real
    return out


def released_values(values: torch.Tensor, protected: torch.Tensor | None = None) -> torch.Tensor:
    """Values ``[heads, tokens, D]`` after one trip: ternary, and 2 bits for a multiple of 32 `protected` tokens."""
    values = values.double()
    if protected is None:
        return ternary(values)
    out = torch.empty_like(values)
    out[:, protected] = two_bit(values[:, protected])
    out[:, ~protected] = ternary(values[:, ~protected])
    return out


class ReleasedCache:
    """One layer's packed tokens as the released code treats them: all requantized at every flush.

    Parameters
    ----------
    fmt : CacheFormat
        Only the share of anomalous key channels is read from it.
    """

    def __init__(self, fmt: CacheFormat) -> None:
        if fmt.mode != "released":
            raise ValueError(f"mode must be 'released', not {fmt.mode!r}")
        self._anomalous = fmt.key.anomalous
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None

    def flush(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add a residual ``[heads, n * 32, D]``, requantizing what is there already; `keys`, `values` change."""
        if self.keys is not None:
            keys = torch.cat([self.keys, keys.double()], 1)
            values = torch.cat([self.values, values.double()], 1)
        self.keys = released_keys(keys, self._anomalous)
        self.values = released_values(values)


def released_bits(fmt: CacheFormat) -> tuple[float, float]:
    """Bits per element that the code stores: (keys, values).

    Scale and minimum cost 32 bits per 32 tokens; the spectrum doubles the 1-bit part; a ternary code takes 2 bits.
    """
    metadata = 32 / GROUP
    share = fmt.key.anomalous
    return share * (2 + metadata) + (1 - share) * 2 * (1 + metadata), 2 + metadata

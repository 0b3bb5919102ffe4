"""Values of groups by either kind of datapath: what a core's running sums add."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from golden.bitserial.dot import dequantize_group, group_sums
from golden.prealigned.aligner import AlignedActivations, align
from golden.prealigned.dot import group_values
from golden.weights.quantized import QuantizedWeight
from spec.bitserial import BitSerialConfig
from spec.prealigned import PrealignedConfig

__all__ = ["PreparedActivations", "prepare"]


class PreparedActivations(ABC):
    """Activations as the PEs of a core take them."""

    @property
    @abstractmethod
    def poison(self) -> torch.Tensor:
        """Whether an Inf or NaN is among a token's activations; bool [tokens]."""

    @abstractmethod
    def values(self, weight: QuantizedWeight) -> torch.Tensor:
        """Dequantized group sums in FP32; float32 [tokens, out, groups], zero is +0."""


@dataclass(frozen=True, eq=False)
class _Aligned(PreparedActivations):
    """A1 to A4, P3, Q1 and Q2 of docs/prealigned.md."""

    aligned: AlignedActivations

    @property
    def poison(self) -> torch.Tensor:
        return self.aligned.poison.any(1)

    def values(self, weight: QuantizedWeight) -> torch.Tensor:
        return group_values(weight, self.aligned)


@dataclass(frozen=True, eq=False)
class _Raw(PreparedActivations):
    """P1 to P6, G1 and G2 of docs/weights.md."""

    activations: torch.Tensor
    config: BitSerialConfig

    @property
    def poison(self) -> torch.Tensor:
        return ~torch.isfinite(self.activations).all(1)

    def values(self, weight: QuantizedWeight) -> torch.Tensor:
        options = {name: getattr(self.config, name) for name in ("lanes", "rounding", "accumulator_bits")}
        return dequantize_group(*group_sums(weight, self.activations, **options), weight.scale8)


def prepare(
    datapath: PrealignedConfig | BitSerialConfig, activations: torch.Tensor, group_size: int
) -> PreparedActivations:
    """float16 [tokens, in] in groups of ``group_size``, as a datapath's PEs take them.

    Raises TypeError or ValueError naming what is wrong.
    """
    if isinstance(datapath, BitSerialConfig):
        return _Raw(activations, datapath)
    return _Aligned(align(activations, group_size=group_size, activation_bits=datapath.activation_bits))

"""A quantized weight tensor: codes, per-group datatype, select and scale8, per-channel scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from spec.datatypes import MAX_CODE_BITS, Datatype, default_special_values, special_value_allowed
from spec.packet import MAX_INPUTS, group_size_code

__all__ = ["QuantizedWeight", "checked_special_values"]

_RESERVED = torch.iinfo(torch.int32).min
_KNOWN = torch.tensor([field in list(Datatype) for field in range(256)])


def checked_special_values(
    special_values: Mapping[Datatype, tuple[int, ...]] | None, *, signed_terms: bool = True
) -> dict[Datatype, tuple[int, ...]]:
    """The four special values of FP3 and of FP4, defaults filled in. Raises ValueError naming a wrong one."""
    registers = default_special_values()
    for datatype, values in (special_values or {}).items():
        if datatype not in registers:
            raise ValueError(f"special_values may set {[d.name for d in registers]}, not {datatype!r}")
        values = tuple(int(value) for value in values)
        if len(values) != 4:
            raise ValueError(f"special_values[{Datatype(datatype).name}] must be four integers, not {values!r}")
        for value in values:
            if not special_value_allowed(value, signed_terms=signed_terms):
                kind = "sum or difference" if signed_terms else "sum"
                raise ValueError(
                    f"special_values[{Datatype(datatype).name}] holds {value}, which is not the {kind} of one of "
                    "0, 2, 4, 8, 16 and one of 0, 1, 2, 4, 8 with a magnitude up to 16"
                )
        registers[Datatype(datatype)] = values
    return registers


@lru_cache(maxsize=64)
def _value_table(fp3: tuple[int, ...], fp4: tuple[int, ...]) -> torch.Tensor:
    """int32 [16 datatype fields, 4 selects, 256 codes]; what has no value is _RESERVED."""
    table = torch.full((16, 4, 1 << MAX_CODE_BITS), _RESERVED, dtype=torch.int32)
    registers = {Datatype.FP3: fp3, Datatype.FP4: fp4}
    for datatype in Datatype:
        for select in range(4):
            special = registers.get(datatype, (0, 0, 0, 0))[select]
            for code in range(1 << datatype.bits):
                value = datatype.value_of(code, special)
                table[datatype, select, code] = _RESERVED if value is None else value
    return table


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Weights ``v(code) * scale8 * channel_scale``, row by row; groups run along the input channels.

    Parameters
    ----------
    datatype : uint8 tensor [out, groups]
        :class:`spec.datatypes.Datatype` of every group (it may change from group to group).
    codes : uint8 tensor [out, in]
    select : uint8 tensor [out, groups]
        Which of the datatype's four special values the negative-zero code stands for, 0..3.
    scale8 : uint8 tensor [out, groups]
    channel_scale : float32 tensor [out]
    group_size : int
        32, 64 or 128; a row's last group may be short.
    special_values : mapping
        The four special-value registers of FP3 and of FP4, in integer units.

    Raises
    ------
    TypeError, ValueError
        Naming the field that is wrong, and what is allowed.
    """

    datatype: torch.Tensor
    codes: torch.Tensor
    select: torch.Tensor
    scale8: torch.Tensor
    channel_scale: torch.Tensor
    group_size: int
    special_values: Mapping[Datatype, tuple[int, ...]] = field(default_factory=default_special_values)

    def __post_init__(self):
        group_size_code(self.group_size)
        object.__setattr__(self, "special_values", checked_special_values(self.special_values))
        if self.codes.dim() != 2 or 0 in self.codes.shape:
            raise ValueError(f"codes must be a non-empty [out, in] tensor, not one of shape {list(self.codes.shape)}")
        if self.shape[1] > MAX_INPUTS:
            raise ValueError(f"codes must have at most {MAX_INPUTS} input channels, not {self.shape[1]}")
        per_group, per_row = (self.shape[0], self.groups), (self.shape[0],)
        expected = {
            "datatype": (torch.uint8, per_group),
            "codes": (torch.uint8, self.shape),
            "select": (torch.uint8, per_group),
            "scale8": (torch.uint8, per_group),
            "channel_scale": (torch.float32, per_row),
        }
        for name, (dtype, shape) in expected.items():
            tensor = getattr(self, name)
            if tensor.dtype != dtype:
                raise TypeError(f"{name} must be a {dtype} tensor, not {tensor.dtype}")
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, not {list(tensor.shape)}")
        if bool((self.select > 3).any()):
            raise ValueError(f"select must be in 0..3, not {int(self.select.max())}")
        known = _KNOWN[self.datatype.int()]
        if not bool(known.all()):
            wrong = int(self.datatype[~known][0])
            raise ValueError(f"datatype must be one of {[f'{d.value} ({d.name})' for d in Datatype]}, not {wrong}")
        if not bool(torch.isfinite(self.channel_scale).all()):
            raise ValueError("channel_scale must be finite")
        reserved = self._lookup() == _RESERVED
        if bool(reserved.any()):
            row, column = reserved.nonzero()[0].tolist()
            datatype = Datatype(int(self.datatype[row, column // self.group_size]))
            raise ValueError(
                f"codes[{row}, {column}] = {int(self.codes[row, column])} has no value in {datatype.name} "
                f"({datatype.bits} bits)"
            )

    @classmethod
    def from_codes(
        cls,
        datatype: Datatype | torch.Tensor,
        codes: torch.Tensor,
        *,
        group_size: int = 128,
        select: torch.Tensor | int = 0,
        scale8: torch.Tensor | int = 1,
        channel_scale: torch.Tensor | float = 1.0,
        special_values: Mapping[Datatype, tuple[int, ...]] | None = None,
    ) -> "QuantizedWeight":
        """Wrap given codes [out, in] (KV codes, random tests); scalars stand for every group or row."""
        group_size_code(group_size)
        if codes.dim() != 2:
            raise ValueError(f"codes must be a [out, in] tensor, not one of shape {list(codes.shape)}")
        out, groups = codes.shape[0], -(-codes.shape[1] // group_size)

        def spread(value, dtype, shape):
            return value if isinstance(value, torch.Tensor) else torch.full(shape, value, dtype=dtype)

        return cls(
            datatype=spread(datatype, torch.uint8, (out, groups)),
            codes=codes,
            select=spread(select, torch.uint8, (out, groups)),
            scale8=spread(scale8, torch.uint8, (out, groups)),
            channel_scale=spread(channel_scale, torch.float32, (out,)),
            group_size=group_size,
            special_values=special_values,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """[output channels, input channels]."""
        return tuple(self.codes.shape)

    @property
    def groups(self) -> int:
        """Groups per row."""
        return -(-self.shape[1] // self.group_size)

    def expand(self, per_group: torch.Tensor) -> torch.Tensor:
        """Repeat a [out, groups] tensor for every weight: [out, in]."""
        return per_group.repeat_interleave(self.group_size, dim=1)[:, : self.shape[1]]

    def _lookup(self) -> torch.Tensor:
        table = _value_table(self.special_values[Datatype.FP3], self.special_values[Datatype.FP4])
        base = (self.datatype.int() * 4 + self.select.int()) << MAX_CODE_BITS
        return table.view(-1)[self.expand(base) + self.codes]

    def integers(self) -> torch.Tensor:
        """``v(code)``, int32 [out, in], in -128..127."""
        return self._lookup()

    def first_difference(self, other: "QuantizedWeight") -> str | None:
        """Name of the first field that ``other`` has otherwise, if any."""
        for name in ("group_size", "special_values"):
            if getattr(self, name) != getattr(other, name):
                return name
        for name in ("datatype", "select", "scale8", "channel_scale", "codes"):
            if not torch.equal(getattr(self, name), getattr(other, name)):
                return name
        return None

    def dequantize(self) -> torch.Tensor:
        """The weights as the hardware sees them, float32 [out, in]; only the product by the channel scale rounds."""
        return (self.integers() * self.expand(self.scale8.int())).float() * self.channel_scale[:, None]

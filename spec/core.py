"""Configuration of the accelerator core, and how a job is cut into blocks (docs/core.md)."""

from dataclasses import dataclass, field
from functools import cached_property

from spec import checks
from spec.bitserial import BitSerialConfig
from spec.datatypes import MAX_CODE_BITS
from spec.packet import GROUP_HEADER_BITS, GROUP_SIZES, MAX_ROW_LENGTH, ROW_HEADER_BITS, WORD_BITS, Field
from spec.prealigned import PrealignedConfig

__all__ = ["CHANNEL_HEADER", "CoreConfig", "Tiling", "split"]

CHANNEL_HEADER = (
    Field("channel_scale", 0, 32, "FP32 scale of the output channel"),
    Field("words", 32, 16, "64-bit words of the row packet that follows"),
    Field("reserved", 48, 15, "0"),
    Field("parity", 63, 1, "makes the number of ones in the word even"),
)
"""First word of a channel's slice in a weight packet of the core."""


def split(count: int, most: int) -> list[int]:
    """``count`` units in the fewest parts of at most ``most``, all equal but for a smaller last one (equation T1).

    That is, parts of ``ceil(count / ceil(count / most))``: 5 in parts of up to 4 are 3 and 2, not 4 and 1.
    """
    part = -(-count // -(-count // most))
    return [min(part, count - start) for start in range(0, count, part)]


@dataclass(frozen=True)
class Tiling:
    """The loops of a job, sizes in order: docs/core.md, section 2.

    Attributes
    ----------
    tokens : list of int
        Tokens of each token block.
    outputs : list of int
        Output channels of each super-block.
    chunks : list of int
        Input channels of each chunk.
    """

    tokens: list[int]
    outputs: list[int]
    chunks: list[int]


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """Parameters of ``hw.core.AcceleratorCore``.

    Parameters
    ----------
    rows : int
        R, PEs along output channels, a power of two up to 64.
    columns : int
        C, PEs along tokens, a power of two up to 64.
    token_sets : int
        1 or 2: how many sets of C tokens take turns at every group of weights. 2 halves the weight stream, and a
        group's least duration where ``RunningSums.interval`` sets it.
    drain_chains : int
        Chains through which a column's sums leave, each with a dequantizer and running sums of its own; a power of
        two. A group lasts at least R / ``drain_chains`` cycles.
    datapath : PrealignedConfig or BitSerialConfig
        Kind of the PEs; lanes, largest group, datatypes; digit set and width of the aligned activations, or rounding.
    chunk : int
        Largest number of input channels that a pass goes through. Activations of two such chunks, or of more that are
        smaller, are in the core at a time. A multiple of ``datapath.group_size``.
    block_outputs : int
        Largest super-block: output channels whose running sums are in the core. A multiple of ``rows``.
    result_lanes : int
        P, FP32 results per cycle and beat, a power of two; ``rows`` is a multiple of 2 P, and P of ``drain_chains``.
    max_inputs, max_outputs : int
        Largest K and N, up to 16384.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    rows: int = 8
    columns: int = 8
    token_sets: int = 2
    drain_chains: int = 2
    datapath: PrealignedConfig | BitSerialConfig = field(default_factory=PrealignedConfig)
    chunk: int = 512
    block_outputs: int = 128
    result_lanes: int = 4
    max_inputs: int = MAX_ROW_LENGTH
    max_outputs: int = 1 << 14

    def __post_init__(self):
        checks.instance("datapath", self.datapath, PrealignedConfig, BitSerialConfig)
        for name, most in (("rows", 64), ("columns", 64), ("drain_chains", 8), ("result_lanes", 32)):
            checks.power_of_two(name, getattr(self, name), 1, most)
        checks.whole("rows", self.rows, 1, 64, 2 * self.result_lanes)
        checks.whole("result_lanes", self.result_lanes, 1, 32, self.drain_chains)
        checks.whole("token_sets", self.token_sets, 1, 2)
        checks.whole("chunk", self.chunk, self.datapath.group_size, 4096, self.datapath.group_size)
        checks.whole("block_outputs", self.block_outputs, self.rows, 4095, self.rows)
        checks.whole("max_inputs", self.max_inputs, 1, MAX_ROW_LENGTH)
        checks.whole("max_outputs", self.max_outputs, 1, 1 << 14)

    @property
    def block_tokens(self) -> int:
        """Tokens of a full token block: C times the token sets."""
        return self.columns * self.token_sets

    @property
    def drain_cycles(self) -> int:
        """Cycles in which the sums of a group leave: R over the drain chains."""
        return self.rows // self.drain_chains

    @property
    def stored_units(self) -> int:
        """Units of ``datapath.group_size`` input channels that the chunk memories hold, a power of two: two of the
        largest chunks, or more of smaller ones."""
        return 2 << (self.chunk // self.datapath.group_size - 1).bit_length()

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Group sizes that a job may have."""
        return tuple(size for size in GROUP_SIZES if size <= self.datapath.group_size)

    @cached_property
    def max_words(self) -> int:
        """64-bit words of the longest row packet: a chunk of INT8 in the smallest groups."""
        groups = -(-self.chunk // GROUP_SIZES[0])
        bits = ROW_HEADER_BITS + groups * GROUP_HEADER_BITS + self.chunk * MAX_CODE_BITS
        return -(-bits // WORD_BITS)

    def tiling(self, tokens: int, inputs: int, outputs: int) -> Tiling:
        """How a job of M = ``tokens``, K = ``inputs``, N = ``outputs`` is cut (equations T1 to T4)."""
        unit, rows = self.datapath.group_size, self.rows
        groups = split(-(-inputs // unit), self.chunk // unit)
        blocks = split(-(-outputs // rows), self.block_outputs // rows)

        def ragged(parts, unit, total):
            sizes = [unit * part for part in parts]
            return [*sizes[:-1], total - sum(sizes[:-1])]

        full, rest = divmod(tokens, self.block_tokens)
        return Tiling(
            tokens=[self.block_tokens] * full + [rest] * (rest > 0),
            outputs=ragged(blocks, rows, outputs),
            chunks=ragged(groups, unit, inputs),
        )

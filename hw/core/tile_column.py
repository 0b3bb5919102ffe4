"""What a column of PEs needs of its tokens, and what becomes of its sums."""

from amaranth import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.formats import FP32
from hw.core.activations import ChunkWrite
from hw.core.parts import parts
from hw.core.schedule import MOST_DELAY
from hw.prealigned.accumulator import RunningSums
from hw.streams.registers import delay
from spec.core import CoreConfig

__all__ = ["ChunkAddress", "ColumnResult", "DrainedSum", "GroupAddress", "SumStart", "TileColumn"]


class ChunkAddress(data.StructLayout):
    """A beat of activations in the chunk memories: ``beat``, token ``set``."""

    def __init__(self, config: CoreConfig):
        sets = {"set": 1} if config.token_sets > 1 else {}
        super().__init__({"beat": ChunkWrite(config)["beat"].shape, **sets})


class GroupAddress(data.StructLayout):
    """A group's exponent and poison in the chunk memories: ``group``, token ``set``."""

    def __init__(self, config: CoreConfig):
        sets = {"set": 1} if config.token_sets > 1 else {}
        super().__init__({"group": ChunkWrite(config)["group"].shape, **sets})


class DrainedSum(data.Struct):
    """What belongs to the sum at the end of a drain chain: ``scale`` (scale8), and ``fault``."""

    scale: 8
    fault: 1


class SumStart(data.StructLayout):
    """What is to become of a group's sums: the running sum ``index`` within its chain, whether the group is its
    ``first`` or ``last``."""

    def __init__(self, config: CoreConfig):
        super().__init__({"index": ceil_log2(running_sums(config)), "first": 1, "last": 1})


def running_sums(config: CoreConfig) -> int:
    """Running sums of each drain chain."""
    return config.token_sets * config.block_outputs // config.drain_chains


class ColumnResult(data.Struct):
    """A dot product before the channel scale: ``value``, and whether it is marked."""

    value: FP32
    error: 1


class TileColumn(wiring.Component):
    """A column's chunk memories and multiples, and for each drain chain a dequantizer and running sums.

    ```
    write --> chunks --> multiples
    sums --> dequantizer --> pending --> RunningSums --> o
    ```

    Multiples come ``latency`` cycles after their address. ``group`` is read one cycle before the first sums of a group
    are at the end of the drain chains, and holds for all of the group's sums. Dequantized sums wait in ``pending``,
    first in, first out, until ``start`` takes them: ``drained_latency`` cycles after they were drained at the earliest,
    and ``MOST_DELAY`` cycles later at the latest.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    write : ChunkWrite, In
    write_enable : In
        ``write`` is this column's.
    read : ChunkAddress, In
    multiples : Out
        As the datapath's PEs take them.
    group : GroupAddress, In
    group_read : In
    sums : array, In
        The ends of the drain chains.
    drained : array of DrainedSum, In
        One for each chain.
    drained_valid : In
    start : SumStart, In
        Of the next sums that wait, one of each chain.
    start_valid : In
    o : array of ColumnResult, Out
        One for each chain, after a last group.
    o_valid : Out
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        self._parts = made = parts(config.datapath)
        self.latency = 1 + made.multiples_latency
        self.drained_latency = made.dequantizer_latency + 1
        super().__init__(
            {
                "write": In(ChunkWrite(config)),
                "write_enable": In(1),
                "read": In(ChunkAddress(config)),
                "multiples": Out(made.multiple),
                "group": In(GroupAddress(config)),
                "group_read": In(1),
                "sums": In(made.sum).array(config.drain_chains),
                "drained": In(DrainedSum).array(config.drain_chains),
                "drained_valid": In(1),
                "start": In(SumStart(config)),
                "start_valid": In(1),
                "o": Out(ColumnResult).array(config.drain_chains),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        integers = self.write.integers
        m.submodules.chunks = chunks = memory.Memory(
            shape=integers.shape(), depth=1 << len(self.read.as_value()), init=[]
        )
        about = data.StructLayout({"exponent": 5, "poison": 1})
        m.submodules.groups = groups = memory.Memory(shape=about, depth=1 << len(self.group.as_value()), init=[])
        m.submodules.multiples = multiples = self._parts.multiples()

        write, read = chunks.write_port(), chunks.read_port()
        write_group, read_group = groups.write_port(), groups.read_port()
        address, group = ChunkAddress(config)(write.addr), GroupAddress(config)(write_group.addr)
        if config.token_sets > 1:
            m.d.comb += [target.set.eq(self.write.set) for target in (address, group)]
        m.d.comb += [
            address.beat.eq(self.write.beat),
            group.group.eq(self.write.group),
            write.data.eq(integers),
            write.en.eq(self.write_enable),
            write_group.data.exponent.eq(self.write.exponent),
            write_group.data.poison.eq(self.write.poison),
            write_group.en.eq(self.write_enable),
            read.addr.eq(self.read),
            read.en.eq(1),
            read_group.addr.eq(self.group),
            read_group.en.eq(self.group_read),
        ]
        m.d.comb += [multiples.i.integers.eq(read.data), self.multiples.eq(multiples.o)]

        # Where the sums of all chains wait is the same.
        valid = self.drained_valid
        arriving = Signal(range(PLACES))
        leaving = Signal(range(PLACES))
        for k in range(self._parts.dequantizer_latency):
            later = Signal(name=f"valid{k}")
            m.d.sync += later.eq(valid)
            valid = later
        start = Signal.like(self.start, reset_less=True)
        start_valid = Signal()
        m.d.sync += [
            arriving.eq(arriving + valid),
            leaving.eq(leaving + self.start_valid),
            start.eq(self.start),
            start_valid.eq(self.start_valid),
        ]
        about = read_group.data
        for chain in range(config.drain_chains):
            value, error = self._dequantize(m, chain, about)
            name = f"pending{chain}"
            m.submodules[name] = pending = memory.Memory(shape=ColumnResult, depth=PLACES, init=[])
            put, take = pending.write_port(), pending.read_port()
            m.submodules[f"running{chain}"] = sums = RunningSums(running_sums(config))
            m.d.comb += [
                put.addr.eq(arriving),
                put.data.value.eq(value),
                put.data.error.eq(error),
                put.en.eq(valid),
                take.addr.eq(leaving),
                take.en.eq(1),
                sums.i.value.eq(take.data.value),
                sums.i.error.eq(take.data.error),
                sums.i.index.eq(start.index),
                sums.i.first.eq(start.first),
                sums.i.last.eq(start.last),
                sums.i_valid.eq(start_valid),
                self.o[chain].value.eq(sums.o.value),
                self.o[chain].error.eq(sums.o.error),
            ]
            if chain == 0:
                m.d.comb += self.o_valid.eq(sums.o_valid)
        return m

    def _dequantize(self, m, chain, about):
        """A chain's sum in FP32, and whether it is marked."""
        m.submodules[f"dequantizer{chain}"] = dequantizer = self._parts.dequantizer()
        drained = self.drained[chain]
        m.d.comb += [
            dequantizer.i.eq(self.sums[chain]),
            dequantizer.exponent.eq(about.exponent),
            dequantizer.scale.eq(drained.scale),
        ]
        error = delay(m, drained.fault | about.poison, f"error{chain}", self._parts.dequantizer_latency)
        return dequantizer.o, error


PLACES = 1 << ceil_log2(MOST_DELAY + 2)
"""Sums that may wait in a chain: one comes and one goes per cycle, each at most so many cycles later."""

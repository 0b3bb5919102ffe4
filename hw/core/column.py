"""What a column of PEs needs of its tokens, and what becomes of its sums."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.core.activations import BANKS, ChunkWrite
from hw.fp32 import FP32
from hw.prealigned.accumulator import RunningSums
from hw.prealigned.dequantizer import GroupDequantizer
from hw.prealigned.multiples import OddMultiples
from hw.prealigned.pe import MultipleBeat, RedundantSum
from hw.spec.core import CoreConfig

__all__ = ["ChunkAddress", "ColumnResult", "DrainedSum", "GroupAddress", "TileColumn"]


class ChunkAddress(data.StructLayout):
    """A beat of activations in the chunk memories: ``beat`` of the chunk, token ``set``, ``bank``."""

    def __init__(self, config: CoreConfig):
        beat = ceil_log2(config.chunk // config.datapath.lanes)
        sets = {"set": 1} if config.token_sets > 1 else {}
        super().__init__({"beat": beat, **sets, "bank": ceil_log2(BANKS)})


class GroupAddress(data.StructLayout):
    """A group's exponent and poison in the chunk memories: ``group`` of the chunk, token ``set``, ``bank``."""

    def __init__(self, config: CoreConfig):
        group = ceil_log2(config.chunk // min(config.group_sizes))
        sets = {"set": 1} if config.token_sets > 1 else {}
        super().__init__({"group": group, **sets, "bank": ceil_log2(BANKS)})


class DrainedSum(data.StructLayout):
    """What belongs to the sum at the end of the drain chains: ``scale`` (scale8), ``fault``, running sum ``index``,
    whether the group is its ``first`` or ``last``."""

    def __init__(self, config: CoreConfig):
        index = ceil_log2(config.token_sets * config.block_outputs)
        super().__init__({"scale": 8, "fault": 1, "index": index, "first": 1, "last": 1})


class ColumnResult(data.Struct):
    """A dot product before the channel scale: ``value``, and whether it is marked."""

    value: FP32
    error: 1


class TileColumn(wiring.Component):
    """A column's chunk memories, odd multiples, dequantizer and running sums.

    Multiples come ``latency`` cycles after their address. ``group`` is read one cycle before the first sum of a group
    is at the end of the drain chain, and holds for all of the group's sums.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    write : ChunkWrite, In
    write_enable : In
        ``write`` is this column's.
    read : ChunkAddress, In
    multiples : MultipleBeat, Out
    group : GroupAddress, In
    group_read : In
    sum : RedundantSum, In
        The end of the drain chain.
    drained : DrainedSum, In
    drained_valid : In
    o : ColumnResult, Out
        After a last group, ``result_latency`` cycles after its ``drained``.
    o_valid : Out
    """

    latency = 1 + OddMultiples.latency
    result_latency = GroupDequantizer.latency + RunningSums.latency

    def __init__(self, config: CoreConfig):
        self.config = config
        datapath = config.datapath
        super().__init__(
            {
                "write": In(ChunkWrite(config)),
                "write_enable": In(1),
                "read": In(ChunkAddress(config)),
                "multiples": Out(MultipleBeat(datapath)),
                "group": In(GroupAddress(config)),
                "group_read": In(1),
                "sum": In(RedundantSum(datapath.accumulator_bits)),
                "drained": In(DrainedSum(config)),
                "drained_valid": In(1),
                "o": Out(ColumnResult),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, datapath = self.config, self.config.datapath
        integers = self.write.integers
        m.submodules.chunks = chunks = memory.Memory(
            shape=integers.shape(), depth=1 << len(self.read.as_value()), init=[]
        )
        about = data.StructLayout({"exponent": 5, "poison": 1})
        m.submodules.groups = groups = memory.Memory(shape=about, depth=1 << len(self.group.as_value()), init=[])
        m.submodules.multiples = multiples = OddMultiples(datapath)
        m.submodules.dequantizer = dequantizer = GroupDequantizer(datapath)
        m.submodules.running = sums = RunningSums(config.token_sets * config.block_outputs)

        write, read = chunks.write_port(), chunks.read_port()
        write_group, read_group = groups.write_port(), groups.read_port()
        address, group = ChunkAddress(config)(write.addr), GroupAddress(config)(write_group.addr)
        for target in (address, group):
            m.d.comb += target.bank.eq(self.write.bank)
            if config.token_sets > 1:
                m.d.comb += target.set.eq(self.write.set)
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

        valid, poison = self.drained_valid, read_group.data.poison
        m.d.comb += [
            dequantizer.i.eq(self.sum),
            dequantizer.exponent.eq(read_group.data.exponent),
            dequantizer.scale.eq(self.drained.scale),
        ]
        # The rest keeps pace with the dequantizer.
        along = Cat(self.drained.as_value()[8:], poison)
        for k in range(GroupDequantizer.latency):
            later, later_valid = Signal(len(along), name=f"along{k}", reset_less=True), Signal(name=f"valid{k}")
            m.d.sync += [later.eq(along), later_valid.eq(valid)]
            along, valid = later, later_valid
        drained = data.View(DrainedSum(config), Cat(dequantizer.scale, along[:-1]))
        m.d.comb += [
            sums.i.value.eq(dequantizer.o),
            sums.i.index.eq(drained.index),
            sums.i.first.eq(drained.first),
            sums.i.last.eq(drained.last),
            sums.i.error.eq(drained.fault | along[-1]),
            sums.i_valid.eq(valid),
            self.o.value.eq(sums.o.value),
            self.o.error.eq(sums.o.error),
            self.o_valid.eq(sums.o_valid),
        ]
        return m

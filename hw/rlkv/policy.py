"""The policy table: one bit per (layer, KV head), and how many full heads come before each layer."""

from amaranth import Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.rlkv.layouts import address_bits
from spec import checks
from spec.rlkv import RlkvConfig

__all__ = ["PolicyRow", "PolicyTable", "popcount"]


def popcount(bits):
    """Number of ones, as a balanced tree."""
    if len(bits) == 1:
        return bits
    half = len(bits) // 2
    return popcount(bits[:half]) + popcount(bits[half:])


class PolicyRow(data.StructLayout):
    """A layer's ``mask`` (bit h set: KV head h is full), ``last`` with the final layer's."""

    def __init__(self, heads: int):
        super().__init__({"mask": heads, "last": 1})


class PolicyTable(wiring.Component):
    """Memory of the head policy, written whole: as many rows as layers, in order, ``last`` with the final one.

    The table counts only once it is whole (``valid``); the first row of a new one invalidates the old. A row too many,
    or ``last`` too early, is ``refused``, and so are all rows until the next ``last``; loading then starts over.

    Throughput: a row per cycle, always ready. A read takes 1 cycle.

    Parameters
    ----------
    config : RlkvConfig

    Members
    -------
    i : stream of PolicyRow, In
    refused : Out
        The row of this cycle does not fit.
    valid : Out
    full : Out
        Full heads of all layers together.
    layer, read : In
        Address and strobe of a read.
    mask, before : Out
        The layer's row and the full heads in the layers before it, a cycle after ``read`` and until the next.
    """

    def __init__(self, config: RlkvConfig):
        checks.instance("config", config, RlkvConfig)
        self.config = config
        total = bits_for(config.layers * config.heads)
        super().__init__(
            {
                "i": In(stream.Signature(PolicyRow(config.heads))),
                "refused": Out(1),
                "valid": Out(1),
                "full": Out(total),
                "layer": In(address_bits(config.layers)),
                "read": In(1),
                "mask": Out(config.heads),
                "before": Out(total),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layers = self.config.layers
        shape = data.StructLayout({"mask": self.config.heads, "before": len(self.full)})
        m.submodules.table = table = memory.Memory(shape=shape, depth=max(2, layers), init=[])
        write, read = table.write_port(), table.read_port()

        row = Signal(range(layers + 1))  # rows so far, and no more than there are layers
        total = Signal.like(self.full)
        row_total = Signal.like(self.full)
        payload = self.i.payload
        final = row == layers - 1
        m.d.comb += [
            self.i.ready.eq(1),
            row_total.eq(total + popcount(payload.mask)),
            self.refused.eq(self.i.valid & ((row == layers) | (payload.last != final))),
            write.addr.eq(row),
            write.data.mask.eq(payload.mask),
            write.data.before.eq(total),
            write.en.eq(self.i.valid & (row != layers)),
        ]
        with m.If(self.i.valid):
            m.d.sync += self.valid.eq(payload.last & ~self.refused)
            with m.If(payload.last):
                m.d.sync += [row.eq(0), total.eq(0), self.full.eq(row_total)]
            with m.Elif(self.refused):
                m.d.sync += row.eq(layers)
            with m.Else():
                m.d.sync += [row.eq(row + 1), total.eq(row_total)]

        m.d.comb += [
            read.addr.eq(self.layer),
            read.en.eq(self.read),
            self.mask.eq(read.data.mask),
            self.before.eq(read.data.before),
        ]
        return m

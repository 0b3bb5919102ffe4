"""What the AXI blocks of both attention cores share: packets with TUSER, common registers, lists under way."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hw.attention.core import AttentionCore
from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS, load_map
from hw.axi.lite import AxiLitePort
from hw.axi.registers import AxiLiteRegisters
from hw.axi.stream import AxiStreamPort
from spec.attention import BUS_BYTES, PACKET_USER

__all__ = ["AttentionBlock", "lists_under_way"]

LISTS_BITS = 8
"""Of a count of lists under way: the queues of a core hold a few."""


class AttentionBlock(wiring.Component):
    """An attention core behind AXI4-Stream data and AXI4-Lite control; each stream goes through a register slice.

    Parameters
    ----------
    core : AttentionCore
    name : str
        Of its register map.
    inputs, results : AxiStreamPort
        Its two streams besides ``s_axis_packets``: 128-bit beats, TUSER as in ``spec.attention.PACKET_USER``.
    """

    def __init__(self, core: AttentionCore, name: str, inputs: AxiStreamPort, results: AxiStreamPort):
        self.core, self.config = core, core.config
        self._registers = load_map(name)
        self._inputs, self._results = inputs, results
        self._packets = AxiStreamPort("s", "packets", 8 * BUS_BYTES, user_bits=len(PACKET_USER))
        self._control = AxiLitePort(ADDRESS_BITS)
        super().__init__(ports(inputs, self._packets, results, self._control, irq=Out(1)))

    def add_core(self):
        """Core and registers in a new module; returns (module, registers, stream of what comes in, result to drive)."""
        m = Module()
        add_clock(m, self)
        m.submodules.core = core = self.core
        m.submodules.registers = registers = AxiLiteRegisters(self._registers)
        self._control.connect(m, self, registers.bus)
        results = self._results.sink(m, self)
        m.d.comb += [results.valid.eq(core.o.valid), core.o.ready.eq(results.ready), results.p.last.eq(core.o.p.last)]
        return m, registers, self._inputs.source(m, self), results.p

    def add_packets(self, m: Module, registers):
        """Packets to the core; returns whether a list's first beat passes.

        A packet's TUSER is that of its first beat, so a packet cannot change its mind in its midst.
        """
        packets, sink = self._packets.source(m, self), self.core.i
        beat = sink.payload
        first = Signal(init=1)
        first_of_list = Signal(init=1)
        kept = Signal(len(PACKET_USER), reset_less=True)
        user = Mux(first, packets.p.user, kept)
        taken = packets.valid & packets.ready
        with m.If(taken):
            m.d.sync += [first.eq(packets.p.last), kept.eq(user), first_of_list.eq(packets.p.last & beat.final)]
        m.d.comb += [
            beat.data.eq(packets.p.data),
            beat.last.eq(packets.p.last),
            *(beat[field.name].eq(user[field.offset]) for field in PACKET_USER),
            sink.valid.eq(packets.valid),
            packets.ready.eq(sink.ready),
            registers.beats.count.increment.eq(taken),
        ]
        return taken & first_of_list

    def add_registers(self, m: Module, registers, *, ends, busy, refused=0):
        """Registers that both have. ``ends``: a list does; ``busy``: one has begun; ``refused``: a write has been."""
        core = self.core
        wrong = (core.error != 0) | (core.error_count != 0) | refused
        counts = registers.lists.count, registers.beats.count, registers.busy_cycles.count
        m.d.comb += [
            registers.build.channels.eq(self.config.channels),
            core.error_clear.eq(registers.control.clear),
            registers.status.busy.eq(busy),
            registers.error.code.eq(core.error),
            registers.error.count.eq(core.error_count),
            *(count.clear.eq(registers.control.clear_counters) for count in counts),
            registers.lists.count.increment.eq(ends),
            registers.busy_cycles.count.increment.eq(core.busy),
            self.irq.eq(registers.irq_enable.error & wrong),
        ]


def lists_under_way(m: Module, begins, ends, name: str):
    """Whether more lists have begun than ended."""
    count = Signal(LISTS_BITS, name=f"{name}_under_way")
    m.d.sync += count.eq(count + begins - ends)
    return count != 0

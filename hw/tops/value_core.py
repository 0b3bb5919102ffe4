"""The value core as an AXI block."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hw.attention.value.core import ValueCore
from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS, load_map
from hw.axi.lite import AxiLitePort
from hw.axi.registers import AxiLiteRegisters
from hw.axi.stream import AxiStreamPort
from hw.tops.attention_ports import PacketPort, lists_under_way
from spec.attention import PACKET_USER, WEIGHT_DATA, AttentionConfig

__all__ = ["ValueCoreAxi"]

WEIGHT_BITS = 32
RESULT_BITS = 16


class ValueCoreAxi(wiring.Component):
    """A :class:`hw.attention.value.core.ValueCore` with AXI4-Stream data and AXI4-Lite control (docs/attention.md,
    section 11).

    Arithmetic, throughput and errors are the core's; each stream takes one cycle more in a register slice.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    aclk, aresetn : In
        One clock; the reset is active low and synchronous.
    s_axis_weights_tdata, _tlast, _tuser, _tvalid, _tready
        A probability per beat: FP16 in TDATA[15:0], in TDATA[31:16] the FP16 scale of an exact token's value;
        TUSER[0]: of an exact token, TUSER[1]: of its list's last group. TLAST ends a group.
    s_axis_packets_tdata, _tlast, _tuser, _tvalid, _tready
        Blocks and runs of exact tokens; TUSER[0]: the packet is a run, TUSER[1]: it is its list's last.
    m_axis_results_tdata, _tlast, _tuser, _tvalid, _tready
        FP16 elements of a list's result, channel order; TUSER[0]: marked.
    s_axil_*
        The registers of ``hw/tops/value_core.rdl`` (docs/registers.md).
    irq : Out
        High while ERROR or STATUS.refused is not 0 and IRQ_ENABLE.error is set.

    Raises
    ------
    TypeError
        If ``config`` is not an AttentionConfig.
    """

    def __init__(self, config: AttentionConfig):
        self.core = ValueCore(config)
        self.config = config
        self._weights = AxiStreamPort("s", "weights", WEIGHT_BITS, user_bits=len(PACKET_USER))
        self._packets = PacketPort()
        self._results = AxiStreamPort("m", "results", RESULT_BITS, user_bits=1)
        self._control = AxiLitePort(ADDRESS_BITS)
        super().__init__(ports(self._weights, self._packets, self._results, self._control, irq=Out(1)))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.core = core = self.core
        m.submodules.registers = registers = AxiLiteRegisters(load_map("value_core"))
        self._control.connect(m, self, registers.bus)
        beat, packets_begin = self._packets.connect(m, self, core.i)
        weights_begin = self._connect_weights(m)
        results, result = self._results.sink(m, self), core.o.payload
        m.d.comb += [
            results.p.data.eq(result.value),
            results.p.last.eq(result.last),
            results.p.user.eq(result.marked),
            results.valid.eq(core.o.valid),
            core.o.ready.eq(results.ready),
        ]
        ends = core.o.valid & core.o.ready & result.last
        # What waits before the core has begun too: a new head dim would be that list's.
        busy = lists_under_way(m, packets_begin, ends, "packets") | lists_under_way(m, weights_begin, ends, "weights")
        busy = busy | core.i.valid | core.weights.valid
        refused = self._connect_head_dim(m, registers, busy)
        self._connect_registers(m, registers, beat, ends, busy, refused)
        return m

    def _connect_weights(self, m):
        """Returns whether the first weight of a list passes."""
        outside, core = self._weights.source(m, self), self.core
        weight = core.weights.payload
        first = Signal(init=1)
        taken = Signal()
        m.d.comb += [
            *(weight[field.name].eq(outside.p.data[field.offset :][: field.width]) for field in WEIGHT_DATA),
            weight.last.eq(outside.p.last),
            *(weight[field.name].eq(outside.p.user[field.offset]) for field in PACKET_USER),
            core.weights.valid.eq(outside.valid),
            outside.ready.eq(core.weights.ready),
            taken.eq(outside.valid & outside.ready),
        ]
        with m.If(taken):
            m.d.sync += first.eq(weight.last & weight.final)
        return taken & first

    def _connect_head_dim(self, m, registers, busy):
        """The register HEAD_DIM; returns whether a write has been refused since the last clear."""
        port, most = registers.head_dim, self.config.channels
        channels = Signal(range(most // 8), init=most // 8 - 1)
        refused = Signal()
        wanted = port.data[:8]
        fits = (wanted[:3] == 0) & (wanted != 0) & (wanted <= most)
        with m.If(registers.control.clear):
            m.d.sync += refused.eq(0)
        with m.If(port.write & port.strobes[0]):
            with m.If(fits & ~busy):
                m.d.sync += channels.eq((wanted >> 3) - 1)
            with m.Else():
                m.d.sync += refused.eq(1)
        m.d.comb += [port.value.eq((channels + 1) << 3), self.core.channels.eq(channels)]
        return refused

    def _connect_registers(self, m, registers, beat, done, busy, refused):
        core, config = self.core, self.config
        clear = registers.control.clear_counters
        wrong = (core.error != 0) | (core.error_count != 0) | refused
        m.d.comb += [
            registers.build.channels.eq(config.channels),
            registers.build.weight_bits.eq(config.weight_bits),
            core.error_clear.eq(registers.control.clear),
            registers.status.busy.eq(busy),
            registers.status.refused.eq(refused),
            registers.error.code.eq(core.error),
            registers.error.count.eq(core.error_count),
            *(counter.count.clear.eq(clear) for counter in (registers.lists, registers.beats, registers.busy_cycles)),
            registers.lists.count.increment.eq(done),
            registers.beats.count.increment.eq(beat),
            registers.busy_cycles.count.increment.eq(core.busy),
            self.irq.eq(registers.irq_enable.error & wrong),
        ]

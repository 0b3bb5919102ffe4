"""The value core as an AXI block."""

from amaranth import Signal

from hw.attention.value.core import ValueCore
from hw.axi.stream import AxiStreamPort
from hw.tops.attention_block import AttentionBlock, lists_under_way
from spec.attention import PACKET_USER, WEIGHT_DATA, AttentionConfig

__all__ = ["ValueCoreAxi"]

WEIGHT_BITS = 32
RESULT_BITS = 16


class ValueCoreAxi(AttentionBlock):
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
        weights = AxiStreamPort("s", "weights", WEIGHT_BITS, user_bits=len(PACKET_USER))
        results = AxiStreamPort("m", "results", RESULT_BITS, user_bits=1)
        super().__init__(ValueCore(config), "value_core", weights, results)

    def elaborate(self, platform):
        m, registers, weights, result = self.add_core()
        core = self.core
        packets_begin = self.add_packets(m, registers)
        weights_begin = self._connect_weights(m, weights)
        ends = core.o.valid & core.o.ready & core.o.payload.last
        # What waits before the core has begun too: a new head dim would be that list's.
        busy = lists_under_way(m, packets_begin, ends, "packets") | lists_under_way(m, weights_begin, ends, "weights")
        busy = busy | core.i.valid | core.weights.valid
        refused = self._connect_head_dim(m, registers, busy)
        self.add_registers(m, registers, ends=ends, busy=busy, refused=refused)
        m.d.comb += [
            result.data.eq(core.o.payload.value),
            result.user.eq(core.o.payload.marked),
            registers.build.weight_bits.eq(self.config.weight_bits),
        ]
        return m

    def _connect_weights(self, m, outside):
        """Returns whether the first weight of a list passes."""
        core = self.core
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
        m.d.comb += [
            port.value.eq((channels + 1) << 3),
            registers.status.refused.eq(refused),
            self.core.channels.eq(channels),
        ]
        return refused

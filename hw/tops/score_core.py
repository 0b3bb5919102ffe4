"""The score core as an AXI block."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hw.attention.score.core import ScoreCore
from hw.attention.score.query_packet import QueryUnpacker
from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS, load_map
from hw.axi.lite import AxiLitePort
from hw.axi.registers import AxiLiteRegisters
from hw.axi.stream import AxiStreamPort
from hw.tops.attention_ports import PacketPort, lists_under_way
from spec.attention import QUERY_WORD_BITS, SCORE_DATA, SCORE_USER, AttentionConfig

__all__ = ["ScoreCoreAxi"]

SCORE_BITS = 64


class ScoreCoreAxi(wiring.Component):
    """A :class:`hw.attention.score.core.ScoreCore` with AXI4-Stream data and AXI4-Lite control (docs/attention.md,
    section 11).

    Arithmetic, throughput and errors are the core's; each stream takes one cycle more in a register slice, a query
    D + 4 cycles to come in.

    Parameters
    ----------
    config : AttentionConfig

    Members
    -------
    aclk, aresetn : In
        One clock; the reset is active low and synchronous.
    s_axis_queries_tdata, _tlast, _tvalid, _tready
        A packet per query: header (``spec.attention.QUERY_HEADER``), two words of mask, then four FP16 elements a
        beat in channel order.
    s_axis_packets_tdata, _tlast, _tuser, _tvalid, _tready
        Blocks and runs of exact tokens; TUSER[0]: the packet is a run, TUSER[1]: it is the last of its query's list.
    m_axis_scores_tdata, _tlast, _tuser, _tvalid, _tready
        A score per beat: FP32 in TDATA[31:0], in TDATA[47:32] the value's FP16 scale of an exact token, else 0;
        TUSER[0]: marked, TUSER[1]: last of its list. A packet is the scores of a packet.
    s_axil_*
        The registers of ``hw/tops/score_core.rdl`` (docs/registers.md).
    irq : Out
        High while ERROR is not 0 and IRQ_ENABLE.error is set.

    Raises
    ------
    TypeError
        If ``config`` is not an AttentionConfig.
    """

    def __init__(self, config: AttentionConfig):
        self.core = ScoreCore(config)
        self.config = config
        self._queries = AxiStreamPort("s", "queries", QUERY_WORD_BITS)
        self._packets = PacketPort()
        self._scores = AxiStreamPort("m", "scores", SCORE_BITS, user_bits=len(SCORE_USER))
        self._control = AxiLitePort(ADDRESS_BITS)
        super().__init__(ports(self._queries, self._packets, self._scores, self._control, irq=Out(1)))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.core = core = self.core
        m.submodules.unpacker = unpacker = QueryUnpacker()
        m.submodules.registers = registers = AxiLiteRegisters(load_map("score_core"))
        self._control.connect(m, self, registers.bus)
        queries = self._queries.source(m, self)
        m.d.comb += [
            unpacker.i.payload.data.eq(queries.p.data),
            unpacker.i.payload.last.eq(queries.p.last),
            unpacker.i.valid.eq(queries.valid),
            queries.ready.eq(unpacker.i.ready),
        ]
        wiring.connect(m, unpacker.layout, core.layout)
        wiring.connect(m, unpacker.o, core.query)
        beat, _ = self._packets.connect(m, self, core.i)
        scores, score = self._scores.sink(m, self), core.o.payload
        m.d.comb += [
            *(scores.p.data[field.offset :][: field.width].eq(score[field.name]) for field in SCORE_DATA),
            scores.p.last.eq(score.last),
            *(scores.p.user[field.offset].eq(score[field.name]) for field in SCORE_USER),
            scores.valid.eq(core.o.valid),
            core.o.ready.eq(scores.ready),
        ]
        begins = core.layout.valid & core.layout.ready
        ends = core.o.valid & core.o.ready & score.final
        self._connect_registers(m, registers, beat, ends, lists_under_way(m, begins, ends, "queries"))
        return m

    def _connect_registers(self, m, registers, beat, done, busy):
        core, config = self.core, self.config
        clear = registers.control.clear_counters
        m.d.comb += [
            registers.build.channels.eq(config.channels),
            registers.build.query_bits.eq(config.query_bits),
            registers.build.fold_bits.eq(config.fold_bits),
            registers.build.minima.eq(config.minima),
            registers.build.transforms.eq(sum(1 << code for code in {0, *config.parser.transforms})),
            core.error_clear.eq(registers.control.clear),
            registers.status.busy.eq(busy),
            registers.error.code.eq(core.error),
            registers.error.count.eq(core.error_count),
            *(counter.count.clear.eq(clear) for counter in (registers.lists, registers.beats, registers.busy_cycles)),
            registers.lists.count.increment.eq(done),
            registers.beats.count.increment.eq(beat),
            registers.busy_cycles.count.increment.eq(core.busy),
            self.irq.eq(registers.irq_enable.error & ((core.error != 0) | (core.error_count != 0))),
        ]

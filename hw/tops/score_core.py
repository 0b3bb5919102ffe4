"""The score core as an AXI block."""

from amaranth.lib import wiring

from hw.attention.score.core import ScoreCore
from hw.attention.score.query_packet import QueryUnpacker
from hw.axi.stream import AxiStreamPort
from hw.tops.attention_block import AttentionBlock, lists_under_way
from spec.attention import QUERY_WORD_BITS, SCORE_DATA, SCORE_USER, AttentionConfig

__all__ = ["ScoreCoreAxi"]

SCORE_BITS = 64


class ScoreCoreAxi(AttentionBlock):
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
        queries = AxiStreamPort("s", "queries", QUERY_WORD_BITS)
        scores = AxiStreamPort("m", "scores", SCORE_BITS, user_bits=len(SCORE_USER))
        super().__init__(ScoreCore(config), "score_core", queries, scores)

    def elaborate(self, platform):
        m, registers, queries, result = self.add_core()
        core, config = self.core, self.config
        self.add_packets(m, registers)
        m.submodules.unpacker = unpacker = QueryUnpacker()
        wiring.connect(m, unpacker.layout, core.layout)
        wiring.connect(m, unpacker.o, core.query)
        score = core.o.payload
        begins = core.layout.valid & core.layout.ready
        ends = core.o.valid & core.o.ready & score.final
        self.add_registers(m, registers, ends=ends, busy=lists_under_way(m, begins, ends, "queries"))
        m.d.comb += [
            unpacker.i.payload.data.eq(queries.p.data),
            unpacker.i.payload.last.eq(queries.p.last),
            unpacker.i.valid.eq(queries.valid),
            queries.ready.eq(unpacker.i.ready),
            *(result.data[field.offset :][: field.width].eq(score[field.name]) for field in SCORE_DATA),
            *(result.user[field.offset].eq(score[field.name]) for field in SCORE_USER),
            registers.build.query_bits.eq(config.query_bits),
            registers.build.fold_bits.eq(config.fold_bits),
            registers.build.minima.eq(config.minima),
            registers.build.transforms.eq(sum(1 << code for code in {0, *config.parser.transforms})),
        ]
        return m

"""The KV dequant engine as an AXI block."""

from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.axi.clocking import add_clock, ports
from hw.axi.stream import AxiStreamPort
from hw.kv.engine import KvDequantizer
from hw.kv.errors import COUNTER_BITS
from hw.kv.layouts import ERROR_BITS
from spec import checks
from spec.kv_config import OUTPUT_USER, OUTPUT_USER_BITS, KvEngineConfig

__all__ = ["KvDequantizerAxi"]


class KvDequantizerAxi(wiring.Component):
    """A :class:`hw.kv.engine.KvDequantizer` with AXI4-Stream data.

    Behaviour, throughput and errors are the engine's; each stream takes one cycle more in a register slice.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    aclk, aresetn : In
        One clock; the reset is active low and synchronous.
    s_axis_tdata, _tlast, _tvalid, _tready
        Blocks (docs/kv-engine.md, section 2), 4 bits per lane and beat; TLAST on a block's last beat.
    m_axis_tdata, _tkeep, _tlast, _tuser, _tvalid, _tready
        FP16 elements, lane 0 lowest; TUSER as in ``spec.kv_config.OUTPUT_USER``; TLAST on a block's last beat.
    error_code : Out
        :class:`spec.kv_config.KvError` of the first error since the last clear, 0 for none.
    error_count : Out
        Bad blocks since then, at most 65535.
    error_clear : In
    add_centre : In
        With ``centre``: as the engine's. Hold it from a block's first beat on until its first beat comes out.
    """

    def __init__(self, config: KvEngineConfig | None = None):
        config = KvEngineConfig() if config is None else config
        checks.instance("config", config, KvEngineConfig)
        self.config = config
        self._blocks = AxiStreamPort("s", "", config.input_bits)
        self._elements = AxiStreamPort("m", "", config.output_bits, keep=True, user_bits=OUTPUT_USER_BITS)
        others = {"error_code": Out(ERROR_BITS), "error_count": Out(COUNTER_BITS), "error_clear": In(1)}
        others |= {"add_centre": In(1)} if config.centre else {}
        super().__init__(ports(self._blocks, self._elements, **others))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.engine = engine = KvDequantizer(self.config)
        blocks = self._blocks.source(m, self)
        m.d.comb += [
            engine.i.payload.data.eq(blocks.p.data),
            engine.i.payload.last.eq(blocks.p.last),
            engine.i.valid.eq(blocks.valid),
            blocks.ready.eq(engine.i.ready),
        ]
        elements, out = self._elements.sink(m, self), engine.o.payload
        tag, user = out.tag, elements.p.user
        m.d.comb += [
            elements.p.data.eq(out.data.as_value()),
            # Bytes of the lanes that exist, by groups of up to 8 lanes.
            elements.p.keep.eq(Cat(tag.groups[k // 8].replicate(2) for k in range(self.config.lanes))),
            elements.p.last.eq(tag.last),
            elements.valid.eq(engine.o.valid),
            engine.o.ready.eq(elements.ready),
            self.error_code.eq(engine.error),
            self.error_count.eq(engine.error_count),
            engine.error_clear.eq(self.error_clear),
        ]
        if self.config.centre:
            m.d.comb += engine.add_centre.eq(self.add_centre)
        values = {"error": tag.marked, "token_last": tag.token_last, "channel": tag.channel, "token": tag.token}
        for field in OUTPUT_USER:
            m.d.comb += user[field.offset : field.offset + field.width].eq(values[field.name])
        return m

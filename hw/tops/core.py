"""The accelerator core as an AXI block."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS
from hw.axi.lite import AxiLitePort
from hw.axi.stream import AxiStreamPort
from hw.core.core import AcceleratorCore
from hw.core.parts import parts
from hw.tops.core_registers import CoreBuild, CoreRegisters
from spec import checks
from spec.bitserial import BitSerialConfig
from spec.core import CoreConfig
from spec.datatypes import Datatype
from spec.packet import WORD_BITS

__all__ = ["AcceleratorCoreAxi", "core_build"]


def core_build(config: CoreConfig) -> CoreBuild:
    """What the registers tell of a core of this configuration."""
    datapath, specials = config.datapath, parts(config.datapath).specials
    return CoreBuild(
        rows=config.rows,
        columns=config.columns,
        lanes=datapath.lanes,
        window=0 if isinstance(datapath, BitSerialConfig) else datapath.activation_bits,
        datatypes=datapath.datatypes,
        group_sizes=config.group_sizes,
        max_inputs=config.max_inputs,
        max_outputs=config.max_outputs,
        chunk=config.chunk,
        block_outputs=config.block_outputs,
        token_sets=config.token_sets,
        special_values=specials[Datatype.FP3],
        fp4_special_values=specials[Datatype.FP4],
    )


class AcceleratorCoreAxi(wiring.Component):
    """An :class:`hw.core.core.AcceleratorCore` with AXI4-Stream data and AXI4-Lite control (docs/core.md).

    Each stream takes one cycle more in a register slice.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    aclk, aresetn : In
        One clock; the reset is active low and synchronous.
    s_axis_weights_tdata, _tlast, _tvalid, _tready
        R slices of 64 bits; a packet is a pass.
    s_axis_activations_tdata, ...
        L FP16 values, lane 0 lowest; a packet is one token's row of one chunk.
    m_axis_results_tdata, _tkeep, _tuser, ...
        P FP32 or 2 P FP16 results; TUSER has a mark for each; a packet is a block.
    s_axil_*
        The registers of ``hw/tops/core.rdl`` (docs/registers.md).
    irq : Out
    """

    def __init__(self, config: CoreConfig):
        checks.instance("config", config, CoreConfig)
        self.config = config
        lanes = config.result_lanes
        self._weights = AxiStreamPort("s", "weights", WORD_BITS * config.rows)
        self._activations = AxiStreamPort("s", "activations", 16 * config.datapath.lanes)
        self._results = AxiStreamPort("m", "results", 32 * lanes, keep=True, user_bits=2 * lanes)
        self._control = AxiLitePort(ADDRESS_BITS)
        super().__init__(ports(self._weights, self._activations, self._results, self._control, irq=Out(1)))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.core = core = AcceleratorCore(self.config)
        m.submodules.registers = registers = CoreRegisters(core_build(self.config))
        self._control.connect(m, self, registers.bus)
        for port, inside, payload in (
            (self._weights, core.weights, core.weights.p.slices),
            (self._activations, core.activations, core.activations.p.activations),
        ):
            outside = port.source(m, self)
            m.d.comb += [
                payload.as_value().eq(outside.p.data),
                inside.p.last.eq(outside.p.last),
                inside.valid.eq(outside.valid),
                outside.ready.eq(inside.ready),
            ]
        outside, results = self._results.sink(m, self), core.results
        m.d.comb += [
            outside.p.data.eq(results.p.data),
            outside.p.keep.eq(results.p.keep),
            outside.p.user.eq(results.p.marks),
            outside.p.last.eq(results.p.last),
            outside.valid.eq(results.valid),
            results.ready.eq(outside.ready),
        ]
        m.d.comb += [
            core.start.eq(registers.start),
            core.stop.eq(registers.stop),
            core.job.eq(registers.job),
            registers.done.eq(core.done),
            registers.errors.eq(core.errors),
            registers.fp32_overflow.eq(core.overflow),
            registers.fp16_saturated.eq(core.saturated),
            registers.working.eq(core.working),
            registers.stalled.eq(core.stalled),
            registers.macs.eq(core.macs),
            self.irq.eq(registers.irq),
        ]
        for value, special in zip(registers.specials, core.specials, strict=True):
            m.d.comb += [special.magnitude.eq(abs(value)), special.sign.eq(value < 0)]
        return m

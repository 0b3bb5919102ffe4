"""The PE column as an AXI block."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.utils import ceil_log2

from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS, load_map
from hw.axi.lite import AxiLitePort
from hw.axi.registers import AxiLiteRegisters
from hw.axi.special_values import SpecialValueFile
from hw.axi.stream import AxiStreamPort
from hw.bitserial.column import PEColumn
from hw.bitserial.special_values import SPECIAL_VALUES
from spec import checks
from spec.config import ColumnConfig
from spec.datatypes import SPECIAL_LIMIT, special_value_allowed
from spec.errors import WeightError
from spec.packet import WORD_BITS

__all__ = ["PEColumnAxi"]


class PEColumnAxi(wiring.Component):
    """A :class:`hw.bitserial.column.PEColumn` with AXI4-Stream data and AXI4-Lite control.

    Behaviour, throughput and errors are the column's; each stream takes one cycle more in a register slice.

    Parameters
    ----------
    config : ColumnConfig

    Members
    -------
    aclk, aresetn : In
        One clock; the reset is active low and synchronous.
    s_axis_weights<k>_tdata, _tlast, _tvalid, _tready
        One for each PE: row packets of 64-bit words (``spec.packet``), TLAST on the last.
    s_axis_activations_tdata, ...
        ``lanes`` FP16 values, lane 0 lowest; a packet is the ceil(K / lanes) beats of a token.
    m_axis_results_tdata, ...
        An FP32 dot product per beat, each a packet of its own; TDEST is the PE, TUSER[0] marks a result of bad input.
    s_axil_*
        The registers of ``hw/tops/column.rdl`` (docs/registers.md).
    irq : Out
        High while an error is flagged and IRQ_ENABLE.error is set.
    """

    def __init__(self, config: ColumnConfig | None = None):
        config = ColumnConfig() if config is None else config
        checks.instance("config", config, ColumnConfig)
        self.config = config
        self._weights = [AxiStreamPort("s", f"weights{k}", WORD_BITS) for k in range(config.pes)]
        self._activations = AxiStreamPort("s", "activations", 16 * config.lanes)
        self._results = AxiStreamPort("m", "results", 32, user_bits=1, dest_bits=max(1, ceil_log2(config.pes)))
        self._control = AxiLitePort(ADDRESS_BITS)
        super().__init__(ports(*self._weights, self._activations, self._results, self._control, irq=Out(1)))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.column = column = PEColumn(self.config)
        m.submodules.registers = registers = AxiLiteRegisters(load_map("column"))
        self._control.connect(m, self, registers.bus)
        for port, weights in zip(self._weights, column.weights, strict=True):
            outside = port.source(m, self)
            m.d.comb += [weights.p.data.eq(outside.p.data), weights.p.last.eq(outside.p.last)]
            m.d.comb += [weights.valid.eq(outside.valid), outside.ready.eq(weights.ready)]
        outside, activations = self._activations.source(m, self), column.activations
        m.d.comb += [
            activations.p.lanes.as_value().eq(outside.p.data),
            activations.p.last.eq(outside.p.last),
            activations.valid.eq(outside.valid),
            outside.ready.eq(activations.ready),
        ]
        outside, results = self._results.sink(m, self), column.o
        m.d.comb += [
            outside.p.data.eq(results.p.data.as_value()),
            outside.p.last.eq(1),
            outside.p.user.eq(results.p.error),
            outside.p.dest.eq(results.p.pe),
            outside.valid.eq(results.valid),
            results.ready.eq(outside.ready),
        ]
        self._connect_registers(m, column, registers)
        return m

    def _connect_registers(self, m, column, registers):
        config, build, status = self.config, registers.build, column.status
        specials = self._write_special_values(m, column, registers)

        # Refused special values never reach the column, so its log is continued here.
        refused = Signal()
        refusals = Signal(16)
        total, refusals_after = Signal(17), Signal(17)
        m.d.comb += refusals_after.eq(Mux(registers.control.clear, 0, refusals) + specials.refused)
        m.d.sync += [
            refusals.eq(Mux(refusals_after[-1], 0xFFFF, refusals_after)),
            refused.eq((refused & ~registers.control.clear) | specials.refused),
        ]
        flags = Signal(len(WeightError))
        m.d.comb += [
            flags.eq(status.errors | Mux(refused, WeightError.SPECIAL_REFUSED.value, 0)),
            total.eq(status.count + refusals),
            registers.error_count.count.eq(Mux(total[-1], 0xFFFF, total)),
            self.irq.eq(registers.irq_enable.error & flags.any()),
            column.clear.eq(registers.control.clear),
            build.pes.eq(config.pes),
            build.lanes.eq(config.lanes),
            build.accumulator_bits.eq(config.accumulator_bits),
            build.digit_bits.eq(config.digit_bits),
            build.rne.eq(int(config.rounding == "rne")),
            build.signed_special_terms.eq(int(config.signed_special_terms)),
        ]
        for bit, error in enumerate(WeightError):
            m.d.comb += getattr(registers.error_flags, error.name.lower()).eq(flags[bit])

    def _write_special_values(self, m, column, registers):
        """The column takes a special value between two packets; until then it waits here, lowest index first."""
        values = range(-SPECIAL_LIMIT, SPECIAL_LIMIT + 1)
        signed_terms = self.config.signed_special_terms
        m.submodules.specials = specials = SpecialValueFile(
            [value for value in values if special_value_allowed(value, signed_terms=signed_terms)]
        )
        ports = [getattr(registers, f"special_{index}") for index in range(SPECIAL_VALUES)]
        m.d.comb += [
            specials.write.eq(Cat(port.write & port.strobes[0] for port in ports)),
            specials.data.eq(ports[0].data),
        ]
        m.d.comb += [port.value.eq(value.as_unsigned()) for port, value in zip(ports, specials.values, strict=True)]

        pending, chosen = Signal(SPECIAL_VALUES), Signal(SPECIAL_VALUES)
        offered = Signal.like(column.special.payload, reset_less=True)
        offering, load = Signal(), Signal()
        m.d.comb += [
            chosen.eq(pending & -pending),
            load.eq(pending.any() & (~offering | column.special.ready)),
            column.special.payload.eq(offered),
            column.special.valid.eq(offering),
            registers.status.special_pending.eq(pending | Mux(offering, Const(1, SPECIAL_VALUES) << offered.index, 0)),
        ]
        m.d.sync += pending.eq((pending & ~Mux(load, chosen, 0)) | specials.changed)
        with m.If(load):
            m.d.sync += offering.eq(1)
            for index in range(SPECIAL_VALUES):
                with m.If(chosen[index]):
                    m.d.sync += [offered.index.eq(index), offered.value.eq(specials.values[index])]
        with m.Elif(column.special.ready):
            m.d.sync += offering.eq(0)
        return specials

"""The KV address generator as an AXI block."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from hw.axi.clocking import add_clock, ports
from hw.axi.definitions import ADDRESS_BITS, load_map
from hw.axi.lite import AxiLitePort
from hw.axi.registers import AxiLiteRegisters
from hw.axi.stream import AxiStreamPort
from hw.rlkv.generator import KvAddressGenerator
from hw.rlkv.layouts import CommandLayout, OperationLayout
from spec.rlkv import RlkvConfig

__all__ = ["KvAddressGeneratorAxi", "field_positions"]

POOL_FIELDS = ("full_base", "full_areas", "window_base", "window_areas", "block_base", "blocks")


def field_positions(layout: data.StructLayout) -> dict[str, list[int]]:
    """Field -> [lowest bit in TDATA, width]: what a host needs to build operations and to read commands."""
    return {name: [field.offset, field.width] for name, field in layout}


def _whole_bytes(layout: data.StructLayout) -> int:
    return -(-layout.size // 8) * 8


class KvAddressGeneratorAxi(wiring.Component):
    """A :class:`hw.rlkv.generator.KvAddressGenerator` with AXI4-Stream operations and commands and AXI4-Lite control.

    Behaviour, throughput and errors are the generator's (docs/rlkv.md); each stream takes one cycle more in a register
    slice. The pools are registers; a base or a count that has more bits than the build is not cut short but fails
    the OPEN that takes the pools over, with status ADDRESS.

    Parameters
    ----------
    config : RlkvConfig

    Members
    -------
    aclk, aresetn : In
        One clock; the reset is active low and synchronous.
    s_axis_operations_tdata, _tvalid, _tready
        An operation per beat: the fields of :class:`spec.rlkv_transfers.RlkvOperation` from bit 0 on, at
        ``field_positions(OperationLayout(config))``, which the JSON sidecar of the Verilog states too.
    m_axis_commands_tdata, _tlast, _tvalid, _tready
        A command per beat, likewise; a packet is the answer to one operation, TLAST on its DONE.
    s_axil_*
        The registers of ``hw/tops/address_generator.rdl`` (docs/registers.md).
    irq : Out
        High while an error is flagged and IRQ_ENABLE.error is set.

    Raises
    ------
    TypeError
        If ``config`` is not an RlkvConfig.
    """

    def __init__(self, config: RlkvConfig):
        self.generator = KvAddressGenerator(config)
        self.config = config
        self._operations = AxiStreamPort("s", "operations", _whole_bytes(OperationLayout(config)), last=False)
        self._commands = AxiStreamPort("m", "commands", _whole_bytes(CommandLayout(config)))
        self._control = AxiLitePort(ADDRESS_BITS)
        super().__init__(ports(self._operations, self._commands, self._control, irq=Out(1)))

    def elaborate(self, platform):
        m = Module()
        add_clock(m, self)
        m.submodules.generator = generator = self.generator
        m.submodules.registers = registers = AxiLiteRegisters(load_map("address_generator"))
        self._control.connect(m, self, registers.bus)
        outside, operations = self._operations.source(m, self), generator.i
        m.d.comb += [
            Value.cast(operations.payload).eq(outside.p.data),
            operations.valid.eq(outside.valid),
            outside.ready.eq(operations.ready),
        ]
        outside, commands = self._commands.sink(m, self), generator.o
        m.d.comb += [
            outside.p.data.eq(Value.cast(commands.payload)),
            outside.p.last.eq(commands.payload.last),
            outside.valid.eq(commands.valid),
            commands.ready.eq(outside.ready),
        ]
        self._connect_pools(m, registers)
        self._connect_status(m, registers)
        return m

    def _connect_pools(self, m, registers):
        """What does not fit becomes a pool that cannot fit, so that the generator's own check refuses it."""
        pools = self.generator.pools
        beyond = Signal()
        rests = []
        for name in POOL_FIELDS:
            port = getattr(pools, name)
            if name.endswith("_base"):
                halves = [getattr(registers, f"{name}_{half}").address for half in ("low", "high")]
                value = Cat(halves)
            else:
                value = getattr(registers, name).count
            rests.append(value[len(port) :].any())
            # The bits below a beat are ignored. Were all pools empty, a base alone would fail nothing.
            too_far = Const(-1, len(port)) if name in ("full_base", "full_areas") else value[: len(port)]
            m.d.comb += port.eq(Mux(beyond, too_far, value[: len(port)]))
        m.d.comb += beyond.eq(Cat(rests).any())

    def _connect_status(self, m, registers):
        config, status = self.config, self.generator.status
        m.d.comb += [
            self.generator.clear.eq(registers.control.clear),
            registers.open.requests.eq(status.open),
            registers.error_flags.flags.eq(status.errors),
            registers.error_count.count.eq(status.count),
            registers.free_blocks.count.eq(status.free_blocks),
            self.irq.eq(registers.irq_enable.error & status.errors.any()),
            registers.build.layers.eq(config.layers - 1),
            registers.build.heads.eq(config.heads),
            registers.build.group.eq(config.group),
            registers.build.requests.eq(config.requests),
            registers.build_window.sink.eq(config.sink),
            registers.build_window.recent.eq(config.recent),
            registers.build_full.block_tokens.eq(config.block_tokens),
            registers.build_full.residual.eq(config.residual),
            registers.build_sizes.token_bytes.eq(config.token_bytes),
            registers.build_sizes.beat_bytes.eq(config.beat_bytes),
            registers.build_sizes.address_bits.eq(config.address_bits),
            registers.build_block.block_bytes.eq(config.block_bytes),
        ]

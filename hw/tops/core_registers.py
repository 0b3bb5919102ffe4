"""The core's registers: jobs checked before they start, errors and counters kept."""

from dataclasses import dataclass

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.axi.definitions import ADDRESS_BITS, load_map
from hw.axi.lite import AxiLite
from hw.axi.registers import AxiLiteRegisters
from hw.axi.special_values import SpecialValueFile
from hw.core.job import MACS_BITS, CoreJob, StreamErrors
from hw.special_values import SPECIAL_VALUES
from spec import checks
from spec.datatypes import SPECIAL_LIMIT, Datatype
from spec.packet import GROUP_SIZES

__all__ = ["CoreBuild", "CoreRegisters"]


@dataclass(frozen=True, kw_only=True)
class CoreBuild:
    """What a build of the core can do, as its registers tell it and its jobs are checked against.

    Parameters
    ----------
    rows, columns, lanes : int
        PEs, and weights that each multiplies per step; 1..255.
    window : int
        Width W of the aligned activations, 1..255; 0 for PEs that align their own products.
    datatypes : tuple of Datatype
    group_sizes : tuple of int
        Of 32, 64 and 128.
    max_inputs, max_outputs : int
        Largest K and N, 1..65535.
    chunk, block_outputs, token_sets : int
        How jobs are cut: docs/core.md, section 2.
    special_values : tuple of int
        Values that FP3's special values may take, within +-16.
    fp4_special_values : tuple of int
        The same for FP4.

    Raises
    ------
    ValueError
        Naming the parameter, its value and what is allowed.
    """

    rows: int
    columns: int
    lanes: int
    window: int
    datatypes: tuple[Datatype, ...]
    group_sizes: tuple[int, ...] = GROUP_SIZES
    max_inputs: int = 1 << 14
    max_outputs: int = 1 << 14
    chunk: int
    block_outputs: int
    token_sets: int
    special_values: tuple[int, ...]
    fp4_special_values: tuple[int, ...]

    def __post_init__(self):
        most = dict.fromkeys(("rows", "columns", "lanes"), 255) | {"block_outputs": 4095, "token_sets": 15}
        most |= dict.fromkeys(("max_inputs", "max_outputs", "chunk"), 65535)
        for name, limit in most.items():
            checks.whole(name, getattr(self, name), 1, limit)
        checks.whole("window", self.window, 0, 255)
        special = range(-SPECIAL_LIMIT, SPECIAL_LIMIT + 1)
        allowed = {"datatypes": Datatype, "group_sizes": GROUP_SIZES}
        for name, values in (allowed | {"special_values": special, "fp4_special_values": special}).items():
            checks.members(name, getattr(self, name), values, kind=tuple, least=1)
        if self.rows * self.columns * self.lanes >> MACS_BITS:
            raise ValueError(f"rows * columns * lanes must be below {1 << MACS_BITS}")


class CoreRegisters(wiring.Component):
    """The registers of ``hw/tops/core.rdl``, and what the software may do with them.

    A start is checked against the build: the core sees only jobs that it can do, and one at a time. Whatever is refused
    ends in an error code. Registers of the job, and special values, do not change while a job runs.

    Parameters
    ----------
    build : CoreBuild

    Members
    -------
    bus : AxiLite, In
    irq : Out
    start : Out
        One cycle: ``job`` is a new job.
    job : CoreJob, Out
        Does not change from ``start`` to ``done``.
    specials : array of 8 signed 8, Out
        FP3's (0..3) and FP4's special values; like ``job``.
    stop : Out
        One cycle, while a job runs: end it soon, with ``done``.
    busy : Out
        From the cycle after ``start`` to that of ``done``.
    done : In
        One cycle: the job has ended. At least one cycle after ``start``.
    errors : StreamErrors, In
    fp32_overflow, fp16_saturated : In
    working, stalled : In
        In this cycle the array multiplies, or waits for a stream.
    macs : In
        Useful MACs of this cycle.
    """

    def __init__(self, build: CoreBuild):
        checks.instance("build", build, CoreBuild)
        self.build = build
        super().__init__(
            {
                "bus": In(AxiLite(ADDRESS_BITS)),
                "irq": Out(1),
                "start": Out(1),
                "job": Out(CoreJob),
                "specials": Out(signed(8)).array(SPECIAL_VALUES),
                "stop": Out(1),
                "busy": Out(1),
                "done": In(1),
                "errors": In(StreamErrors),
                "fp32_overflow": In(1),
                "fp16_saturated": In(1),
                "working": In(1),
                "stalled": In(1),
                "macs": In(MACS_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = AxiLiteRegisters(load_map("core"))
        m.submodules.specials = specials = SpecialValueFile(self.build.special_values, self.build.fp4_special_values)
        wiring.connect(m, wiring.flipped(self.bus), registers.bus)
        self._state_build(m, registers)

        control, job = registers.control, self.job
        busy = Signal()
        m.d.comb += [
            job.tokens.eq(registers.tokens.tokens),
            job.inputs.eq(registers.inputs.inputs),
            job.outputs.eq(registers.outputs.outputs),
            job.datatypes.eq(registers.datatypes.allowed),
            job.group_size.eq(registers.format.group_size),
            job.fp16.eq(registers.format.fp16),
            registers.locked.eq(busy),  # up before the write that follows a start gets here
            self.busy.eq(busy),
            self.stop.eq(control.abort & busy & ~self.done),
        ]
        with m.If(self.start):
            m.d.sync += busy.eq(1)
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)

        locked_special = self._connect_specials(m, registers, specials)
        refusals = self._refusals(job)
        m.d.comb += self.start.eq(control.start & ~busy & ~Cat(refusals).any())
        errors = Signal(len(load_map("core").enums["CoreError"]) - 1)
        m.d.comb += errors.eq(
            Cat(
                control.start & busy,
                registers.refused | locked_special,
                *(control.start & ~busy & refusal for refusal in refusals),
                specials.refused,
                self.stop,
                self.errors.as_value(),
            )
        )
        self._keep_errors(m, registers, errors)
        self._keep_status(m, registers, busy, errors)
        return m

    def _state_build(self, m, registers):
        build, group_sizes = self.build, self.build.group_sizes
        m.d.comb += [
            registers.build.rows.eq(build.rows),
            registers.build.columns.eq(build.columns),
            registers.build.lanes.eq(build.lanes),
            registers.build.window.eq(build.window),
            registers.build_datatypes.datatypes.eq(self._datatypes),
            registers.build_datatypes.group_sizes.eq(sum(1 << GROUP_SIZES.index(size) for size in group_sizes)),
            registers.limits.inputs.eq(build.max_inputs),
            registers.limits.outputs.eq(build.max_outputs),
            registers.build_blocks.chunk.eq(build.chunk),
            registers.build_blocks.outputs.eq(build.block_outputs),
            registers.build_blocks.token_sets.eq(build.token_sets),
        ]

    @property
    def _datatypes(self) -> int:
        return sum(1 << datatype for datatype in {*self.build.datatypes})

    def _refusals(self, job):
        """Why the job cannot start, in the order of the codes ZERO_SIZE to UNSUPPORTED_GROUP_SIZE."""
        build = self.build
        group_sizes = [code for code, size in enumerate(GROUP_SIZES) if size in build.group_sizes]
        return [
            (job.tokens == 0) | (job.inputs == 0) | (job.outputs == 0),
            (job.inputs > build.max_inputs) | (job.outputs > build.max_outputs),
            (job.datatypes == 0) | (job.datatypes & Const(~self._datatypes & 0xFFFF, 16)).any(),
            ~Cat(job.group_size == code for code in group_sizes).any(),
        ]

    def _connect_specials(self, m, registers, specials):
        """Returns whether a special value was written while locked."""
        ports = [getattr(registers, f"special_{index}") for index in range(SPECIAL_VALUES)]
        m.d.comb += [
            specials.write.eq(Cat(port.write & port.strobes[0] for port in ports)),
            specials.data.eq(ports[0].data),
            specials.locked.eq(registers.locked),
        ]
        for port, value, out in zip(ports, specials.values, self.specials, strict=True):
            m.d.comb += [port.value.eq(value.as_unsigned()), out.eq(value)]
        return specials.write.any() & registers.locked

    def _keep_errors(self, m, registers, errors):
        control = registers.control
        code = Signal(8)
        first = Signal(8)
        for bit in reversed(range(len(errors))):
            with m.If(errors[bit]):
                m.d.comb += first.eq(bit + 1)
        with m.If((code == 0) | control.clear):
            m.d.sync += code.eq(first)
        m.d.comb += [
            registers.error.code.eq(code),
            registers.error.count.increment.eq(sum(errors)),
            registers.error.count.clear.eq(control.clear),
            registers.error_flags.flags.set.eq(errors),
            registers.numeric_flags.fp32_overflow.set.eq(self.fp32_overflow),
            registers.numeric_flags.fp16_saturated.set.eq(self.fp16_saturated),
        ]

    def _keep_status(self, m, registers, busy, errors):
        status, pending, enable = registers.status, registers.irq_status, registers.irq_enable
        done = Signal()
        failed = Signal()
        forget = registers.control.clear | self.start
        ended = self.done & busy
        m.d.sync += [
            done.eq(Mux(forget, 0, done) | ended),
            failed.eq(Mux(forget, 0, failed) | errors.any()),
        ]
        m.d.comb += [
            status.busy.eq(busy),
            status.done.eq(done),
            status.failed.eq(failed),
            pending.done.set.eq(ended),
            pending.error.set.eq(errors.any()),
            self.irq.eq((pending.done.value & enable.done) | (pending.error.value & enable.error)),
        ]
        counts = {
            registers.cycles: busy,
            registers.busy_cycles: busy & self.working,
            registers.stall_cycles: busy & self.stalled,
            registers.macs: Mux(busy, self.macs, 0),
        }
        for counter, increment in counts.items():
            m.d.comb += [counter.count.increment.eq(increment), counter.count.clear.eq(self.start)]

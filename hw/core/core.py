"""The accelerator core: matrix products of FP16 activations and packed weights."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.core.activations import ActivationBeat, ActivationLoader
from hw.core.channel import WeightChannel
from hw.core.drain import DrainControl
from hw.core.job import MACS_BITS, CoreJob, StreamErrors
from hw.core.parts import parts
from hw.core.plan import JobPlan
from hw.core.results import ResultBeat, ResultWriter
from hw.core.sequencer import Sequencer
from hw.core.tile import Tile
from hw.core.tile_column import TileColumn
from hw.core.weights import Fault, WeightBeat, WeightReceiver
from hw.sharing import place
from hw.special_values import SPECIAL_VALUES, Special
from hw.streams.registers import delay
from spec import checks
from spec.core import CoreConfig

__all__ = ["AcceleratorCore"]


def _members(config):
    return {
        "job": In(CoreJob),
        "specials": In(data.ArrayLayout(Special, SPECIAL_VALUES)),
        "weights": In(stream.Signature(WeightBeat(config.rows))),
        "activations": In(stream.Signature(ActivationBeat(config.datapath.lanes))),
        "results": Out(stream.Signature(ResultBeat(config.result_lanes))),
        "done": Out(1),
        "errors": Out(StreamErrors),
        "overflow": Out(1),
        "saturated": Out(1),
        "working": Out(1),
        "stalled": Out(1),
        "macs": Out(MACS_BITS),
    }


class _Datapath(wiring.Component):
    """Everything of the core that an abort resets. Members as of :class:`AcceleratorCore`; ``load`` begins a job."""

    def __init__(self, config: CoreConfig):
        self.config = config
        super().__init__({"load": In(1), **_members(config)})

    def elaborate(self, platform):
        m = Module()
        config, job = self.config, self.job
        m.submodules.plan = plan = JobPlan(config)
        m.submodules.receiver = receiver = WeightReceiver(config)
        m.submodules.loader = loader = ActivationLoader(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.writer = writer = ResultWriter(config)
        m.submodules.tile = tile = Tile(config)
        channels = [
            place(m, platform, f"channel{k}", "channel", lambda: WeightChannel(config)) for k in range(config.rows)
        ]
        columns = [
            place(m, platform, f"column{k}", "column", lambda: TileColumn(config)) for k in range(config.columns)
        ]
        m.d.comb += [
            plan.start.eq(self.load),
            plan.tokens.eq(job.tokens),
            plan.inputs.eq(job.inputs),
            plan.outputs.eq(job.outputs),
            plan.group_size.eq(job.group_size),
            plan.datatypes.eq(job.datatypes),
            plan.fp16.eq(job.fp16),
        ]
        for part in (receiver, loader, sequencer, writer):
            m.d.comb += [part.plan.eq(plan.plan), part.load.eq(plan.done)]
        wiring.connect(m, wiring.flipped(self.weights), receiver.i)
        wiring.connect(m, wiring.flipped(self.activations), loader.i)
        wiring.connect(m, writer.o, wiring.flipped(self.results))

        # Digits and multiples meet at the PEs: whichever takes longer starts at once.
        made = parts(config.datapath)
        code_latency, activation_latency = 1 + made.decoder_latency, 1 + made.multiples_latency
        code_wait = max(0, activation_latency - code_latency)
        activation_wait = max(0, code_latency - activation_latency)
        step = delay(m, sequencer.step, "step", code_wait, reset_less=False)
        step_valid = delay(m, sequencer.step_valid, "step_valid", code_wait, reset_less=False)
        read = delay(m, sequencer.read, "read", activation_wait, reset_less=False)
        drain_latency = code_wait + code_latency + tile.latency
        m.submodules.drain = drain = DrainControl(config, drain_latency, made.dequantizer_latency + 1)
        m.d.comb += [
            drain.ended.eq(sequencer.ended),
            drain.ended_valid.eq(sequencer.ended_valid),
            drain.adds.eq(sequencer.adds),
            sequencer.chunk_full.eq(loader.full),
            loader.free.eq(drain.freed),
            sequencer.result_free.eq(writer.free),
        ]
        release = delay(m, sequencer.release, "release", code_wait, reset_less=False)
        for k, channel in enumerate(channels):
            wiring.connect(m, receiver.o[k], channel.i)
            wiring.connect(m, channel.scale, writer.scales[k])
            m.d.comb += [
                channel.group_size.eq(plan.plan.group_size),
                channel.datatypes.eq(plan.plan.datatypes),
                channel.specials.eq(self.specials),
                channel.release.eq(release),
                channel.step.eq(step),
                channel.step_valid.eq(step_valid),
                sequencer.full[k].eq(channel.full & ~release),
                sequencer.groups[k].eq(channel.groups),
            ]
        m.d.comb += [
            tile.digits.eq(Cat(channel.digits for channel in channels)),
            tile.control.eq(Cat(channel.control for channel in channels)),
        ]
        for k, column in enumerate(columns):
            m.d.comb += [
                column.write.eq(loader.o),
                column.write_enable.eq(loader.o_valid & (loader.o.column == k)),
                column.read.eq(read),
                tile.multiples[k].eq(column.multiples),
                column.group.eq(drain.group),
                column.group_read.eq(drain.group_read),
                *(inside.eq(outside) for inside, outside in zip(column.sums, tile.sums[k], strict=True)),
                *(inside.eq(outside) for inside, outside in zip(column.drained, drain.drained, strict=True)),
                column.drained_valid.eq(drain.drained_valid),
                column.start.eq(drain.start),
                column.start_valid.eq(drain.start_valid),
                *(writer.i[chain][k].eq(result) for chain, result in enumerate(column.o)),
            ]
        m.d.comb += [
            writer.i_valid.eq(columns[0].o_valid),
            self.done.eq(writer.done),
            self.overflow.eq(writer.overflow),
            self.saturated.eq(writer.saturated),
            self.working.eq(sequencer.working),
            self.stalled.eq(sequencer.stalled),
            self.macs.eq(sequencer.macs),
        ]
        self._report(m, channels, loader)
        return m

    def _report(self, m, channels, loader):
        """One channel's fault per cycle, lowest first; the others wait."""
        waiting = Cat(channel.fault.valid for channel in channels)
        granted = Signal(len(channels))
        fault = Signal(Fault)
        m.d.comb += granted.eq(waiting & -waiting)
        for k, channel in enumerate(channels):
            m.d.comb += channel.fault.ready.eq(granted[k])
            with m.If(granted[k]):
                m.d.comb += fault.eq(channel.fault.payload)
        m.d.sync += [
            self.errors.reserved_header.eq(fault == Fault.RESERVED_HEADER),
            self.errors.reserved_code.eq(fault == Fault.RESERVED_CODE),
            self.errors.parity.eq(fault == Fault.PARITY),
            self.errors.weight_length.eq(fault == Fault.LENGTH),
            self.errors.activation_length.eq(loader.wrong_length),
            self.errors.non_finite.eq(loader.non_finite),
        ]


class AcceleratorCore(wiring.Component):
    """Multiplies matrices, ``Y[M, N] = X[M, K] W[N, K]^T``, job by job (docs/core.md).

    One job at a time; inputs wait until one begins. ``stop`` ends a job at once: what is inside is lost, and inputs are
    taken and dropped until the next ``start``.

    Rates, buffers and latencies: docs/core.md, section 6.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    start : In
        One cycle: ``job``, which the build must be able to do, begins. Not before ``done`` of the one before.
    stop : In
        One cycle, during a job.
    job : CoreJob, In
        Held during the job, like ``specials``.
    specials : array of 8 Special, In
    weights : stream of WeightBeat, In
    activations : stream of ActivationBeat, In
    results : stream of ResultBeat, Out
    done : Out
        One cycle: the job has ended.
    errors : StreamErrors, Out
        Each high for one cycle per occurrence.
    overflow, saturated : Out
        An FP32 result overflowed, an FP16 result was saturated.
    working, stalled : Out
        In this cycle the array multiplies, or waits for a stream.
    macs : Out
        Useful MACs of this cycle.
    """

    def __init__(self, config: CoreConfig):
        checks.instance("config", config, CoreConfig)
        self.config = config
        super().__init__({"start": In(1), "stop": In(1), **_members(config)})

    def elaborate(self, platform):
        m = Module()
        clear = Signal()
        load = Signal()
        dropping = Signal()
        datapath = place(m, platform, "datapath", "datapath", lambda: _Datapath(self.config), clear=clear)
        for name in ("job", "specials"):
            m.d.comb += getattr(datapath, name).eq(getattr(self, name))
        for name in ("errors", "overflow", "saturated", "working", "stalled", "macs"):
            m.d.comb += getattr(self, name).eq(getattr(datapath, name))
        running = Signal()
        for name in ("weights", "activations"):
            outside, inside = getattr(self, name), getattr(datapath, name)
            m.d.comb += [
                inside.payload.eq(outside.payload),
                inside.valid.eq(outside.valid & running),
                outside.ready.eq((inside.ready & running) | dropping),
            ]
        inside = datapath.results
        m.d.comb += [
            self.results.payload.eq(inside.payload),
            self.results.valid.eq(inside.valid),
            inside.ready.eq(self.results.ready),
        ]

        # PEs and other pipelines have no reset: they run dry while `clear` is held.
        wait = Signal(range(SETTLE + 1))
        ended = Signal()
        m.d.comb += [clear.eq(wait != 0), self.done.eq(ended)]
        m.d.sync += ended.eq(0)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
            with m.If(wait == 1):
                m.d.sync += ended.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [dropping.eq(0), load.eq(1)]
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                m.d.sync += load.eq(0)
                with m.If(self.stop):
                    m.d.sync += [dropping.eq(1), wait.eq(SETTLE)]
                    m.next = "STOP"
                with m.Elif(datapath.done):
                    m.d.sync += ended.eq(1)
                    m.next = "IDLE"
            with m.State("STOP"):
                with m.If(wait == 1):
                    m.next = "IDLE"
        m.d.comb += datapath.load.eq(load)
        return m


SETTLE = 64
"""Cycles that the core takes to come to rest when a job is stopped: more than any pipeline in it is long."""

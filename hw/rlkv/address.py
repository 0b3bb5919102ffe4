"""From slots and blocks to byte addresses."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.rlkv.layouts import CommandLayout, PoolsLayout, RunLayout
from spec.rlkv import SLOT_UNIT, RlkvConfig
from spec.rlkv_transfers import CommandKind

__all__ = ["RunAddress"]


class RunAddress(wiring.Component):
    """Gives every run its address and its length in beats: a pool's base plus a multiple of a constant.

    Latency 2 cycles (the run is registered, then its address), throughput a command per cycle. Nothing is checked: the
    pools were, when they were taken over.

    Parameters
    ----------
    config : RlkvConfig

    Members
    -------
    i : stream of RunLayout, In
    pools : In
    o : stream of CommandLayout, Out
    """

    latency = 2

    def __init__(self, config: RlkvConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(RunLayout(config))),
                "pools": In(PoolsLayout(config)),
                "o": Out(stream.Signature(CommandLayout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        run = Signal(RunLayout(config), reset_less=True)
        waiting = Signal()  # a run is in `run`
        advance = Signal()
        beat, unit = ((size - 1).bit_length() for size in (config.beat_bytes, SLOT_UNIT))
        length = Signal(range(config.beat_bytes * (1 << len(self.o.payload.beats))))
        command = Signal(CommandLayout(config), reset_less=True)
        valid = Signal()
        is_block = run.kind == CommandKind.BLOCK
        done = run.kind == CommandKind.DONE
        base = Mux(is_block, self.pools.block_base, Mux(run.full, self.pools.full_base, self.pools.window_base))
        offset = Signal(config.address_bits - unit)
        units = (config.block_bytes // SLOT_UNIT, config.token_bytes // SLOT_UNIT)
        m.d.comb += [
            offset.eq(Mux(is_block, run.index * units[0], run.index * units[1])),
            length.eq(run.tokens * config.token_bytes + config.beat_bytes - 1),
            advance.eq(self.o.ready | ~valid),
            self.i.ready.eq(advance | ~waiting),
            self.o.valid.eq(valid),
            self.o.payload.eq(command),
        ]
        with m.If(self.i.ready):
            m.d.sync += [waiting.eq(self.i.valid), run.eq(self.i.payload)]
        with m.If(advance):
            m.d.sync += [
                valid.eq(waiting),
                command.address.eq(Mux(done, 0, (Cat(C(0, beat - unit), base[beat:]) + offset) << unit)),
                command.beats.eq(Mux(is_block, run.beats, Mux(done, 0, length >> beat))),
            ]
            for name in command.shape().members:
                if name not in ("address", "beats"):
                    m.d.sync += command[name].eq(run[name])
        return m

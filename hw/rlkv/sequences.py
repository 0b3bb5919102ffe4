"""What is known of each open sequence: its length, and where its rings stand."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.rlkv.layouts import address_bits, index_bits
from spec.rlkv import RlkvConfig

__all__ = ["SequenceState", "Sequences"]


class SequenceState(data.StructLayout):
    """``tokens``: length; ``start``: length before the last extension; ``window``, ``residual``: (tokens - sink) modulo
    the ring's size, the slot that the next token will take."""

    def __init__(self, config: RlkvConfig):
        length = index_bits(config.context)
        super().__init__(
            {
                "tokens": length,
                "start": length,
                "window": address_bits(config.recent),
                "residual": address_bits(config.residual_slots),
            }
        )


class Sequences(wiring.Component):
    """State of the sequences, one word per request; all heads of a request share its two ring positions.

    Ring positions advance by a number of tokens modulo the size of the ring by restoring division, one bit per cycle:
    an extension takes :attr:`latency` cycles, a decode step's single token as long as a prefill's thousands.

    Strobes, one at a time: ``load`` reads ``request``, ``state`` holds it from the next cycle until the next ``load``;
    ``clear`` empties ``request``; ``extend`` (after a load) adds ``count`` tokens, ``busy`` until that is written.

    Parameters
    ----------
    config : RlkvConfig
    """

    def __init__(self, config: RlkvConfig):
        self.config = config
        # Shifts of the ring sizes: the largest dividend is a whole context on top of a ring.
        self.steps = bits_for(max((config.context + size) // size for size in (config.recent, config.residual_slots)))
        self.latency = self.steps + 2
        super().__init__(
            {
                "request": In(address_bits(config.requests)),
                "load": In(1),
                "clear": In(1),
                "extend": In(1),
                "count": In(index_bits(config.context)),
                "busy": Out(1),
                "state": Out(SequenceState(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        layout = SequenceState(config)
        m.submodules.states = states = memory.Memory(shape=layout, depth=max(2, config.requests), init=[])
        put, get = states.write_port(), states.read_port()
        write = Signal()
        m.d.comb += [
            get.addr.eq(self.request),
            get.en.eq(self.load),
            self.state.eq(get.data),
            put.addr.eq(self.request),
            put.en.eq(self.clear | write),
        ]
        state = self.state
        tokens = Signal.like(state.tokens)
        past_sinks = Signal.like(state.tokens)
        first = Mux(state.tokens > config.sink, state.tokens, config.sink)
        m.d.comb += [
            tokens.eq(state.tokens + self.count),
            past_sinks.eq(Mux(tokens > first, tokens - first, 0)),
        ]

        rings = {"window": config.recent, "residual": config.residual_slots}
        left = Signal(range(self.steps + 1))
        with m.If(self.extend):
            m.d.sync += [left.eq(self.steps), self.busy.eq(1)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Elif(self.busy):
            m.d.comb += [write.eq(1), put.data.tokens.eq(tokens), put.data.start.eq(state.tokens)]
            m.d.sync += self.busy.eq(0)
        for name, size in rings.items():
            rest = Signal(range(config.context + size), name=f"{name}_rest", reset_less=True)
            divisor = Signal(range((size << self.steps - 1) + 1), name=f"{name}_divisor", reset_less=True)
            with m.If(self.extend):
                m.d.sync += [rest.eq(state[name] + past_sinks), divisor.eq(size << self.steps - 1)]
            with m.Elif(left != 0):
                m.d.sync += divisor.eq(divisor >> 1)
                with m.If(rest >= divisor):
                    m.d.sync += rest.eq(rest - divisor)
            with m.If(write):
                m.d.comb += put.data[name].eq(rest)
        return m

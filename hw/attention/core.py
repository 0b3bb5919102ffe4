"""The frame of both attention cores: packets in, results out, and what went wrong."""

from collections.abc import Mapping

from amaranth import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.attention.layouts import PacketBeat
from hw.attention.packets import PacketFront
from hw.kv.errors import COUNTER_BITS, ErrorLog
from hw.kv.layouts import ERROR_BITS
from spec import checks
from spec.attention import AttentionConfig

__all__ = ["AttentionCore", "add_queue"]


class AttentionCore(wiring.Component):
    """A core that takes lists of packets.

    Parameters
    ----------
    config : AttentionConfig
    inputs : mapping of str to Member
        What else comes in.
    result : ShapeLike
        What leaves, with ``marked`` and ``last``.

    Members
    -------
    i : stream of PacketBeat, In
    o : stream of ``result``, Out
    error, error_count : Out
        First code since the last clear (KvError, AttentionError); marked lasts since then.
    error_clear : In
    busy : Out
        The array takes a step in this cycle.
    """

    def __init__(self, config: AttentionConfig, inputs: Mapping[str, wiring.Member], result):
        checks.instance("config", config, AttentionConfig)
        self.config = config
        super().__init__(
            {
                **inputs,
                "i": In(stream.Signature(PacketBeat)),
                "o": Out(stream.Signature(result)),
                "error": Out(ERROR_BITS),
                "error_count": Out(COUNTER_BITS),
                "error_clear": In(1),
                "busy": Out(1),
            }
        )

    def add_frame(self, m: Module):
        """What takes packets apart and what keeps errors, connected to this core's members; returns both."""
        m.submodules.front = front = PacketFront(self.config)
        m.submodules.log = log = ErrorLog()
        wiring.connect(m, wiring.flipped(self.i), front.i)
        m.d.comb += [
            log.bad.eq(self.o.valid & self.o.ready & self.o.payload.marked & self.o.payload.last),
            log.clear.eq(self.error_clear),
            self.error.eq(log.error),
            self.error_count.eq(log.count),
        ]
        return front, log


def add_queue(m: Module, name: str, source, sink, depth: int):
    """A FIFO between two streams of one width."""
    payload = Value.cast(source.payload)
    m.submodules[name] = fifo = SyncFIFOBuffered(width=len(payload), depth=depth)
    m.d.comb += [
        fifo.w_data.eq(payload),
        fifo.w_en.eq(source.valid),
        source.ready.eq(fifo.w_rdy),
        sink.payload.eq(fifo.r_data),
        sink.valid.eq(fifo.r_rdy),
        fifo.r_en.eq(sink.ready),
    ]

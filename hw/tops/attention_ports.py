"""What the AXI blocks of both attention cores share: packets with TUSER, and how many lists are under way."""

from amaranth import Module, Mux, Signal

from hw.axi.stream import AxiStreamPort
from spec.attention import BUS_BYTES, PACKET_USER

__all__ = ["LISTS_BITS", "PacketPort", "lists_under_way"]

LISTS_BITS = 8
"""Of a count of lists under way: the queues of a core hold a few."""


class PacketPort:
    """The port ``s_axis_packets`` of an attention core: 128-bit beats, TUSER as in ``spec.attention.PACKET_USER``.

    A packet's TUSER is that of its first beat, so a packet cannot change its mind in its midst.
    """

    def __init__(self):
        self.port = AxiStreamPort("s", "packets", 8 * BUS_BYTES, user_bits=len(PACKET_USER))

    @property
    def members(self):
        return self.port.members

    def connect(self, m: Module, component, sink):
        """Drive ``sink``, a stream of `PacketBeat`; returns (a beat passes, it is the first of a list)."""
        packets, beat = self.port.source(m, component), sink.payload
        first = Signal(init=1)
        first_of_list = Signal(init=1)
        kept = Signal(len(PACKET_USER), reset_less=True)
        user = Mux(first, packets.p.user, kept)
        taken = packets.valid & packets.ready
        with m.If(taken):
            m.d.sync += [first.eq(packets.p.last), kept.eq(user), first_of_list.eq(packets.p.last & beat.final)]
        m.d.comb += [
            beat.data.eq(packets.p.data),
            beat.last.eq(packets.p.last),
            *(beat[field.name].eq(user[field.offset]) for field in PACKET_USER),
            sink.valid.eq(packets.valid),
            packets.ready.eq(sink.ready),
        ]
        return taken, taken & first_of_list


def lists_under_way(m: Module, begins, ends, name: str):
    """Whether more lists have begun than ended."""
    count = Signal(LISTS_BITS, name=f"{name}_under_way")
    m.d.sync += count.eq(count + begins - ends)
    return count != 0

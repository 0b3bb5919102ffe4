"""AXI4-Lite: the bus as streams, its flat ports, and a subordinate that serves one access at a time each way."""

from amaranth import Module, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from spec import checks

__all__ = ["AxiLite", "AxiLitePort", "AxiLiteSubordinate", "ReadData", "RegisterAccess", "Response", "WriteData"]


class Response(enum.Enum, shape=2):
    """Responses given: DECERR and EXOKAY never are."""

    OKAY = 0
    SLVERR = 2


class WriteData(data.Struct):
    """A word and the bytes of it that count."""

    data: 32
    strb: 4


class ReadData(data.Struct):
    """A word and how the read went."""

    data: 32
    resp: Response


class AxiLite(wiring.Signature):
    """A 32-bit AXI4-Lite bus, seen from the manager: five streams ``aw``, ``w``, ``b``, ``ar``, ``r``.

    Parameters
    ----------
    address_bits : int
        Width of the byte addresses.
    """

    def __init__(self, address_bits: int):
        self.address_bits = address_bits
        super().__init__(
            {
                "aw": Out(stream.Signature(address_bits)),
                "w": Out(stream.Signature(WriteData)),
                "b": In(stream.Signature(Response)),
                "ar": Out(stream.Signature(address_bits)),
                "r": In(stream.Signature(ReadData)),
            }
        )


class RegisterAccess(wiring.Signature):
    """What a bus access amounts to, seen from the bus: word addresses and strobes that are high for one cycle.

    Members
    -------
    write, write_address, write_data, write_strobes : Out
        In a cycle with ``write``, the bytes of ``write_data`` that ``write_strobes`` names are to be written.
    write_error : In
        Same cycle: there is no such register.
    read, read_address : Out
    read_data, read_error : In
        Same cycle.
    """

    def __init__(self, address_bits: int):
        super().__init__(
            {
                "write": Out(1),
                "write_address": Out(address_bits - 2),
                "write_data": Out(32),
                "write_strobes": Out(4),
                "write_error": In(1),
                "read": Out(1),
                "read_address": Out(address_bits - 2),
                "read_data": In(32),
                "read_error": In(1),
            }
        )


class AxiLiteSubordinate(wiring.Component):
    """AXI4-Lite handshakes on one side, plain register accesses on the other.

    The address and the data of a write may come in either order; reads and writes do not wait for each other. No
    output depends on an input of the same cycle, as AXI demands. A misaligned address (bits 1:0 not 0) is answered with
    SLVERR and reaches no register, like an access that the registers refuse with ``write_error`` or ``read_error``.

    Latency 2 cycles from address and data to the response; throughput one access per 2 cycles each way.

    Parameters
    ----------
    address_bits : int
        Width of the byte addresses, 3..32.

    Members
    -------
    bus : AxiLite, In
    access : RegisterAccess, Out
    """

    def __init__(self, address_bits: int):
        checks.whole("address_bits", address_bits, 3, 32)
        super().__init__({"bus": In(AxiLite(address_bits)), "access": Out(RegisterAccess(address_bits))})

    def elaborate(self, platform):
        m = Module()
        self._serve_writes(m)
        self._serve_reads(m)
        return m

    def _serve_writes(self, m):
        bus, access = self.bus, self.access
        address = Signal.like(bus.aw.payload, reset_less=True)
        word = Signal.like(bus.w.payload, reset_less=True)
        have_address = Signal()
        have_word = Signal()
        answering = Signal()
        response = Signal(Response, reset_less=True)
        aligned = Signal()
        act = Signal()
        m.d.comb += [
            bus.aw.ready.eq(~have_address),
            bus.w.ready.eq(~have_word),
            bus.b.valid.eq(answering),
            bus.b.payload.eq(response),
            aligned.eq(address[:2] == 0),
            act.eq(have_address & have_word & ~answering),
            access.write.eq(act & aligned),
            access.write_address.eq(address[2:]),
            access.write_data.eq(word.data),
            access.write_strobes.eq(word.strb),
        ]
        with m.If(bus.aw.valid & ~have_address):
            m.d.sync += [have_address.eq(1), address.eq(bus.aw.payload)]
        with m.If(bus.w.valid & ~have_word):
            m.d.sync += [have_word.eq(1), word.eq(bus.w.payload)]
        with m.If(bus.b.ready):
            m.d.sync += answering.eq(0)
        with m.If(act):
            m.d.sync += [have_address.eq(0), have_word.eq(0), answering.eq(1), response.eq(Response.OKAY)]
            with m.If(~aligned | access.write_error):
                m.d.sync += response.eq(Response.SLVERR)

    def _serve_reads(self, m):
        bus, access = self.bus, self.access
        address = Signal.like(bus.ar.payload, reset_less=True)
        have_address = Signal()
        answering = Signal()
        answer = Signal(ReadData, reset_less=True)
        aligned = Signal()
        act = Signal()
        m.d.comb += [
            bus.ar.ready.eq(~have_address),
            bus.r.valid.eq(answering),
            bus.r.payload.eq(answer),
            aligned.eq(address[:2] == 0),
            act.eq(have_address & ~answering),
            access.read.eq(act & aligned),
            access.read_address.eq(address[2:]),
        ]
        with m.If(bus.ar.valid & ~have_address):
            m.d.sync += [have_address.eq(1), address.eq(bus.ar.payload)]
        with m.If(bus.r.ready):
            m.d.sync += answering.eq(0)
        with m.If(act):
            m.d.sync += [have_address.eq(0), answering.eq(1)]
            with m.If(~aligned | access.read_error):
                m.d.sync += [answer.data.eq(0), answer.resp.eq(Response.SLVERR)]
            with m.Else():
                m.d.sync += [answer.data.eq(access.read_data), answer.resp.eq(Response.OKAY)]


class AxiLitePort:
    """The flat ports of an AXI4-Lite subordinate: ``s_axil_awaddr``, ``s_axil_awvalid``, ... (``prefix_`` s_axil).

    ``awprot`` and ``arprot`` exist because managers drive them; they are ignored.
    """

    def __init__(self, address_bits: int, prefix: str = "s_axil"):
        self.prefix = prefix
        self._shapes = {
            "aw": {"awaddr": In(address_bits), "awprot": In(3)},
            "w": {"wdata": In(32), "wstrb": In(4)},
            "b": {"bresp": Out(2)},
            "ar": {"araddr": In(address_bits), "arprot": In(3)},
            "r": {"rdata": Out(32), "rresp": Out(2)},
        }

    @property
    def members(self) -> dict[str, wiring.Member]:
        """Members for the component's signature."""
        members = {}
        for channel, payload in self._shapes.items():
            inward = channel in ("aw", "w", "ar")
            members |= payload
            members |= {f"{channel}valid": In(1) if inward else Out(1), f"{channel}ready": Out(1) if inward else In(1)}
        return {f"{self.prefix}_{name}": member for name, member in members.items()}

    def connect(self, m: Module, component: wiring.Component, bus) -> None:
        """Connect the ports of ``component`` to ``bus``, the :class:`AxiLite` of a subordinate inside it."""

        def port(name):
            return getattr(component, f"{self.prefix}_{name}")

        m.d.comb += [
            bus.aw.payload.eq(port("awaddr")),
            bus.w.payload.data.eq(port("wdata")),
            bus.w.payload.strb.eq(port("wstrb")),
            port("bresp").eq(bus.b.payload.as_value()),
            bus.ar.payload.eq(port("araddr")),
            port("rdata").eq(bus.r.payload.data),
            port("rresp").eq(bus.r.payload.resp.as_value()),
        ]
        for channel in ("aw", "w", "ar"):
            m.d.comb += [
                getattr(bus, channel).valid.eq(port(f"{channel}valid")),
                port(f"{channel}ready").eq(getattr(bus, channel).ready),
            ]
        for channel in ("b", "r"):
            m.d.comb += [
                port(f"{channel}valid").eq(getattr(bus, channel).valid),
                getattr(bus, channel).ready.eq(port(f"{channel}ready")),
            ]

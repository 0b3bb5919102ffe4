"""AXI4-Stream: flat ports in a wrapper's signature, connected to the streams inside through register slices."""

from amaranth import Cat, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.streams.skid_buffer import SkidBuffer
from spec import checks

__all__ = ["AxiStreamPort"]


class AxiStreamPort:
    """The flat ports of one AXI4-Stream: ``s_axis_<name>_*`` for a subordinate, ``m_axis_<name>_*`` for a manager.

    Use :attr:`members` in the signature of a wrapper and :meth:`source` or :meth:`sink` in its ``elaborate``. Between
    the ports and the stream inside stands a register slice (latency 1 cycle, a beat per cycle), so no output depends on
    an input of the same cycle, as AXI demands. Position and null bytes are not supported: a byte that TKEEP leaves out
    is only ever padding at a packet's end.

    Parameters
    ----------
    direction : str
        ``"s"`` receives beats, ``"m"`` sends them.
    name : str
        Without a name, the ports are ``s_axis_tdata``, ...
    data_bits : int
        Width of TDATA, a multiple of 8.
    last : bool
        Whether there is a TLAST.
    keep : bool
        Whether there is a TKEEP.
    user_bits, dest_bits : int
        Widths of TUSER and TDEST; 0 for none.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter, its value and what is allowed.
    """

    def __init__(
        self,
        direction: str,
        name: str,
        data_bits: int,
        *,
        last: bool = True,
        keep: bool = False,
        user_bits: int = 0,
        dest_bits: int = 0,
    ):
        checks.choice("direction", direction, ("s", "m"))
        checks.whole("data_bits", data_bits, 8, step=8)
        checks.whole("user_bits", user_bits, 0)
        checks.whole("dest_bits", dest_bits, 0)
        self.direction = direction
        self.prefix = f"{direction}_axis" + (f"_{name}" if name else "")
        fields = {"data": data_bits, "keep": keep * data_bits // 8, "last": int(last)}
        fields |= {"user": user_bits, "dest": dest_bits}
        self.layout = data.StructLayout({field: width for field, width in fields.items() if width})

    @property
    def members(self) -> dict[str, wiring.Member]:
        """Members for the wrapper's signature."""
        forward, backward = (In, Out) if self.direction == "s" else (Out, In)
        payload = {f"t{field}": forward(shape) for field, shape in self.layout.members.items()}
        ports = payload | {"tvalid": forward(1), "tready": backward(1)}
        return {f"{self.prefix}_{name}": member for name, member in ports.items()}

    def source(self, m: Module, component: wiring.Component):
        """Receive: returns a stream inside ``component``, whose payload has the fields of :attr:`layout`.

        Raises
        ------
        ValueError
            If the port sends beats.
        """
        self._check("s")
        port, slice_ = self._ports(component), self._slice(m)
        m.d.comb += [
            slice_.i.payload.eq(Cat(port[f"t{field}"] for field in self.layout.members)),
            slice_.i.valid.eq(port["tvalid"]),
            port["tready"].eq(slice_.i.ready),
        ]
        return slice_.o

    def sink(self, m: Module, component: wiring.Component):
        """Send: returns a stream inside ``component`` to drive, whose payload has the fields of :attr:`layout`.

        Raises
        ------
        ValueError
            If the port receives beats.
        """
        self._check("m")
        port, slice_ = self._ports(component), self._slice(m)
        m.d.comb += [
            Cat(port[f"t{field}"] for field in self.layout.members).eq(Value.cast(slice_.o.payload)),
            port["tvalid"].eq(slice_.o.valid),
            slice_.o.ready.eq(port["tready"]),
        ]
        return slice_.i

    def _check(self, direction: str) -> None:
        if self.direction != direction:
            raise ValueError(f"{self.prefix} {'sends' if self.direction == 'm' else 'receives'} beats")

    def _ports(self, component) -> dict[str, Value]:
        start = len(self.prefix) + 1
        return {name[start:]: getattr(component, name) for name in self.members}

    def _slice(self, m: Module) -> SkidBuffer:
        slice_ = SkidBuffer(self.layout)
        m.submodules[f"{self.prefix}_slice"] = slice_
        return slice_

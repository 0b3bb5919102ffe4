"""Stream plumbing: components that pass a stream on unchanged."""

from amaranth import Module, Signal
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SkidBuffer"]


class SkidBuffer(wiring.Component):
    """Register slice: cuts every combinational path of a stream, in both directions.

    ``o.valid``, ``o.payload`` and ``i.ready`` all come straight from registers, so a chain of blocks closes timing
    whatever its length. A second register (the skid) catches the beat that is under way when ``o.ready`` falls.

    ```
                  +------+
    i.payload -+->| skid |--+
               |  +------+  v
               +----------->[mux]--> register --> o.payload
    ```

    Order and payloads are kept. Latency 1 cycle; throughput 1 beat per cycle; holds up to 2 beats.

    Parameters
    ----------
    shape : shape-like
        Payload of both streams, for instance a :class:`~amaranth.lib.data.StructLayout`.

    Members
    -------
    i : ``In(stream.Signature(shape))``
        Beats in. Ready is low only while both registers are full.
    o : ``Out(stream.Signature(shape))``
        The same beats, in the same order.

    Raises
    ------
    TypeError
        ``shape`` is not shape-like.
    """

    latency = 1

    def __init__(self, shape: ShapeLike):
        try:
            Shape.cast(shape)
        except TypeError as error:
            raise TypeError(f"shape must be shape-like (an int, a Shape or a data layout), not {shape!r}") from error
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        skid = Signal(self._shape, reset_less=True)
        skid_full = Signal()
        o_valid = Signal()
        o_payload = Signal(self._shape, reset_less=True)
        advance = Signal()

        m.d.comb += [
            self.i.ready.eq(~skid_full),
            self.o.valid.eq(o_valid),
            self.o.payload.eq(o_payload),
            advance.eq(self.o.ready | ~o_valid),
        ]
        with m.If(advance):
            m.d.sync += [o_valid.eq(self.i.valid | skid_full), skid_full.eq(0)]
            with m.If(skid_full):
                m.d.sync += o_payload.eq(skid)
            with m.Else():
                m.d.sync += o_payload.eq(self.i.payload)
        with m.Elif(self.i.valid & ~skid_full):
            m.d.sync += [skid.eq(self.i.payload), skid_full.eq(1)]
        return m

"""AXI's clock and reset for a wrapper: ``aclk`` and ``aresetn`` become the ``sync`` domain of what is inside."""

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["add_clock", "ports"]


def ports(*buses, **others) -> dict[str, wiring.Member]:
    """Members of a wrapper's signature, in the order of its Verilog: clock and reset, those of ``buses``
    (:class:`hw.axi.stream.AxiStreamPort`, :class:`hw.axi.lite.AxiLitePort`), and the others."""
    found = {"aclk": In(1), "aresetn": In(1)}
    for bus in buses:
        found |= bus.members
    return found | others


def add_clock(m: Module, component: wiring.Component) -> None:
    """Make the ``sync`` domain of ``m`` from ``component.aclk`` and ``component.aresetn`` (active low, synchronous).

    Outputs are defined from the first rising edge of ``aclk`` with ``aresetn`` low; one such edge is a full reset.
    """
    m.domains.sync = ClockDomain()
    m.d.comb += [ClockSignal().eq(component.aclk), ResetSignal().eq(~component.aresetn)]

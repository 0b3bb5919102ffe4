"""AXI's clock and reset for a wrapper: ``aclk`` and ``aresetn`` become the ``sync`` domain of what is inside."""

from amaranth import ClockDomain, ClockSignal, Module, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

__all__ = ["CLOCK_PORTS", "add_clock"]

CLOCK_PORTS = {"aclk": In(1), "aresetn": In(1)}
"""Members for the wrapper's signature."""


def add_clock(m: Module, component: wiring.Component) -> None:
    """Make the ``sync`` domain of ``m`` from ``component.aclk`` and ``component.aresetn`` (active low, synchronous).

    Outputs are defined from the first rising edge of ``aclk`` with ``aresetn`` low; one such edge is a full reset.
    """
    m.domains.sync = ClockDomain()
    m.d.comb += [ClockSignal().eq(component.aclk), ResetSignal().eq(~component.aresetn)]

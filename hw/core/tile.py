"""The array of PEs, wired: digits along rows, activations and drain chains along columns."""

from amaranth import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.core.parts import parts
from hw.sharing import place
from spec.core import CoreConfig

__all__ = ["PEStack", "Tile"]


class PEStack(wiring.Component):
    """The R PEs of a column: they share multiples, and pass their sums on.

    Row r is in drain chain r modulo ``drain_chains``, from where its sum passes through the lower rows of the chain.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    digits, control : In
        Those of the rows, row 0 lowest. Plain bits: in Verilog every field of a structure is a line for each column.
    multiples : In
    sums : array, Out
        One for each drain chain: in cycle ``latency + k`` after a group's last step, the k-th rows' of the chains. So
        group ends must lie ``config.drain_cycles`` apart.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        self._parts = made = parts(config.datapath)
        self._first = made.pe()
        self.latency = self._first.latency
        super().__init__(
            {
                "digits": In(data.ArrayLayout(made.digits, config.rows).size),
                "control": In(data.ArrayLayout(made.control, config.rows).size),
                "multiples": In(made.multiple),
                "sums": Out(made.sum).array(config.drain_chains),
            }
        )

    def elaborate(self, platform):
        m = Module()
        made = iter([self._first])
        chains = [0] * self.config.drain_chains
        for row in reversed(range(self.config.rows)):
            chain = row % len(chains)
            pe = place(m, platform, f"pe{row}", "pe", lambda: next(made, None) or self._parts.pe())
            m.d.comb += [
                pe.digits.as_value().eq(self.digits.word_select(row, self._parts.digits.size)),
                pe.control.as_value().eq(self.control.word_select(row, len(pe.control.as_value()))),
                pe.multiples.eq(self.multiples),
                pe.chain.eq(chains[chain]),
            ]
            chains[chain] = pe.o
        m.d.comb += [out.eq(chain) for out, chain in zip(self.sums, chains, strict=True)]
        return m


class Tile(wiring.Component):
    """R x C PEs. A row shares digits and control, a column multiples.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    digits, control : In
        As of :class:`PEStack`.
    multiples : array of C, In
    sums : array of C arrays, Out
        As of :class:`PEStack`.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        made = parts(config.datapath)
        self._first = PEStack(config)
        self.latency = self._first.latency
        super().__init__(
            {
                "digits": In(data.ArrayLayout(made.digits, config.rows).size),
                "control": In(data.ArrayLayout(made.control, config.rows).size),
                "multiples": In(made.multiple).array(config.columns),
                "sums": Out(made.sum).array(config.columns, config.drain_chains),
            }
        )

    def elaborate(self, platform):
        m = Module()
        made = iter([self._first])
        for column in range(self.config.columns):
            stack = place(m, platform, f"stack{column}", "stack", lambda: next(made, None) or PEStack(self.config))
            m.d.comb += [
                stack.digits.eq(self.digits),
                stack.control.eq(self.control),
                stack.multiples.eq(self.multiples[column]),
                *(out.eq(chain) for out, chain in zip(self.sums[column], stack.sums, strict=True)),
            ]
        return m

"""The array of PEs, wired: digits along rows, activations and drain chains along columns."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.prealigned.pe import Control, DigitBeat, MultipleBeat, PrealignedPE, RedundantSum
from hw.sharing import place
from hw.spec.core import CoreConfig

__all__ = ["PEStack", "Tile"]


class PEStack(wiring.Component):
    """The R PEs of a column: they share multiples, and pass their sums on to row 0.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    digits : array of R DigitBeat, In
    control : array of R Control, In
    multiples : MultipleBeat, In
    sum : RedundantSum, Out
        Row r's ``latency + r`` cycles after a group's last step; so group ends must lie R cycles apart.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        datapath = config.datapath
        self._first = PrealignedPE(datapath)
        self.latency = self._first.latency
        super().__init__(
            {
                "digits": In(DigitBeat(datapath.digits, datapath.lanes)).array(config.rows),
                "control": In(Control).array(config.rows),
                "multiples": In(MultipleBeat(datapath)),
                "sum": Out(RedundantSum(datapath.accumulator_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        datapath = self.config.datapath
        made = iter([self._first])
        chain = None
        for row in reversed(range(self.config.rows)):
            pe = place(m, platform, f"pe{row}", "pe", lambda: next(made, None) or PrealignedPE(datapath))
            m.d.comb += [
                pe.digits.eq(self.digits[row]),
                pe.control.eq(self.control[row]),
                pe.multiples.eq(self.multiples),
                pe.chain.eq(0 if chain is None else chain),
            ]
            chain = pe.o
        m.d.comb += self.sum.eq(chain)
        return m


class Tile(wiring.Component):
    """R x C PEs. A row shares digits and control, a column multiples.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    digits : array of R DigitBeat, In
    control : array of R Control, In
    multiples : array of C MultipleBeat, In
    sums : array of C RedundantSum, Out
        As of :class:`PEStack`.
    """

    def __init__(self, config: CoreConfig):
        self.config = config
        datapath = config.datapath
        self._first = PEStack(config)
        self.latency = self._first.latency
        super().__init__(
            {
                "digits": In(DigitBeat(datapath.digits, datapath.lanes)).array(config.rows),
                "control": In(Control).array(config.rows),
                "multiples": In(MultipleBeat(datapath)).array(config.columns),
                "sums": Out(RedundantSum(datapath.accumulator_bits)).array(config.columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        made = iter([self._first])
        for column in range(self.config.columns):
            stack = place(m, platform, f"stack{column}", "stack", lambda: next(made, None) or PEStack(self.config))
            m.d.comb += [
                *(inside.eq(digits) for inside, digits in zip(stack.digits, self.digits, strict=True)),
                *(inside.eq(control) for inside, control in zip(stack.control, self.control, strict=True)),
                stack.multiples.eq(self.multiples[column]),
                self.sums[column].eq(stack.sum),
            ]
        return m

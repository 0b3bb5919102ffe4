"""The array of PEs, wired: digits along rows, activations and drain chains along columns."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.prealigned.pe import Control, DigitBeat, MultipleBeat, PrealignedPE, RedundantSum
from hw.sharing import place
from hw.spec.core import CoreConfig

__all__ = ["PEStack", "Tile"]


class PEStack(wiring.Component):
    """The R PEs of a column: they share multiples, and pass their sums on.

    Row r is in drain chain r modulo ``drain_chains``, from where its sum passes through the lower rows of the chain.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    digits : array of R DigitBeat, In
    control : array of R Control, In
    multiples : MultipleBeat, In
    sums : array of RedundantSum, Out
        One for each drain chain: in cycle ``latency + k`` after a group's last step, the k-th rows' of the chains. So
        group ends must lie ``config.drain_cycles`` apart.
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
                "sums": Out(RedundantSum(datapath.accumulator_bits)).array(config.drain_chains),
            }
        )

    def elaborate(self, platform):
        m = Module()
        datapath = self.config.datapath
        made = iter([self._first])
        chains = [0] * self.config.drain_chains
        for row in reversed(range(self.config.rows)):
            chain = row % len(chains)
            pe = place(m, platform, f"pe{row}", "pe", lambda: next(made, None) or PrealignedPE(datapath))
            m.d.comb += [
                pe.digits.eq(self.digits[row]),
                pe.control.eq(self.control[row]),
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
    digits : array of R DigitBeat, In
    control : array of R Control, In
    multiples : array of C MultipleBeat, In
    sums : array of C arrays of RedundantSum, Out
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
                "sums": Out(RedundantSum(datapath.accumulator_bits)).array(config.columns, config.drain_chains),
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
                *(out.eq(chain) for out, chain in zip(self.sums[column], stack.sums, strict=True)),
            ]
        return m

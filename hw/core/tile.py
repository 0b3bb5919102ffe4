"""The array of PEs, wired: digits along rows, activations and drain chains along columns."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.prealigned.pe import Control, DigitBeat, MultipleBeat, PrealignedPE, RedundantSum
from hw.sharing import place
from hw.spec.core import CoreConfig

__all__ = ["Tile"]


class Tile(wiring.Component):
    """R x C PEs. A row shares digits and control, a column multiples.

    Sums leave each column at row 0: row r's is at ``sums`` ``latency + r`` cycles after the group's last step, so group
    ends must lie R cycles apart.

    Parameters
    ----------
    config : CoreConfig

    Members
    -------
    digits : array of R DigitBeat, In
    control : array of R Control, In
    multiples : array of C MultipleBeat, In
    sums : array of C RedundantSum, Out
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
                "multiples": In(MultipleBeat(datapath)).array(config.columns),
                "sums": Out(RedundantSum(datapath.accumulator_bits)).array(config.columns),
            }
        )

    def elaborate(self, platform):
        m = Module()
        datapath = self.config.datapath
        first = iter([self._first])

        def make():
            return next(first, None) or PrealignedPE(datapath)

        for column in range(self.config.columns):
            chain = Signal(RedundantSum(datapath.accumulator_bits), name=f"chain{column}")
            m.d.comb += chain.eq(0)
            for row in reversed(range(self.config.rows)):
                pe = place(m, platform, f"pe_{row}_{column}", "pe", make)
                m.d.comb += [
                    pe.digits.eq(self.digits[row]),
                    pe.control.eq(self.control[row]),
                    pe.multiples.eq(self.multiples[column]),
                    pe.chain.eq(chain),
                ]
                chain = pe.o
            m.d.comb += self.sums[column].eq(chain)
        return m

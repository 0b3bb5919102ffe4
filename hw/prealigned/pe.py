"""The pre-aligned processing element: integers only, one digit of a weight per lane and cycle."""

from functools import reduce
from operator import or_

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.compressor import PipelinedTree, compress
from spec import checks
from spec.digits import DigitSet
from spec.prealigned import PrealignedConfig

__all__ = ["Control", "DigitBeat", "MultipleBeat", "PrealignedPE", "RedundantSum"]


class DigitBeat(data.StructLayout):
    """One digit per lane: ``select``, one-hot over the digit set's multiples (none: the digit 0), and ``negative``."""

    def __init__(self, digits: DigitSet, lanes: int):
        super().__init__({"select": data.ArrayLayout(len(digits.multiples), lanes), "negative": lanes})


class MultipleBeat(data.StructLayout):
    """A beat of aligned activations: ``x1`` the integers q of every lane, ``x3`` 3q and so on, two's complement."""

    def __init__(self, config: PrealignedConfig):
        super().__init__(
            {
                f"x{odd}": data.ArrayLayout(config.multiple_bits(odd), config.lanes)
                for odd in config.digits.odd_multiples
            }
        )


class Control(data.Struct):
    """What a step does to the accumulator. With neither ``keep`` nor ``shift`` it starts a new sum."""

    keep: 1
    """Add to the accumulator."""
    shift: 1
    """Add to the accumulator times 2**plane_bits: the first step of the next lower plane."""
    last: 1
    """The group's last step."""


class RedundantSum(data.StructLayout):
    """A group's sum in carry-save form: ``total + carry`` modulo 2**accumulator_bits, two's complement."""

    def __init__(self, accumulator_bits: int):
        super().__init__({"total": accumulator_bits, "carry": accumulator_bits})


class PrealignedPE(wiring.Component):
    """Adds ``lanes`` signed multiples of pre-aligned activations per cycle; exact.

    ```
    multiples, select --> mux --> xor --> 3:2 tree --> + --> drain register --> o
                                  negative   |         ^ |         ^
       free carry bits of the tree ----------+         | |         +-- chain (the next PE's o)
                                               accumulator (two numbers): sum, shifted sum or 0
    ```

    A group's sum is ``sum over planes p, beats: digit * q * 2**(plane_bits * p)``, highest plane first
    (docs/prealigned.md, section 4). Lanes are added in offset binary, so no row is sign-extended; negation is a one's
    complement whose 1 goes into a carry bit that the tree leaves free. No carry propagates further than
    ``segment_bits``: whoever takes ``o`` adds its two halves.

    Throughput is one step per cycle; a step never waits. A cycle without a step is a step with all digits 0 and
    ``keep``. A group's sum is in the drain register ``latency`` cycles after its last step. In every other cycle the
    register takes ``chain``: PEs in a row pass their sums on, one per cycle, and N of them need N cycles between group
    ends.

    Parameters
    ----------
    config : PrealignedConfig

    Members
    -------
    digits : DigitBeat, In
    multiples : MultipleBeat, In
    control : Control, In
    chain : RedundantSum, In
    o : RedundantSum, Out
    """

    def __init__(self, config: PrealignedConfig):
        checks.instance("config", config, PrealignedConfig)
        self.config = config
        self.latency = len(config.registers) + 1
        super().__init__(
            {
                "digits": In(DigitBeat(config.digits, config.lanes)),
                "multiples": In(MultipleBeat(config)),
                "control": In(Control),
                "chain": In(RedundantSum(config.accumulator_bits)),
                "o": Out(RedundantSum(config.accumulator_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        width = config.accumulator_bits
        rows = [self._select(m, lane) for lane in range(config.lanes)]
        # Every row is 2**(bits - 1) too large; lanes is a power of two, so the correction is a row of ones.
        offset_bit = config.product_bits - 1 + (config.lanes.bit_length() - 1)
        rows[0] = Cat(rows[0], C(0, offset_bit - config.product_bits), C(-1, width - offset_bit))
        tree = PipelinedTree(m, rows, list(self.digits.negative), self.control.as_value(), width, config.registers)
        control = Control(tree.flags)

        # What the next step adds to, ready for it: 0, the sum or the shifted sum. So the control bits, which many gates
        # wait for, have the compressors' time to arrive.
        old = Signal(2 * width, reset_less=True)
        first, second = tree.carries
        inner = compress(m, *tree.rows, old[:width], width, "inner", first)
        outer = compress(m, *inner, old[width:], width, "outer", second)
        halves = self._propagate(m, *outer) if config.segment_bits > 1 else outer
        total = Cat(*halves)
        shifted = Cat(*(Cat(C(0, config.plane_bits), half)[:width] for half in halves))
        following = Control(tree.coming)
        keep, shift = (bit.replicate(2 * width) for bit in (following.keep, following.shift))
        m.d.sync += old.eq((total & keep) | (shifted & shift))

        drain = Signal(RedundantSum(width), reset_less=True)
        chain = self.chain.as_value()
        if config.segment_bits > 1:
            # Where this PE saves no carry, the next one does not either.
            chain = chain & Cat(C(-1, width), *(k > 0 and k % config.segment_bits == 0 for k in range(width)))
        m.d.sync += drain.eq(Mux(control.last, total, chain))
        m.d.comb += self.o.eq(drain)
        return m

    def _propagate(self, m, total, carry):
        """The same sum with a saved carry before each segment but the first, and no others."""
        width, size = self.config.accumulator_bits, self.config.segment_bits
        sums, carries = [], [C(0, size)]
        for low in range(0, width, size):
            segment = Signal(len(total[low : low + size]) + 1, name=f"segment{low}")
            m.d.comb += segment.eq(total[low : low + size] + carry[low : low + size])
            sums.append(segment[:-1])
            carries += [segment[-1], C(0, size - 1)]
        return Cat(*sums), Cat(*carries)[:width]

    def _select(self, m, lane):
        """The lane's signed multiple plus 2**(product_bits - 1), a negative one yet lacking 1."""
        width = self.config.product_bits
        chosen = []
        for k, multiple in enumerate(self.config.digits.multiples):
            shift = (multiple & -multiple).bit_length() - 1
            source = self.multiples[f"x{multiple >> shift}"][lane]
            extended = Cat(C(0, shift), source, source[-1].replicate(width - shift - len(source)))
            chosen.append(extended & self.digits.select[lane][k].replicate(width))
        row = Signal(width, name=f"product{lane}")
        magnitude = reduce(or_, chosen)
        m.d.comb += row.eq(Cat(magnitude[:-1], ~magnitude[-1]) ^ self.digits.negative[lane].replicate(width))
        return row

"""Two sequences of elements merged as a mask says: multiplexers in levels, no crossbar."""

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import add

__all__ = ["ChannelMerge", "exceeds", "ones"]


def exceeds(value: Value, number: int) -> Value:
    """``value > number``; constant where it cannot be, which a linter would take for a mistake."""
    return value > number if number < (1 << len(value)) - 1 else C(0, 1)


def ones(m: Module, bits: list) -> dict[tuple[int, int], object]:
    """How many of ``bits[start:stop]`` are 1, for the whole and each of its halves, their halves and so on."""
    found = {}

    def count(start, stop):
        if stop - start == 1:
            total = bits[start]
        else:
            middle = (start + stop) // 2
            total = Signal(ceil_log2(stop - start) + 1, name=f"ones{start}_{stop}")
            m.d.comb += total.eq(add(m, count(start, middle), count(middle, stop)))
        found[start, stop] = total
        return total

    count(0, len(bits))
    return found


class ChannelMerge(wiring.Component):
    """The next elements of two sequences out of the banks that hold them, to the lanes that want them; combinational.

    Lane by lane, a mask bit of 1 wants the next element of the first sequence, 0 one of the second. The first lies in
    the banks from ``first`` on, upwards and round; the second from the bank below ``first`` on, downwards and round.
    So whatever the mask is, the elements lie one in each bank.

    The elements of half of the lanes lie in a window of half of the banks, round again: of two banks half a round
    apart it has one, and the other half of the lanes has the other. Each level sends them there and leaves the same
    problem twice at half the size, so ``log2(lanes)`` levels of 2:1 multiplexers do.

    Members
    -------
    banks : In
        A word per bank.
    mask, first : In
    o : Out
        A word per lane.
    """

    def __init__(self, lanes: int, width: int = 16):
        self.lanes, self.width = lanes, width
        super().__init__(
            {
                "banks": In(data.ArrayLayout(width, lanes)),
                "mask": In(lanes),
                "first": In(ceil_log2(lanes)),
                "o": Out(data.ArrayLayout(width, lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._ones = ones(m, list(self.mask))
        words = self._merge(m, [self.banks[k] for k in range(self.lanes)], self.first, 0)
        m.d.comb += self.o.eq(Cat(words))
        return m

    def _merge(self, m, banks, first, start):
        """The words of lanes ``start`` and following, as many as banks."""
        size = len(banks)
        if size == 1:
            return banks
        half = size // 2
        bits = ceil_log2(half)
        end = Signal(bits + 1, name=f"end{start}_{size}")
        m.d.comb += end.eq(add(m, first, self._ones[start, start + half]))
        low, round_ = end[:bits], end[bits]
        halves = [[], []]
        for k in range(half):
            # The lower lanes' window is the half round of banks that ends before `end`.
            lower = Signal(name=f"lower{start}_{size}_{k}")
            m.d.comb += lower.eq(exceeds(low, k) ^ round_)
            for side in range(2):
                word = Signal(self.width, name=f"word{start}_{size}_{side}_{k}")
                m.d.comb += word.eq(Mux(lower ^ side, banks[k], banks[k + half]))
                halves[side].append(word)
        left = self._merge(m, halves[0], first[:bits], start)
        return left + self._merge(m, halves[1], low, start + half)

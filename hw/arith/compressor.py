"""Carry-save addition: rows of bits reduced three to two, written out so that no synthesis tool has to find it."""

from amaranth import C, Cat, Signal

__all__ = ["PipelinedTree", "compress"]


def compress(m, a, b, c, width, name, carry_in=0):
    """(sum, carry) with ``sum + carry = a + b + c + carry_in`` modulo 2**width: a row of full adders."""
    total, carry = Signal(width, name=f"{name}_sum"), Signal(width, name=f"{name}_carry")
    m.d.comb += [total.eq(a ^ b ^ c), carry.eq(Cat(carry_in, (a & b) | (c & (a | b))))]
    return total, carry


class PipelinedTree:
    """Rows on their way through a carry-save tree, with the carry-ins and flags that accompany them.

    Every compressor's carry row has a free lowest bit: it takes one of ``carries``, whose weight is 1. Unused ones stay
    for whoever adds the result.

    Parameters
    ----------
    rows : list of Value
        Unsigned; added modulo 2**width.
    carries : list of Value
        Single bits.
    flags : Value
        Delayed along with the rows.
    registers : collection of int
        Row counts at which everything is registered.

    Attributes
    ----------
    rows, carries, flags
        What comes out.
    coming : Value
        The flags of the next cycle, if there is a register.
    """

    def __init__(self, m, rows, carries, flags, width, registers):
        self._m = m
        self._width = width
        self._registers = set(registers)
        self.rows, self.carries, self.flags = list(rows), list(carries), flags
        self.coming = None
        self.latency = 0
        self._level = 0
        self._stage()
        while len(self.rows) > 2:
            self._reduce()
            self._stage()

    def _reduce(self):
        count = len(self.rows)
        stop = max((r for r in self._registers if r < count), default=2)
        adders = min(count // 3, count - max(stop, 2))
        after = []
        for k in range(adders):
            carry_in = self.carries.pop() if self.carries else C(0, 1)
            name = f"level{self._level}_{k}"
            after += compress(self._m, *self.rows[3 * k : 3 * k + 3], self._width, name, carry_in)
        self.rows = after + self.rows[3 * adders :]
        self._level += 1

    def _stage(self):
        if len(self.rows) not in self._registers:
            return
        self._registers.discard(len(self.rows))
        self.rows = [self._register(row, f"row{k}") for k, row in enumerate(self.rows)]
        self.carries = [self._register(bit, f"negative{k}") for k, bit in enumerate(self.carries)]
        flags = Signal.like(self.flags, name=f"flags_{self.latency}")
        self._m.d.sync += flags.eq(self.flags)
        self.coming, self.flags = self.flags, flags
        self.latency += 1

    def _register(self, value, name):
        register = Signal(len(value), name=f"{name}_{self.latency}", reset_less=True)
        self._m.d.sync += register.eq(value)
        return register

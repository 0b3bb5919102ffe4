"""Multiplication by one of a few constants: Booth digits from a table, partial products summed bit by bit."""

from amaranth import Array, C, Cat, Module, Signal, Value

__all__ = ["ColumnSum", "booth_digits"]


def booth_digits(value: int, count: int) -> list[int]:
    """Radix-4 digits -2..2 of ``value``, lowest first. Raises ValueError if ``count`` of them do not hold it."""
    bits = [0, *(value >> k & 1 for k in range(2 * count))]
    digits = [bits[k] + bits[k + 1] - 2 * bits[k + 2] for k in range(0, 2 * count, 2)]
    if sum(digit << 2 * k for k, digit in enumerate(digits)) != value:
        raise ValueError(f"value must fit {count} digits, not {value}")
    return digits


def _digit_count(values: list[int]) -> int:
    """Digits that hold all values: two bits each, the sign's included."""
    return max((value if value >= 0 else ~value).bit_length() for value in values) // 2 + 1


class ColumnSum:
    """A sum modulo 2**width as single bits in columns by their weight.

    Half as many rows as a multiplier has that takes its constant in binary, and not a carry before the last addition:
    ``+`` and ``*`` would be one adder tree and one carry chain for each product.

    Parameters
    ----------
    m : Module
    width : int
    name : str
        Of the signals.
    columns : list of list of Value, optional
        Bits to start with.
    """

    def __init__(self, m: Module, width: int, name: str, columns: list[list[Value]] | None = None):
        self._m, self.width, self._name = m, width, name
        self.columns = [list(column) for column in columns] if columns else [[] for _ in range(width)]
        self._constant = 0
        self._cells = 0

    def add_constant(self, value: int) -> None:
        self._constant += value

    def add_product(self, x: Value, values: list[int], index: Value) -> None:
        """Add ``x * values[index]``, x signed: a row per Booth digit: 0, x or 2x, or its one's complement and 1."""
        count = _digit_count(values)
        table = [booth_digits(value, count) for value in values]
        for place in range(count):
            digits = [row[place] for row in table]
            one, two, negative = (self._choose(digits, index, test) for test in _TESTS)
            for k in range(min(len(x) + 1, self.width - 2 * place)):
                bit = (one & x[min(k, len(x) - 1)]) | (two & x[k - 1] if k else C(0, 1))
                self._bit(2 * place + k, (bit ^ negative) if k < len(x) else ~(bit ^ negative))
            # The highest bit counts negative: -b = ~b - 1.
            self.add_constant(-1 << 2 * place + len(x))
            if any(digit < 0 for digit in digits):
                self._bit(2 * place, negative)

    def reduce(self) -> "ColumnSum":
        """At most two bits in every column, by full adders."""
        for k in range(self.width):
            if self._constant >> k & 1:
                self.columns[k].append(C(1, 1))
        self._constant = 0
        while max(map(len, self.columns)) > 2:
            after = [[] for _ in range(self.width + 1)]
            for k, column in enumerate(self.columns):
                adders = len(column) // 3
                for a, b, c in zip(*[iter(column[: 3 * adders])] * 3, strict=True):
                    half, total, carry = (self._signal(part) for part in ("half", "sum", "carry"))
                    self._m.d.comb += [half.eq(a ^ b), total.eq(half ^ c), carry.eq((a & b) | (half & c))]
                    after[k].append(total)
                    after[k + 1].append(carry)
                    self._cells += 1
                after[k] += column[3 * adders :]
            self.columns = after[: self.width]
        return self

    def total(self) -> Value:
        """The sum, of ``width`` bits."""
        self.reduce()
        rows = [Cat(*(column[row] if row < len(column) else C(0, 1) for column in self.columns)) for row in (0, 1)]
        total = Signal(self.width, name=f"{self._name}_total")
        self._m.d.comb += total.eq(rows[0] + rows[1])
        return total

    def _choose(self, digits, index, test):
        found = [int(test(digit)) for digit in digits]
        if len(set(found)) == 1:
            return C(found[0], 1)
        chosen = self._signal("digit")
        self._cells += 1
        self._m.d.comb += chosen.eq(Array(C(value, 1) for value in found)[index])
        return chosen

    def _bit(self, weight, value):
        bit = self._signal("bit")
        self._cells += 1
        self._m.d.comb += bit.eq(value)
        self.columns[weight].append(bit)

    def _signal(self, what):
        return Signal(name=f"{self._name}_{what}{self._cells}")


_TESTS = (lambda digit: abs(digit) == 1, lambda digit: abs(digit) == 2, lambda digit: digit < 0)

"""Sums that ripple: the fewest gates, where a path has time to spare.

A synthesis tool makes a prefix adder of every ``+``. The KV engine's counters and its value unit have a clock period
many gates long, so that their carries may go bit by bit.
"""

from amaranth import C, Cat, Module, Mux, Signal, Value

__all__ = ["above", "add", "increment"]


def add(m: Module, a: Value, b: Value, carry: Value | int = 0) -> Value:
    """``a + b + carry``, a bit wider than the wider of the two, both unsigned."""
    a, b, carry = Value.cast(a), Value.cast(b), Value.cast(carry)
    total = []
    for k in range(max(len(a), len(b))):
        following = Signal(name="carry")
        if k < len(a) and k < len(b):
            half = Signal(name="half")
            m.d.comb += [half.eq(a[k] ^ b[k]), following.eq((a[k] & b[k]) | (half & carry))]
            total.append(half ^ carry)
        else:
            bit = a[k] if k < len(a) else b[k]
            m.d.comb += following.eq(bit & carry)
            total.append(bit ^ carry)
        carry = following
    return Cat(*total, carry)


def increment(m: Module, a: Value, by: Value | int = 1) -> Value:
    """``a + by`` of a single bit ``by``, as wide as ``a``: it wraps."""
    return add(m, a, C(0, 0), by)[: len(Value.cast(a))]


def above(m: Module, a: Value, b: Value) -> Value:
    """``a > b``, both unsigned and of one width."""
    a, b, result = Value.cast(a), Value.cast(b), C(0, 1)
    for k in range(len(a)):
        following = Signal(name="above")
        m.d.comb += following.eq(Mux(a[k] ^ b[k], a[k], result))
        result = following
    return result

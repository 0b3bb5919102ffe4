"""Short carries: wide sums, comparisons and increments cut into segments of a few bits, over two cycles.

Prefix trees would be the textbook's way. But a synthesis flow that optimizes for area before it maps makes chains of
them.
"""

from amaranth import C, Cat, Mux, Signal

__all__ = ["add_select", "add_short", "increment", "leading_zeros", "less_than"]


def _sums(m, a, b, segment_bits, name, carry):
    """Per segment, lowest first: its sum without and with a carry in, each one bit wider."""
    sums = []
    for k, first in enumerate(range(0, len(a), segment_bits)):
        x, y = a[first : first + segment_bits], b[first : first + segment_bits]
        plain, more = Signal(len(x) + 1, name=f"{name}_plain{k}"), Signal(len(x) + 1, name=f"{name}_more{k}")
        m.d.comb += [plain.eq(x + y), more.eq((Cat(C(1, 1), x) + Cat(C(1, 1), y))[1:])]
        if first == 0:
            with_carry = Signal(len(x) + 1, name=f"{name}_first")
            m.d.comb += with_carry.eq((Cat(carry, x) + Cat(carry, y))[1:])
            plain = more = with_carry
        sums.append((plain, more))
    return sums


def _select(m, sums, name):
    """The sum of all segments, carry out on top."""
    pieces, carry = [], C(0, 1)
    for k, (plain, more) in enumerate(sums):
        pieces.append(Mux(carry, more[:-1], plain[:-1]))
        out = Signal(name=f"{name}_carry{k}")
        m.d.comb += out.eq(plain[-1] | (more[-1] & carry))
        carry = out
    return Cat(*pieces, carry)


def add_short(m, a, b, carry, name):
    """``a + b + carry``, one bit wider, for operands of few bits; combinational."""
    return _select(m, _sums(m, a, b, len(a), name, carry), name)


def add_select(m, a, b, name, carry=None, segment_bits=7):
    """``a + b + carry``, one bit wider, over two cycles: the registers lie between segments' sums and their selection.

    The result is combinational: whoever takes it registers it.
    """
    sums = []
    for k, (plain, more) in enumerate(_sums(m, a, b, segment_bits, name, C(0, 1) if carry is None else carry)):
        held = []
        for kind, value in (("plain", plain), ("more", more)):
            register = Signal(len(value), name=f"{name}_{kind}{k}_held", reset_less=True)
            if k or not held:
                m.d.sync += register.eq(value)
            held.append(register if k or not held else held[0])
        sums.append(tuple(held))
    return _select(m, sums, name)


def increment(m, value, carry, name, group=6):
    """``value + carry`` of the cycle after ``value``'s, one bit wider; ``carry`` belongs to that later cycle.

    ``value`` is registered here, and with it which of its lower parts are all ones: a carry passes those at once.
    """
    held = Signal(len(value), name=f"{name}_value", reset_less=True)
    m.d.sync += held.eq(value)
    ups = []
    for k, first in enumerate([*range(0, len(value), group), len(value)]):
        through = Signal(name=f"{name}_through{k}", reset_less=True)
        m.d.sync += through.eq(value[:first].all())
        ups.append(carry & through)
    pieces = []
    for first, up in zip(range(0, len(value), group), ups[:-1], strict=True):
        part = held[first : first + group]
        raised = Signal(len(part), name=f"{name}_raised{first}")
        m.d.comb += raised.eq(part + 1)
        pieces.append(Mux(up, raised, part))
    return Cat(*pieces, ups[-1])


def less_than(m, a, b, name, segment_bits=8):
    """Whether ``a < b``, unsigned, equally wide, over two cycles like :func:`add_select`."""
    less = C(0, 1)
    for k, first in enumerate(range(0, len(a), segment_bits)):
        x, y = a[first : first + segment_bits], b[first : first + segment_bits]
        below, same = Signal(name=f"{name}_below{k}", reset_less=True), Signal(name=f"{name}_same{k}", reset_less=True)
        m.d.sync += [below.eq(x < y), same.eq(x == y)]
        less = below | (same & less)
    return less


def leading_zeros(m, value, name):
    """Number of zeros above the leading one of ``value``; its length if there is none. Depth log2(len)."""
    bits = (len(value) - 1).bit_length()
    value = Cat(C(-1, (1 << bits) - len(value)), value)
    # Of ever wider parts, lowest first: (none in it, zeros above its leading one).
    parts = [(~bit, []) for bit in value]
    for level in range(bits):
        wider = []
        for low, high in zip(parts[::2], parts[1::2], strict=True):
            none, count = (
                Signal(name=f"{name}_none{level}_{len(wider)}"),
                Signal(level + 1, name=f"{name}{level}_{len(wider)}"),
            )
            m.d.comb += [none.eq(low[0] & high[0]), count.eq(Cat(Mux(high[0], Cat(low[1]), Cat(high[1])), high[0]))]
            wider.append((none, list(count)))
        parts = wider
    return Cat(parts[0][1])

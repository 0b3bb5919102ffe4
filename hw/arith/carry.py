"""Short carries: wide sums, comparisons and increments cut into segments of a few bits, over two cycles.

Prefix trees would be the textbook's way. But a synthesis flow that optimizes for area before it maps makes chains of
them.
"""

from amaranth import C, Cat, Mux, Signal

__all__ = ["add_both", "add_select", "increment", "leading_zeros", "less_than"]


def _sums(m, a, b, segment_bits, name, carry):
    """Per segment, lowest first: its sum without and with a carry in, each one bit wider.

    The first segment's is the sum with ``carry``, twice, unless that is None.
    """
    sums = []
    for k, first in enumerate(range(0, len(a), segment_bits)):
        x, y = a[first : first + segment_bits], b[first : first + segment_bits]
        plain, more = Signal(len(x) + 1, name=f"{name}_plain{k}"), Signal(len(x) + 1, name=f"{name}_more{k}")
        m.d.comb += [plain.eq(x + y), more.eq((Cat(C(1, 1), x) + Cat(C(1, 1), y))[1:])]
        if first == 0 and carry is not None:
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


def add_select(m, a, b, name, carry=None, segment_bits=6, cycles=2):
    """``a + b + carry``, one bit wider, over ``cycles`` cycles, 2 or 3.

    Registers lie between segments' sums and their selection; with 3 cycles, segments are merged in pairs in between.
    The result is combinational: whoever takes it registers it.
    """
    sums = _hold(m, _sums(m, a, b, segment_bits, name, C(0, 1) if carry is None else carry), name)
    if cycles == 3:
        sums = _hold(m, [_merge(*sums[k : k + 2]) for k in range(0, len(sums), 2)], f"{name}_pair")
    return _select(m, sums, name)


def add_both(m, a, b, name, segment_bits=4):
    """``a + b`` and ``a + b + 1``, each one bit wider, over two cycles; combinational at the end."""
    (plain, more), *rest = _hold(m, _sums(m, a, b, segment_bits, name, None), name)
    return tuple(
        _select(m, [(start, start), *rest], f"{name}_{kind}") for kind, start in (("plain", plain), ("more", more))
    )


def _merge(low, high=None):
    """Two adjacent segments' sums as one's; the lower one alone if there is no other."""
    if high is None:
        return low
    merged = [Cat(own[:-1], Mux(own[-1], high[1], high[0])) for own in low]
    return (merged[0], merged[0]) if low[0] is low[1] else tuple(merged)


def _hold(m, sums, name):
    """Segments' sums, a cycle later. The first segment of an addition has the same sum twice."""
    held = []
    for k, (plain, more) in enumerate(sums):
        values = [("plain", plain)] if plain is more else [("plain", plain), ("more", more)]
        registers = []
        for kind, value in values:
            register = Signal(len(value), name=f"{name}_{kind}{k}_held", reset_less=True)
            m.d.sync += register.eq(value)
            registers.append(register)
        held.append((registers[0], registers[-1]))
    return held


def increment(m, value, carry, name, group=4):
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


def leading_zeros(m, value, name, cut=None):
    """Number of zeros above the leading one of ``value``; its length if there is none. Depth log2(len).

    With ``cut``, the counts of parts of 2**cut bits are registered: the result is that of the cycle before.
    """
    bits = (len(value) - 1).bit_length()
    padding = (1 << bits) - len(value)
    value = Cat(C((1 << padding) - 1, padding), value)
    # Of ever wider parts, lowest first: (none in it, zeros above its leading one).
    parts = [(~bit, []) for bit in value]
    for level in range(bits):
        wider = []
        for low, high in zip(parts[::2], parts[1::2], strict=True):
            number = len(wider)
            held = {"reset_less": True} if level + 1 == cut else {}
            none = Signal(name=f"{name}_none{level}_{number}", **held)
            count = Signal(level + 1, name=f"{name}{level}_{number}", **held)
            domain = m.d.sync if held else m.d.comb
            domain += [none.eq(low[0] & high[0]), count.eq(Cat(Mux(high[0], Cat(low[1]), Cat(high[1])), high[0]))]
            wider.append((none, list(count)))
        parts = wider
    return Cat(parts[0][1])

"""The bit-serial processing element: FP16 activations times bit-serial weight terms."""

from functools import reduce
from operator import or_

from amaranth import C, Cat, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.formats import FP16
from spec import checks
from spec.bitserial import ACCUMULATOR_BITS, ROUNDINGS

__all__ = ["BitSerialPE", "PartialSum", "Step", "Term"]

SIGNIFICAND_BITS = 11  # of FP16, hidden bit included
ALIGN_BITS = 14  # 3 bits below the significand
EXP_BITS = 6
MAX_BSIG = 6


class Term(data.Struct):
    """One lane's bit-serial term, ``(-1)**sign * man * 2**exp`` (BitMoD Eq. 4; the shared 2**bsig is in Step)."""

    exp: 2
    man: 1
    sign: 1


class Step(data.StructLayout):
    """What a PE multiplies in one cycle: a term per lane, their common significance, the activations.

    ``last`` ends the group. Members: ``terms``, ``activations`` (one per lane), ``bsig`` (0, 1, 2, 4 or 6), ``last``.
    """

    def __init__(self, lanes):
        super().__init__(
            {
                "terms": data.ArrayLayout(Term, lanes),
                "activations": data.ArrayLayout(FP16, lanes),
                "bsig": 3,
                "last": 1,
            }
        )


class PartialSum(data.StructLayout):
    """A group's partial sum, ``(mantissa + carry) * 2**(exponent - 28)``.

    ``carry`` is the rounding toward zero of a negative mantissa that the accumulator has not added yet.
    """

    def __init__(self, accumulator_bits):
        super().__init__({"mantissa": signed(accumulator_bits), "carry": 1, "exponent": unsigned(EXP_BITS)})


class BitSerialPE(wiring.Component):
    """Multiplies ``lanes`` FP16 activations by one bit-serial term each and accumulates (BitMoD section IV-B).

    Arithmetic: equations P1 to P6 of ``docs/weights.md``, three roundings. Products are aligned to the largest
    exponent of the lanes that contribute in a 14-bit window, added, shifted by ``bsig`` and accumulated in a 15-bit
    mantissa with exponent alignment in both directions. The final add has one bit more than the shifted sum (24 bits
    for 4 lanes): with the published 23 bits (65504, 10, 6) followed by (65504, 20, 6) changes sign.

    Throughput is one step per cycle; a step never waits. ``o`` carries a group's partial sum 2 cycles after the step
    with ``last`` for one cycle; the next group may start right behind it. Activations are taken as finite: Inf
    and NaN are the caller's to detect. Error bound: docs/weights.md section 5.

    Parameters
    ----------
    lanes : int
        Lanes, a power of two from 2 to 8.
    rounding : str
        ``"trunc"`` or ``"rne"``.
    accumulator_bits : int
        Width of the accumulator's mantissa: 15 (BitMoD's), 16 or 17.

    Members
    -------
    step : Step, In
        The step; ignored unless ``valid``.
    valid : In
        A step is offered (and always taken).
    o : PartialSum, Out
    o_valid : Out
        High for one cycle for every group.

    Raises
    ------
    ValueError
        For parameters that are not supported.
    """

    def __init__(self, lanes=4, rounding="trunc", accumulator_bits=15):
        checks.choice("lanes", lanes, (2, 4, 8))
        checks.choice("rounding", rounding, ROUNDINGS)
        checks.choice("accumulator_bits", accumulator_bits, ACCUMULATOR_BITS)
        self.lanes = lanes
        self.rounding = rounding
        self.accumulator_bits = accumulator_bits
        self.latency = 2
        super().__init__(
            {
                "step": In(Step(lanes)),
                "valid": In(1),
                "o": Out(PartialSum(accumulator_bits)),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Cycle 1: exponents. `soon` is the largest exponent of the step that cycle 3 will add after the present one.
        valid, bsig, last, soon, gaps, significands, signs = self._match_exponents(m)

        # Cycle 2: align, add.
        total = self._add_products(m, gaps, significands, signs)
        sum_bits = len(total) + MAX_BSIG
        product = Signal(signed(sum_bits))  # T of P4
        peak = Signal(EXP_BITS)  # P of P1; 0 when no lane is active
        last_now = Signal()
        m.d.sync += [product.eq(total << bsig), peak.eq(soon), last_now.eq(valid & last)]

        # Cycle 3: accumulate. A step without active lanes has P = 0 and T = 0, which leaves the accumulator's value
        # alone: no enable needed. How far accumulator and product lie apart is worked out one cycle ahead.
        acc = Signal(PartialSum(self.accumulator_bits))
        updated = Signal.like(acc)
        below = Signal(signed(EXP_BITS + 1))  # X - P: the product shifts right by that much,
        above = Signal(signed(EXP_BITS + 1))  # P - X: or else the accumulator does.
        mantissa, carry, exponent, n = self._accumulate(m, acc, product, peak, below, above)
        m.d.comb += [updated.mantissa.eq(mantissa), updated.carry.eq(carry), updated.exponent.eq(exponent + n)]
        base, rise = Mux(last_now, 0, exponent), Mux(last_now, 0, n)
        m.d.sync += [
            acc.eq(Mux(last_now, 0, updated.as_value())),
            below.eq((base - soon) + rise),
            above.eq((soon - base) - rise),
        ]
        m.d.comb += [self.o.eq(updated), self.o_valid.eq(last_now)]
        return m

    def _match_exponents(self, m):
        """P1, into registers: (valid, bsig, last, P), then per lane how far to shift, significand and sign."""
        valid = Signal()
        bsig = Signal(3, reset_less=True)
        last = Signal(reset_less=True)
        peak = Signal(EXP_BITS, name="peak_ahead")
        m.d.sync += [valid.eq(self.valid), bsig.eq(self.step.bsig), last.eq(self.step.last)]
        exponents, significands, signs = [], [], []
        for lane in range(self.lanes):
            term, act = self.step.terms[lane], self.step.activations[lane]
            normal = act.exponent.any()
            active = Signal(name=f"active{lane}")
            exponent = Signal(EXP_BITS, name=f"exponent{lane}")
            m.d.comb += active.eq(self.valid & term.man & (normal | act.fraction.any()))
            with m.If(active):  # a subnormal has exponent 1 and no hidden bit
                m.d.comb += exponent.eq(Cat(act.exponent[0] | ~normal, act.exponent[1:]) + term.exp)
            exponents.append(exponent)
            significand = Signal(SIGNIFICAND_BITS, name=f"significand{lane}")
            sign = Signal(name=f"sign{lane}", reset_less=True)
            m.d.sync += [
                significand.eq(Cat(act.fraction, normal) & active.replicate(SIGNIFICAND_BITS)),
                sign.eq(term.sign ^ act.sign),
            ]
            significands.append(significand)
            signs.append(sign)

        level = exponents
        while len(level) > 1:
            pairs = []
            for a, b in zip(level[::2], level[1::2], strict=True):
                larger = Signal(EXP_BITS)
                m.d.comb += larger.eq(Mux(a > b, a, b))
                pairs.append(larger)
            level = pairs
        m.d.sync += peak.eq(level[0])

        gaps = []
        for lane in range(self.lanes):
            gap = Signal(EXP_BITS, name=f"gap{lane}")
            clipped = Signal(4, name=f"clipped_gap{lane}", reset_less=True)  # 15 shifts everything out
            m.d.comb += gap.eq(level[0] - exponents[lane])
            m.d.sync += clipped.eq(gap[:4] | gap[4:].any().replicate(4))
            gaps.append(clipped)
        return valid, bsig, last, peak, gaps, significands, signs

    def _add_products(self, m, gaps, significands, signs):
        """P2 and P3: align in the window (R1), negate, add."""
        addends, carries = [], []
        for lane, (gap, significand, sign) in enumerate(zip(gaps, significands, signs, strict=True)):
            aligned = Signal(ALIGN_BITS, name=f"aligned{lane}")
            window = Cat(C(0, ALIGN_BITS - SIGNIFICAND_BITS), significand)
            if self.rounding == "trunc":
                m.d.comb += aligned.eq(window >> gap)
                carry = sign
            else:
                floor, up = self._shift_rne(m, window, gap, f"lane{lane}")
                m.d.comb += aligned.eq(floor)
                carry = sign ^ up  # -(u + up) = ~u + 1 - up
            addends.append((Cat(aligned, C(0, 1)) ^ sign.replicate(ALIGN_BITS + 1)).as_signed())
            carries.append(carry)
        total = Signal(signed(ALIGN_BITS + 1 + ceil_log2(self.lanes)))
        m.d.comb += total.eq(sum(addends) + sum(carries))
        return total

    def _accumulate(self, m, acc, product, peak, below, above):
        """P5 and P6: align both ways (R2), add, normalize (R3). Returns (mantissa, carry, E, n); X' = E + n."""
        width = len(product) + 1
        new, new_carry = self._align(m, product, below, "new")
        old, old_carry = self._align(m, acc.mantissa, above, "old")
        if self.rounding == "trunc":
            # Of a negative mantissa with a carry pending, the truncated shift is its floor plus 1, exact or not.
            old_carry = old_carry | acc.carry
        # A row of half adders makes room for the second carry.
        a = Signal(signed(width))
        b = Signal(signed(width))
        m.d.comb += [a.eq(new), b.eq(old)]
        z = Signal(signed(width))
        m.d.comb += z.eq((Cat(old_carry, a ^ b) + Cat(old_carry, new_carry, a & b))[1:])
        exponent = Signal(EXP_BITS)
        m.d.comb += exponent.eq(Mux(below[-1], peak, acc.exponent))

        # P6: beyond[k] says that z does not fit when shifted by k, so n > k.
        kept = self.accumulator_bits
        excess = width - kept
        sign = z[-1]
        differs = Signal(excess)
        beyond = Signal(excess)
        chosen = Signal(excess + 1)
        m.d.comb += [
            differs.eq(z[kept - 1 : -1] ^ sign.replicate(excess)),
            beyond.eq(Cat(differs[k:].any() for k in range(excess))),
            chosen.eq(Cat(C(1, 1), beyond) & ~Cat(beyond, C(0, 1))),  # one-hot n
        ]

        def at_n(values):
            return reduce(or_, (value & chosen[k].replicate(len(value)) for k, value in enumerate(values)))

        mantissa = Signal(kept)
        n = Signal(range(excess + 1))
        m.d.comb += [
            mantissa.eq(at_n([z[k : k + kept] for k in range(excess + 1)])),
            n.eq(at_n([C(k, range(excess + 1)) for k in range(excess + 1)])),
        ]
        if self.rounding == "trunc":
            return mantissa, sign & (z[:excess] & beyond).any(), exponent, n
        guard = (z[:excess] & beyond & ~(beyond >> 1)).any()
        sticky = (z[: excess - 1] & beyond[1:]).any()
        rounded = Signal(signed(kept + 1))
        m.d.comb += rounded.eq(mantissa.as_signed() + (guard & (sticky | mantissa[0])))
        over = rounded[-1] != rounded[-2]
        return Mux(over, rounded[1:], rounded[:-1]), C(0, 1), exponent, n + over

    def _align(self, m, value, gap, name):
        """R2: (floor(value / 2**gap), carry), whose sum is the rounded quotient; a negative gap counts as 0."""
        width = len(value)
        bits = ceil_log2(width)
        amount, far = Signal(bits, name=f"{name}_amount"), Signal(name=f"{name}_far")
        m.d.comb += [
            amount.eq(gap[:bits] & (~gap[-1]).replicate(bits)),
            far.eq(gap[bits:-1].any() & ~gap[-1]),  # at least 2**bits >= width
        ]
        floor = Signal(signed(width), name=f"{name}_floor")
        carry = Signal(name=f"{name}_carry")
        if self.rounding == "rne":
            near, up = self._shift_rne(m, value, amount, name)
            none = far | (amount >= width)
            m.d.comb += [floor.eq(Mux(none, 0, near)), carry.eq(up & ~none)]
        else:
            sign = value[-1]
            # inexact[k]: a shift by k loses a one. Ready before the gap is.
            inexact = Cat(value[: min(k, width)].any() for k in range(1 << bits))
            m.d.comb += [
                floor.eq(Mux(far, sign.replicate(width).as_signed(), value >> amount)),
                carry.eq(sign & (far | (inexact >> amount)[0])),
            ]
        return floor, carry

    @staticmethod
    def _shift_rne(m, value, amount, name):
        """(floor(value / 2**amount), 1 if rounding to nearest even goes up)."""
        extended = Cat(C(0, 1), value)
        if value.shape().signed:
            extended = extended.as_signed()
        shifted = Signal(Shape(len(extended), value.shape().signed), name=f"{name}_shifted")
        ones = C((1 << len(value)) - 1, len(value))
        below_guard = ~(ones << amount)[1 : len(value)]
        m.d.comb += shifted.eq(extended >> amount)
        guard, floor = shifted[0], shifted[1:]
        sticky = (value[: len(value) - 1] & below_guard).any()
        if value.shape().signed:
            floor = floor.as_signed()
        return floor, guard & (sticky | floor[0])

"""Second opinions on the weight path: slow, element by element, in plain NumPy scalars and exact rationals.

Transcribed from the definitions (BitMoD section III and Table IV; docs/weights.md), sharing no code with ``golden``.
"""

import math
from fractions import Fraction

import numpy as np

F32 = np.float32
BASIC = {
    "FP3": (-4, -2, -1, 0, 1, 2, 4),
    "FP4": (-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12),  # 0, .5, 1, 1.5, 2, 3, 4, 6 in halves
}
SPECIAL = {"FP3": (3, -3, 6, -6), "FP4": (10, -10, 16, -16)}
QMAX = {"INT8": 127, "INT6": 31, "INT5": 15, "INT4": 7, "INT3": 3}


def clamp_scale(absmax: np.float32, vmax: int) -> np.float32:
    return min(max(F32(absmax / F32(vmax)), F32(1e-5)), F32(1e4))


def halves(terms: list[float]) -> float:
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return halves([terms[i] + terms[middle + i] for i in range(middle)])


def nearest(x: float, allowed: list[int]) -> int:
    """Nearest allowed value; on a tie, the lower."""
    best = None
    for value in sorted(allowed):
        if best is None or abs(Fraction(x) - value) < abs(Fraction(x) - best):
            best = value
    return best


def quantize_group(group, kind: str, group_size: int, special=None, fixed=None):
    """(integer values, scale, select) of one group of float32 weights; ``fixed``: a given scale."""
    absmax = max(abs(w) for w in group)
    if kind in QMAX:
        scale = fixed or clamp_scale(absmax, QMAX[kind])
        values = [int(min(max(np.rint(F32(w / scale)), -QMAX[kind]), QMAX[kind])) for w in group]
        return values, scale, 0
    best = None
    for select, sv in enumerate(special or SPECIAL[kind]):
        allowed = [*BASIC[kind], sv]
        scale = fixed or clamp_scale(absmax, max(abs(value) for value in allowed))
        values = [nearest(float(F32(w / scale)), allowed) for w in group]
        errors = [float(np.square(F32(F32(F32(v) * scale) - w))) for v, w in zip(values, group, strict=True)]
        error = halves(errors + [0.0] * (group_size - len(errors)))
        if best is None or error < best[0]:
            best = (error, values, scale, select)
    return best[1:]


def quantize_row(row, kind: str, group_size: int, special=None):
    """(values, selects, scale8s, channel scale) of one output channel of float32 weights."""
    groups = [list(row[i : i + group_size]) for i in range(0, len(row), group_size)]
    with np.errstate(over="ignore", under="ignore"):
        results = [quantize_group(group, kind, group_size, special) for group in groups]
    if not any(np.any(np.array(group) != 0) for group in groups):
        return [0] * len(row), [result[2] for result in results], [0] * len(groups), F32(1)
    channel_scale = F32(max(result[1] for result in results) / F32(255))
    scale8 = [
        int(min(np.rint(F32(result[1] / channel_scale)), 255)) if any(w != 0 for w in group) else 0
        for result, group in zip(results, groups, strict=True)
    ]
    for index, group in enumerate(groups):
        if scale8[index] == 0 and any(w != 0 for w in group):
            again = quantize_group(group, kind, group_size, special, fixed=channel_scale)
            # To the nearest of values with 0 among them: an error only less than that of zeros, or the same.
            exact = [
                (Fraction(float(w)), v * Fraction(float(channel_scale))) for v, w in zip(again[0], group, strict=True)
            ]
            if sum((w - y) ** 2 for w, y in exact) < sum(w**2 for w, _ in exact):
                results[index], scale8[index] = again, 1
    values = [value for result in results for value in result[0]]
    return values, [result[2] for result in results], scale8, channel_scale


def term_list(kind: str, value: int) -> list[tuple[int, int]]:
    """(signed digit including 2^x, bsig) of every step: Booth from bit triplets, leading ones from single bits."""
    if kind in ("TERNARY", "BINARY"):
        return [(value, 0)]
    if kind in ("FP3", "FP4", "U2", "S2"):
        sign = -1 if value < 0 else 1
        ones = [index for index in range(4, -1, -1) if abs(value) >> index & 1]
        if len(ones) > 2:  # only as a difference
            high = 1 << ones[0] + 1
            return [(sign * high // 2, 1), (sign * (abs(value) - high), 0)]
        upper = [index for index in ones if index > 0][:1]
        lower = [index for index in ones if index not in upper]
        return [(sign * (2 ** upper[0] // 2 if upper else 0), 1), (sign * (2 ** lower[0] if lower else 0), 0)]
    width = {"INT8": 8, "INT6": 6, "INT5": 6, "INT4": 4, "INT3": 4}[kind]
    bits = [0, *(value >> i & 1 for i in range(width))]
    return [(bits[i] + bits[i + 1] - 2 * bits[i + 2], i) for i in range(0, width, 2)]


def half_fields(a: float) -> tuple[int, int, int]:
    word = int(np.float16(a).view(np.uint16))
    exponent, fraction = word >> 10 & 31, word & 1023
    return word >> 15, max(exponent, 1), fraction + 1024 * (exponent > 0)


def rounded(x: Fraction, rounding: str) -> int:
    return math.trunc(x) if rounding == "trunc" else round(x)  # Python rounds ties to even


def pe_group(kind: str, values, activations, lanes: int, rounding: str, accumulator_bits: int = 15) -> tuple[int, int]:
    """(A, X) of one group, in unbounded integers, every width of docs/weights.md section 5 asserted."""
    growth, top = lanes.bit_length() - 1, accumulator_bits - 1
    acc, exponent = 0, 0
    values = list(values) + [0] * (-len(values) % lanes)
    activations = [*activations, *[0.0] * (len(values) - len(activations))]
    for beat in range(0, len(values), lanes):
        steps = [term_list(kind, value) if value else None for value in values[beat : beat + lanes]]
        fields = [half_fields(a) for a in activations[beat : beat + lanes]]
        for step in range(len(term_list(kind, 1))):
            bsig, active = term_list(kind, 1)[step][1], []
            for terms, (s, e, m) in zip(steps, fields, strict=True):
                digit = terms[step][0] if terms else 0
                if digit and m:
                    active.append((e + abs(digit).bit_length() - 1, m, (digit < 0) != s))
            if not active:
                continue
            largest = max(p for p, _, _ in active)
            assert largest < 64
            total = 0
            for p, m, negative in active:
                u = rounded(Fraction(8 * m, 2 ** (largest - p)), rounding)
                assert u < 1 << 14
                total += -u if negative else u
            assert -(1 << 14 + growth) <= total < 1 << 14 + growth
            total <<= bsig
            assert -(1 << 20 + growth) <= total < 1 << 20 + growth
            common = max(largest, exponent)
            z = rounded(Fraction(total, 2 ** (common - largest)), rounding)
            z += rounded(Fraction(acc, 2 ** (common - exponent)), rounding)
            assert -(1 << 21 + growth) <= z < 1 << 21 + growth
            n = 0
            while not -(1 << top + n) <= z < 1 << top + n:
                n += 1
            acc, exponent = rounded(Fraction(z, 2**n), rounding), common + n
            if acc == 1 << top:
                acc, exponent = 1 << top - 1, exponent + 1
            assert exponent <= 61 - accumulator_bits
    return acc, exponent


def exact_group(values, activations) -> tuple[Fraction, Fraction]:
    """(sum a*v, sum |a*v|), exactly."""
    products = [Fraction(float(a)) * int(v) for a, v in zip(activations, values, strict=True)]
    return sum(products, Fraction(0)), sum(map(abs, products), Fraction(0))

"""The PE's equations P1 to P6 (docs/weights.md) once more, in NumPy, with every intermediate value kept.

Coverage is counted from these, and their results are a third opinion beside ``golden`` and the design.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["StepTrace", "Steps", "final", "trace"]


@dataclass
class Steps:
    """Steps of many groups at once: arrays [steps, groups, lanes]; ``bsig`` [steps, groups]; ``length`` [groups].

    Steps at and past a group's length have no active lane.
    """

    man: np.ndarray
    x: np.ndarray
    sign: np.ndarray
    activations: np.ndarray  # FP16 bits
    bsig: np.ndarray
    length: np.ndarray

    def __post_init__(self):
        past = np.arange(len(self.bsig))[:, None] >= self.length
        self.man = np.where(past[:, :, None], 0, self.man)


@dataclass
class StepTrace:
    """One step of all groups: arrays [groups] unless stated."""

    active: np.ndarray  # [groups, lanes]
    gap: np.ndarray  # P - p of each lane [groups, lanes]
    r1_lost: np.ndarray  # bits lost by R1 in units of half the last place: -1 below, 0 tie, 1 above, 2 exact
    shift_new: np.ndarray  # E - P
    shift_old: np.ndarray  # E - X
    product: np.ndarray  # T
    before: np.ndarray  # A
    r2_new: np.ndarray
    r2_old: np.ndarray
    z: np.ndarray
    n: np.ndarray
    r3: np.ndarray
    carried: np.ndarray  # rounding to nearest even reached 2^(B-1)
    mantissa: np.ndarray  # A'
    exponent: np.ndarray  # X'


EXACT, BELOW, TIE, ABOVE = 2, -1, 0, 1


def rounded(value: np.ndarray, shift: np.ndarray, rounding: str) -> tuple[np.ndarray, np.ndarray]:
    """(R(value / 2^shift), how the lost part compares with half a unit: EXACT, BELOW, TIE or ABOVE)."""
    shift = np.minimum(shift, 40)
    magnitude = np.abs(value)
    quotient = magnitude >> shift
    twice_lost = 2 * (magnitude - (quotient << shift))
    compared = np.where(twice_lost == 0, EXACT, np.sign(twice_lost - (np.int64(1) << shift)))
    if rounding == "rne":
        quotient += (compared == ABOVE) | ((compared == TIE) & (quotient & 1 == 1))
    return np.sign(value) * quotient, compared


def trace(steps: Steps, rounding: str, accumulator_bits: int) -> Iterator[StepTrace]:
    """Every step of all groups in turn."""
    bits = steps.activations.astype(np.int64)
    biased, fraction = bits >> 10 & 31, bits & 1023
    significand = fraction + np.where(biased > 0, 1024, 0)
    exponent = np.maximum(biased, 1)
    groups = bits.shape[1]
    a, x = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    limit = np.int64(1) << accumulator_bits - 1
    for k in range(len(bits)):
        active = (steps.man[k] != 0) & (significand[k] != 0)
        p = np.where(active, exponent[k] + steps.x[k], 0)
        peak = p.max(1)
        gap = np.where(active, peak[:, None] - p, 0)
        u, r1 = rounded(np.where(active, 8 * significand[k], 0), gap, rounding)
        negative = (steps.sign[k] ^ (bits[k] >> 15)) & 1
        product = np.where(negative == 1, -u, u).sum(1) << steps.bsig[k].astype(np.int64)
        any_active = active.any(1)
        e = np.where(any_active, np.maximum(peak, x), x)
        shift_new, shift_old = np.where(any_active, e - peak, 0), e - x
        new, r2_new = rounded(product, shift_new, rounding)
        old, r2_old = rounded(a, shift_old, rounding)
        z = new + old
        n = np.zeros(groups, np.int64)
        while (outside := (z < -(limit << n)) | (z >= limit << n)).any():
            n += outside
        after, r3 = rounded(z, n, rounding)
        carried = after == limit
        after = np.where(carried, after >> 1, after)
        before = a
        a, x = np.where(any_active, after, a), np.where(any_active, e + n + carried, x)
        yield StepTrace(active, gap, r1, shift_new, shift_old, product, before, r2_new, r2_old, z, n, r3, carried, a, x)


def final(steps: Steps, rounding: str, accumulator_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A and X of every group."""
    *_, last = trace(steps, rounding, accumulator_bits)
    return last.mantissa, last.exponent

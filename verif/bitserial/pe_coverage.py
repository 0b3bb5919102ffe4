"""What the PE's stimulus must reach: every rounding in every direction, every normalising shift, kinds of groups."""

import numpy as np

from verif.bitserial.coverage import Coverage, cross
from verif.bitserial.pe_trace import ABOVE, BELOW, EXACT, TIE, Steps, trace

__all__ = ["cover"]

FAR = 24
EVENTS = {EXACT: "exact", BELOW: "below half", TIE: "half", ABOVE: "above half"}
SIGNS = {-1: "negative", 1: "positive"}


def largest_shift(lanes: int, accumulator_bits: int) -> int:
    """Largest n of P6: the largest sum of products and accumulator at one exponent."""
    largest = (lanes * 8 * 2047 << 6) + (1 << accumulator_bits - 1) - 1
    return (largest >> accumulator_bits - 1).bit_length()


def cover(name: str, config: tuple, steps: Steps, scale8: np.ndarray, last: np.ndarray) -> None:
    """Count what ``steps`` do under ``config`` and close the coverage.

    ``scale8`` are the groups' scaling factors, ``last`` the cycles of their last steps.
    """
    lanes, rounding, digit_bits, accumulator_bits = config
    signed_events = cross(SIGNS.values(), EVENTS.values())
    distance = 8 // digit_bits
    coverage = Coverage(
        name,
        {
            "exponent gap of a lane": range(16),
            "R1": EVENTS.values(),
            "R2 of the product": signed_events,
            "R2 of the accumulator": signed_events,
            "R3": cross(SIGNS.values(), list(EVENTS.values())),
            "product shifted by": range(1, FAR + 1),
            "accumulator shifted by": range(1, FAR + 1),
            "normalising shift": range(largest_shift(lanes, accumulator_bits) + 1),
            "bsig": (0, 1, 2, 4, 6),
            "rounded to 2^(B-1)": (False, True) if rounding == "rne" else (False,),
            "least mantissa": (True,),
            "cancelled to zero": (True,),
            "truncated negative accumulator": ("shifted", "kept", "at the end"),
            "lane": ("subnormal", "largest exponent", "zero activation", "zero weight beside a larger product"),
            "group": ("no active lane", "one step", "X beyond P's range"),
            "active lanes of a step": range(lanes + 1),
            "scale8": (0, 1, 127, 128, 255),
            "distance of group ends": ("shortest", "longer"),
        },
    )
    before_negative_inexact = np.zeros(len(steps.length), bool)
    biased = steps.activations.astype(int) >> 10 & 31
    for k, step in enumerate(trace(steps, rounding, accumulator_bits)):
        any_active = step.active.any(1)
        ending = steps.length - 1 == k
        coverage.sample("exponent gap of a lane", np.minimum(step.gap, 15), step.active)
        coverage.sample("active lanes of a step", step.active.sum(1), steps.length > k)
        coverage.sample("bsig", steps.bsig[k], any_active)
        for code, event in EVENTS.items():
            coverage.hit("R1", event, (step.active & (step.r1_lost == code)).sum())
            for side, sign in SIGNS.items():
                pair = (sign, event)
                of_product = (np.sign(step.product) == side) & (step.r2_new == code) & (step.shift_new > 0)
                of_old = (np.sign(step.before) == side) & (step.r2_old == code) & (step.shift_old > 0)
                coverage.hit("R2 of the product", pair, (any_active & of_product).sum())
                coverage.hit("R2 of the accumulator", pair, (any_active & of_old).sum())
                of_sum = (np.sign(step.z) == side) & (step.r3 == code) & (step.n > 0)
                coverage.hit("R3", pair, (any_active & of_sum).sum())
        moved = any_active & (step.before != 0)
        coverage.sample("product shifted by", np.minimum(step.shift_new, FAR), moved & (step.shift_new > 0))
        coverage.sample("accumulator shifted by", np.minimum(step.shift_old, FAR), moved & (step.shift_old > 0))
        coverage.sample("normalising shift", step.n, any_active)
        coverage.sample("rounded to 2^(B-1)", step.carried, any_active)
        coverage.hit("least mantissa", True, (step.mantissa == -(1 << accumulator_bits - 1)).sum())
        coverage.hit("cancelled to zero", True, (any_active & (step.z == 0) & (step.before != 0)).sum())
        # Where a design may still owe the rounding toward zero of the step before.
        owed = before_negative_inexact & any_active
        coverage.hit("truncated negative accumulator", "shifted", (owed & (step.shift_old > 0)).sum())
        coverage.hit("truncated negative accumulator", "kept", (owed & (step.shift_old == 0)).sum())
        inexact = any_active & (step.z < 0) & (step.n > 0) & (step.r3 != EXACT)
        coverage.hit("truncated negative accumulator", "at the end", (inexact & ending).sum())
        before_negative_inexact = np.where(any_active, inexact, before_negative_inexact)

        coverage.hit("lane", "subnormal", (step.active & (biased[k] == 0)).sum())
        coverage.hit("lane", "largest exponent", (step.active & (biased[k] == 30)).sum())
        coverage.hit("lane", "zero activation", ((steps.man[k] == 1) & (steps.activations[k] & 0x7FFF == 0)).sum())
        weighed = np.where(step.active, biased[k], 0).max(1)
        shadow = (steps.man[k] == 0) & (biased[k] > weighed[:, None] + 14) & any_active[:, None]
        coverage.hit("lane", "zero weight beside a larger product", shadow.sum())
        coverage.hit("group", "no active lane", (ending & (step.exponent == 0)).sum())
        coverage.hit("group", "X beyond P's range", (ending & (step.exponent > 33)).sum())
    coverage.hit("group", "one step", (steps.length == 1).sum())
    for value in (0, 1, 127, 128, 255):
        coverage.hit("scale8", value, (scale8 == value).sum())
    gaps = np.diff(last)
    coverage.hit("distance of group ends", "shortest", (gaps == distance).sum())
    coverage.hit("distance of group ends", "longer", (gaps > distance).sum())
    coverage.close()

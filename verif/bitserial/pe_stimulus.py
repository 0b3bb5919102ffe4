"""Constrained-random groups of steps for the PE: exponents, signs and terms mixed so that every rounding happens."""

import numpy as np
import torch

from golden.bitserial.decoder import terms
from golden.weights import QuantizedWeight
from spec.datatypes import Datatype
from verif.bitserial.pe_trace import Steps

__all__ = ["PROFILES", "coded", "directed", "joined", "random_groups"]

BSIGS = (0, 1, 2, 4, 6)
LONGEST = 96
"""Most steps of a random group: more than any accumulator needs to saturate its exponent."""


def half(sign, exponent, fraction) -> np.ndarray:
    return (np.asarray(sign) << 15 | np.asarray(exponent) << 10 | np.asarray(fraction)).astype(np.uint16)


def fractions(rng, shape) -> np.ndarray:
    """All zeros, all ones, few bits set (for ties), anything."""
    few = 1 << rng.integers(0, 10, shape) | 1 << rng.integers(0, 10, shape)
    kind = rng.integers(0, 5, shape)
    return np.choose(kind, [0, 1023, few, few, rng.integers(0, 1024, shape)])


def exponents(rng, profile: str, shape) -> np.ndarray:
    steps, groups, _ = shape
    ramp = np.linspace(0, 30, steps).astype(int)[:, None, None] + rng.integers(-2, 3, shape)
    middle = rng.integers(1, 29, (1, groups, 1)) + rng.integers(-1, 2, shape)
    leap = (rng.permutation(groups) * 28 // groups + 1)[:, None] * (np.arange(steps)[:, None, None] >= 1)
    return {
        "any": rng.integers(0, 31, shape),
        "narrow": middle,
        "two": np.where(rng.random(shape) < 0.5, middle, middle - rng.integers(8, 16, (1, groups, 1))),
        "corners": rng.choice([0, 1, 2, 15, 29, 30], shape),
        "subnormal": np.zeros(shape, int),
        "largest": np.full(shape, 30),
        "rising": ramp,
        "falling": ramp[::-1],
        "leaping": leap + rng.integers(1, 4, shape),
        "few steps large": np.where(rng.random((steps, groups, 1)) < 0.1, 30, middle - 14),
    }[profile].clip(0, 30)


PROFILES = (
    "any",
    "narrow",
    "two",
    "corners",
    "subnormal",
    "largest",
    "rising",
    "falling",
    "leaping",
    "few steps large",
)
TERMS = ("dense", "sparse", "one sign", "cancelling", "zero weights", "zero activations", "shadowed")


def random_groups(rng: np.random.Generator, profile: str, kind: str, groups: int, lanes: int) -> Steps:
    """Groups of one exponent profile and one kind of terms; lengths from 1 to LONGEST."""
    shape = (LONGEST, groups, lanes)
    length = rng.choice([1, 2, 3, 8, 9, 16, 24, 32, LONGEST], groups, p=[0.1, 0.1, 0.1, 0.2, 0.1, 0.15, 0.1, 0.1, 0.05])
    exponent, fraction = exponents(rng, profile, shape), fractions(rng, shape)
    sign = rng.integers(0, 2, shape)
    man = (rng.random(shape) < {"sparse": 0.15, "zero weights": 0.0}.get(kind, 0.9)).astype(np.int64)
    x = rng.integers(0, 4, shape)
    bsig = rng.choice(BSIGS, shape[:2])
    if kind == "one sign":
        sign = np.broadcast_to(rng.integers(0, 2, (1, groups, 1)), shape)
    if kind == "zero activations":
        exponent, fraction = np.zeros(shape, int), np.zeros(shape, int)
    if kind == "shadowed":  # large activations beside zero weights
        big = rng.random(shape) < 0.4
        man = np.where(big, 0, man)
        exponent = np.where(big, 30, exponent // 2)
    activation_sign = np.zeros(shape, int) if kind == "one sign" else rng.integers(0, 2, shape)
    activations = half(activation_sign, exponent, fraction)
    if kind == "cancelling":  # the second half of a group takes the first half off again, in a different order of lanes
        k = np.arange(LONGEST)[:, None]
        mirror = np.where(k >= length // 2, k - length // 2, k).clip(0, LONGEST - 1)
        later = (k >= length // 2) & (length > 1)
        columns = np.arange(groups)
        man, x, activations = (array[mirror, columns] for array in (man, x, activations))
        sign = sign[mirror, columns] ^ later[:, :, None]
        bsig = bsig[mirror, columns]
        man = np.where((later & (k >= 2 * (length // 2)))[:, :, None], 0, man)
        activations = np.where(later[:, :, None], activations[:, :, ::-1], activations)
        man, x, sign = (np.where(later[:, :, None], array[:, :, ::-1], array) for array in (man, x, sign))
    return Steps(man, x, sign, activations, bsig, length)


def joined(parts: list[Steps]) -> Steps:
    """All groups of several sets, padded with idle steps to the longest."""
    steps = max(len(part.bsig) for part in parts)

    def pad(array):
        return np.pad(array, [(0, steps - len(array))] + [(0, 0)] * (array.ndim - 1))

    names = ("man", "x", "sign", "activations", "bsig")
    return Steps(
        *(np.concatenate([pad(getattr(part, name)) for part in parts], 1) for name in names),
        np.concatenate([part.length for part in parts]),
    )


def coded(weight: QuantizedWeight, activations: torch.Tensor, lanes: int) -> Steps:
    """The steps of every (token, row, group) of a quantized weight, in that order, by golden's terms."""
    values, kinds = weight.integers(), weight.datatype.tolist()
    tokens = activations.shape[0]
    parts = []
    for token in range(tokens):
        for row in range(weight.shape[0]):
            for group in range(weight.groups):
                part = slice(group * weight.group_size, min((group + 1) * weight.group_size, weight.shape[1]))
                datatype = Datatype(kinds[row][group])
                pad = (0, -(part.stop - part.start) % lanes)
                v = torch.nn.functional.pad(values[row, part], pad)
                a = torch.nn.functional.pad(activations[token, part], pad).view(torch.int16).numpy().view(np.uint16)
                model = terms(datatype, v)
                count = datatype.terms

                def by_step(tensor, count=count):
                    """[count, weights] -> [beats * count, 1 group, lanes]: all terms of a beat, then the next beat."""
                    return tensor.numpy().reshape(count, -1, lanes).transpose(1, 0, 2).reshape(-1, 1, lanes)

                sign, man, x = (by_step(tensor) for tensor in (model.sign, model.man, model.x))
                repeated = np.broadcast_to(a, (count, len(a))).reshape(count, -1, lanes)
                repeated = repeated.transpose(1, 0, 2).reshape(-1, 1, lanes)
                bsig = np.tile(model.bsig.numpy().reshape(count), len(a) // lanes)[:, None]
                parts.append(Steps(man, x, sign, repeated, bsig, np.array([len(bsig)])))
    return joined(parts)


def directed(lanes: int, accumulator_bits: int) -> tuple[list[str], Steps]:
    """Corner groups, worked out by hand, and their names. A lane is (activation bits, x); its exponent is e + x."""
    top, one = 0x7BFF, 0x3C00  # 65504 and 1
    p33 = (top, 3)
    # With P = 33: u of a lane is 8 * 2047 = 16376 in full, 8 of (1024, 10 below), 7 of (1792, 11 below).
    eight, seven = (0x5C00, 0), (0x5B00, 0)
    full = [p33] * lanes
    wide = accumulator_bits - 15
    # 2^14 - 1, then doublings: the accumulator goes to 2^(B-1) - 1, then to 2^B - 1, which rounds up to 2^B.
    carry = [([p33, seven], 0), ([p33, eight], 0), *(([p33, eight], bsig) for bsig in range(1, wide + 1))]
    p10, p20 = (0x7BFF - (20 << 10), 0), (0x7BFF - (10 << 10), 0)
    low = (0x0400 | 1023, 0)  # exponent 1
    groups = {
        "largest overflow": [([p33], wide), (full, 6)],
        "largest overflow, negative": [([p33], wide, -1), (full, 6, -1)],
        "carry out of rounding": carry,
        "carry out of rounding, then smaller": [*carry, ([p33], 0), ([low], 0)],
        "carry out of rounding, negative": [(step[0], step[1], -1) for step in carry],
        "least mantissa": [([p33, eight], wide, -1)],
        "least mantissa, then more": [([p33, eight], wide, -1), ([low], 0, -1), ([low], 0)],
        "published width loses the sign": [([p10] * lanes, 6), ([p20] * lanes, 6)],
        "large beside a zero weight": [([(0x7B53, None), (one, 0)], 0)],
        "smallest subnormal": [([(0x0001, 0)], 0)],
        "truncated, then shifted": [([p10], wide, -1), ([p10] * lanes, 6, -1), ([p33], 0)],
        "far below": [([low], 0), (full, 6), ([low], 0, -1)],
        "far above": [([low], 0, -1), (full, 6)],
        "negative, truncated at the end": [(full, 6, -1), ([(0x7BFF, 0), (0x5A01, 0)], 0, -1)],
    }
    for gap in range(1, 30):  # a product of exponent 1, then one that is `gap` higher; a tie where there can be one
        first = (0x0400 | (1 << gap - 4 if 4 <= gap <= 13 else 0), 0)
        high = (min(gap + 1, 30) << 10, max(gap - 29, 0))
        groups[f"leap by {gap}"] = [([first], 0), ([high], 0)]
        groups[f"leap by {gap}, negative"] = [([first], 0, -1), ([high], 0, 1)]
    if lanes >= 4:
        groups["three ones beside 60000 x 0"] = [([(0x7B53, None), (one, 0), (one, 0), (one, 0)], 0)]
    parts = []
    for steps in groups.values():
        shape = (len(steps), 1, lanes)
        man, x, sign = (np.zeros(shape, np.int64) for _ in range(3))
        activations = np.zeros(shape, np.uint16)
        for k, (lane_list, _bsig, *negative) in enumerate(steps):
            for lane, (bits, shift) in enumerate(lane_list):
                activations[k, 0, lane] = bits
                man[k, 0, lane], x[k, 0, lane] = (0, 0) if shift is None else (1, shift)
            sign[k] = negative == [-1]
        bsig = np.array([[step[1]] for step in steps])
        parts.append(Steps(man, x, sign, activations, bsig, np.array([len(steps)])))
    return list(groups), joined(parts)

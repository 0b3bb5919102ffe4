"""Scalar reference of the core in exact numbers: docs/core.md and docs/prealigned.md, equation by equation."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from spec.core import CoreConfig
from spec.datatypes import Datatype
from verif.prealigned.reference import align, fp32, fp32_value

__all__ = ["NAN16", "NAN32", "Group", "Problem", "products", "scaled"]

NAN32, NAN16 = 0x7FC00000, 0x7E00


@dataclass
class Group:
    """A group of weights: ``codes`` of ``datatype``, with ``select`` and ``scale`` (scale8)."""

    datatype: Datatype
    select: int
    scale: int
    codes: list[int]

    def values(self) -> list[int]:
        specials = self.datatype.special_values or (0, 0, 0, 0)
        return [self.datatype.value_of(code, specials[self.select]) for code in self.codes]


@dataclass
class Problem:
    """A job: ``halves`` FP16 bit patterns [M, K], ``rows`` of groups [N], ``scales`` FP32 bit patterns [N]."""

    group_size: int
    halves: np.ndarray
    rows: list[list[Group]]
    scales: list[int]
    fp16: bool = False

    @property
    def sizes(self) -> tuple[int, int, int]:
        """M, K, N."""
        return (*self.halves.shape, len(self.rows))


def products(problem: Problem, config: CoreConfig) -> tuple[np.ndarray, np.ndarray]:
    """Sums of Q3 before the channel scale: bit patterns and marks, [M, N]. Weights are taken to be good."""
    bits, size = config.datapath.activation_bits, problem.group_size
    tokens, inputs, outputs = problem.sizes
    aligned = []
    for token in range(tokens):
        row = [int(h) for h in problem.halves[token]]
        groups = [align(row[start : start + size], bits) for start in range(0, inputs, size)]
        aligned.append([(e, poison, np.array(q, np.int64)) for e, poison, q in groups])
    sums = np.zeros((tokens, outputs), np.uint32)
    marks = np.zeros((tokens, outputs), bool)
    for output, row in enumerate(problem.rows):
        values = [np.array(group.values(), np.int64) for group in row]
        for token in range(tokens):
            total = Fraction(0)
            for group, value, (exponent, poison, q) in zip(row, values, aligned[token], strict=True):
                marks[token, output] |= poison
                integer = int(value @ q) * group.scale
                part = fp32(integer * Fraction(2) ** (exponent - 13 - bits))
                total = fp32_value(fp32(total + fp32_value(part)))
            sums[token, output] = fp32(total)
    return sums, marks


def scaled(problem: Problem, sums: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """C1 to C3: results as they leave the core, by NumPy's IEEE 754 arithmetic."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        y = sums.view(np.float32) * np.array(problem.scales, np.uint32).view(np.float32)[None, :]
        y = np.where(y == 0, np.float32(0), y).astype(np.float32)
        if not problem.fp16:
            bits = np.where(np.isnan(y), np.uint32(NAN32), y.view(np.uint32))
            return np.where(marks, np.uint32(NAN32), bits)
        half = np.clip(y, -65504, 65504).astype(np.float16)
        half = np.where(half == 0, np.float16(0), half)
        bits = np.where(np.isnan(y), np.uint16(NAN16), half.view(np.uint16))
        return np.where(marks, np.uint16(NAN16), bits)

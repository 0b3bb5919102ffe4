"""Beats of the core's streams, packed bit by bit from docs/core.md, sections 2 and 3; and results taken apart again."""

from collections.abc import Callable, Iterator

import numpy as np

from hw.spec.core import CoreConfig
from hw.spec.datatypes import code_bits
from hw.spec.packet import group_size_code
from verif.core.reference import Group, Problem

__all__ = ["activation_packets", "passes", "read_results", "row_packet", "slices", "weight_packets"]


def row_packet(groups: list[Group], group_size: int, lanes: int) -> list[int]:
    """64-bit words of a row packet: weights.md, section 3."""
    bits = sum(len(group.codes) for group in groups) - 1 | group_size_code(group_size) << 14
    width = 16
    carried = bits.bit_count()
    for group in groups:
        short = len(group.codes) < group_size
        text = int(group.datatype) | group.select << 4 | group.scale << 6 | short << 14
        each = code_bits(group.datatype)
        for place, code in enumerate(group.codes):
            text |= code << 16 + place * each
        text |= (text.bit_count() + carried & 1) << 15
        carried = 0
        bits |= text << width
        width += 16 + -(-len(group.codes) // lanes) * lanes * each
    return [bits >> start & 2**64 - 1 for start in range(0, width, 64)]


def passes(config: CoreConfig, sizes: tuple[int, int, int]) -> Iterator[tuple[int, int, int, int, int, int]]:
    """(first token, tokens, first input, inputs, first output, outputs) of every pass, in order."""
    tiling = config.tiling(*sizes)
    token = 0
    for tokens in tiling.tokens:
        output = 0
        for outputs in tiling.outputs:
            start = 0
            for length in tiling.chunks:
                for row in range(0, outputs, config.rows):
                    yield token, tokens, start, length, output + row, min(config.rows, outputs - row)
                start += length
            output += outputs
        token += tokens


def slices(words: list[list[int]], scales: list[int], rows: int, noise: Callable[[], int]) -> list[tuple[int, int]]:
    """Beats (TDATA, TLAST) of one pass, from the row packets of its channels; ``noise`` fills what means nothing."""
    columns = []
    for row in range(rows):
        if row < len(words):
            header = scales[row] | len(words[row]) << 32
            header |= (header.bit_count() & 1) << 63
            columns.append([header, *words[row]])
        else:
            columns.append([])
    beats = max(map(len, columns))
    for column in columns:
        column += [noise() for _ in range(beats - len(column))]
    return [
        (sum(column[beat] << 64 * row for row, column in enumerate(columns)), int(beat == beats - 1))
        for beat in range(beats)
    ]


def weight_packets(
    problem: Problem, config: CoreConfig, noise: Callable[[], int] = lambda: 0
) -> list[list[tuple[int, int]]]:
    """Beats of every weight packet of the job."""
    packets, size, lanes = [], problem.group_size, config.datapath.lanes
    for _token, _tokens, start, length, output, outputs in passes(config, problem.sizes):
        first, groups = start // size, -(-length // size)
        words = [
            row_packet(row[first : first + groups], size, lanes) for row in problem.rows[output : output + outputs]
        ]
        packets.append(slices(words, problem.scales[output : output + outputs], config.rows, noise))
    return packets


def activation_packets(
    problem: Problem, config: CoreConfig, noise: Callable[[], int] = lambda: 0
) -> list[list[tuple[int, int]]]:
    """Beats of every activation packet of the job."""
    packets, lanes = [], config.datapath.lanes
    tiling = config.tiling(*problem.sizes)
    token = 0
    for tokens in tiling.tokens:
        for _outputs in tiling.outputs:
            start = 0
            for length in tiling.chunks:
                for row in range(token, token + tokens):
                    halves = [int(h) for h in problem.halves[row, start : start + length]]
                    halves += [noise() & 0xFFFF for _ in range(-length % lanes)]
                    beats = range(0, len(halves), lanes)
                    packets.append(
                        [
                            (sum(h << 16 * lane for lane, h in enumerate(halves[b : b + lanes])), int(b == beats[-1]))
                            for b in beats
                        ]
                    )
                start += length
        token += tokens
    return packets


def result_beats(config: CoreConfig, sizes: tuple[int, int, int], fp16: bool) -> Iterator[tuple[int, int, int, bool]]:
    """(token, first output, results, last of the packet) of every beat of the result stream."""
    most = config.result_lanes * (2 if fp16 else 1)
    tiling = config.tiling(*sizes)
    token = 0
    for tokens in tiling.tokens:
        for output in range(0, sizes[2], config.rows):
            rows = min(config.rows, sizes[2] - output)
            for t in range(tokens):
                for first in range(0, rows, most):
                    last = t == tokens - 1 and first + most >= rows
                    yield token + t, output + first, min(most, rows - first), last
        token += tokens


def read_results(
    beats: list[int], config: CoreConfig, sizes: tuple[int, int, int], fp16: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Result beats as ints (the ``ResultBeat`` layout) to bit patterns and marks, [M, N]; checks keep and last."""
    lanes, width = config.result_lanes, 16 if fp16 else 32
    results = np.zeros((sizes[0], sizes[2]), np.uint16 if fp16 else np.uint32)
    marks = np.zeros((sizes[0], sizes[2]), bool)
    expected = list(result_beats(config, sizes, fp16))
    assert len(beats) == len(expected)
    for beat, (token, output, count, last) in zip(beats, expected, strict=True):
        text, keep = beat & 2 ** (32 * lanes) - 1, beat >> 32 * lanes & 2 ** (4 * lanes) - 1
        user, is_last = beat >> 36 * lanes & 2 ** (2 * lanes) - 1, beat >> 38 * lanes
        assert keep == 2 ** (count * width // 8) - 1
        assert is_last == last
        assert user >> count == 0
        assert text >> count * width == 0
        for k in range(count):
            results[token, output + k] = text >> width * k & 2**width - 1
            marks[token, output + k] = user >> k & 1
    return results, marks

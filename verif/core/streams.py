"""Packets of the core's streams, packed from docs/core.md, sections 2 and 3; and results taken apart again."""

from collections.abc import Iterator, Mapping

import numpy as np

from spec.core import CoreConfig
from spec.packet import group_size_code
from verif.core.reference import Group, Problem

__all__ = ["activation_packets", "read_results", "result_beats", "row_packet", "weight_packets"]


def row_packet(groups: list[Group], group_size: int, lanes: int) -> list[int]:
    """64-bit words of a row packet: weights.md, section 3."""
    bits = sum(len(group.codes) for group in groups) - 1 | group_size_code(group_size) << 14
    width = 16
    carried = bits.bit_count()
    for group in groups:
        short = len(group.codes) < group_size
        text = int(group.datatype) | group.select << 4 | group.scale << 6 | short << 14
        each = group.datatype.bits
        for place, code in enumerate(group.codes):
            text |= code << 16 + place * each
        text |= (text.bit_count() + carried & 1) << 15
        carried = 0
        bits |= text << width
        width += 16 + -(-len(group.codes) // lanes) * lanes * each
    return [bits >> start & 2**64 - 1 for start in range(0, width, 64)]


def starts(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """(start, size) of parts that follow each other."""
    start = 0
    for size in sizes:
        yield start, size
        start += size


def weight_packets(problem: Problem, config: CoreConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Every weight packet of the job, uint64 [beats, R]; what means nothing is random."""
    packets, size, rows = [], problem.group_size, config.rows
    tiling = config.tiling(*problem.sizes)
    cache = {}
    for _tokens in tiling.tokens:
        for output, outputs in starts(tiling.outputs):
            for start, length in starts(tiling.chunks):
                for block in range(output, output + outputs, rows):
                    part = slice(block, min(block + rows, output + outputs))
                    if (start, block) not in cache:
                        groups = slice(start // size, -(-(start + length) // size))
                        words = [row_packet(row[groups], size, config.datapath.lanes) for row in problem.rows[part]]
                        cache[start, block] = pass_packet(words, problem.scales[part], rows, rng)
                    packets.append(cache[start, block])
    return packets


def pass_packet(words: list[list[int]], scales: list[int], rows: int, rng: np.random.Generator) -> np.ndarray:
    """Channel headers, then each channel's words."""
    beats = 1 + max(map(len, words))
    packet = rng.integers(0, 1 << 64, (beats, rows), np.uint64)
    for row, (mine, scale) in enumerate(zip(words, scales, strict=True)):
        header = scale | len(mine) << 32
        packet[0, row] = header | (header.bit_count() & 1) << 63
        packet[1 : 1 + len(mine), row] = mine
    return packet


def activation_packets(problem: Problem, config: CoreConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Every activation packet of the job, uint16 [beats, L]; lanes that mean nothing are random."""
    packets, lanes = [], config.datapath.lanes
    tiling = config.tiling(*problem.sizes)
    for token, tokens in starts(tiling.tokens):
        for _outputs in tiling.outputs:
            for start, length in starts(tiling.chunks):
                packet = rng.integers(0, 1 << 16, (tokens, -(-length // lanes) * lanes), np.uint16)
                packet[:, :length] = problem.halves[token : token + tokens, start : start + length]
                packets += list(packet.reshape(tokens, -1, lanes))
    return packets


def result_beats(config: CoreConfig, problem: Problem) -> list[tuple[int, int, int, bool]]:
    """(token, first output, results, last of the packet) of every beat of the result stream."""
    most = config.result_lanes * (2 if problem.fp16 else 1)
    outputs = len(problem.rows)
    beats = []
    for token, tokens in starts(config.tiling(*problem.sizes).tokens):
        for output in range(0, outputs, config.rows):
            rows = min(config.rows, outputs - output)
            for t in range(tokens):
                for first in range(0, rows, most):
                    last = t == tokens - 1 and first + most >= rows
                    beats.append((token + t, output + first, min(most, rows - first), last))
    return beats


def read_results(
    beats: Mapping[str, np.ndarray], config: CoreConfig, problem: Problem
) -> tuple[np.ndarray, np.ndarray]:
    """Beats as :class:`hosts.core.CoreRun` holds them to bit patterns and marks, [M, N]; checks keep and last."""
    kind = np.dtype("<u2" if problem.fp16 else "<u4")
    results = np.zeros((problem.sizes[0], problem.sizes[2]), kind)
    marks = np.zeros(results.shape, bool)
    expected = result_beats(config, problem)
    assert len(beats["tlast"]) == len(expected)
    for k, (token, output, count, last) in enumerate(expected):
        octets = count * kind.itemsize
        part = slice(output, output + count)
        results[token, part] = beats["tdata"][k, :octets].view(kind)
        marks[token, part] = beats["tuser"][k, :count]
        assert beats["tkeep"][k].tolist() == [1] * octets + [0] * (4 * config.result_lanes - octets)
        assert not beats["tdata"][k, octets:].any()
        assert not beats["tuser"][k, count:].any()
        assert beats["tlast"][k] == last
    return results, marks

"""The core's models: results in exact rationals, streams by the loops of docs/core.md, files."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from golden.bitserial.dot import MARKED_BITS
from golden.core import (
    CoreJob,
    Packets,
    activation_image,
    activation_stream,
    channel_header,
    core_layer,
    finish,
    input_channels,
    result_beats,
    result_matrix,
    weight_image,
    weight_stream,
    write_layer,
)
from golden.prealigned import align, group_values
from golden.weights import QuantizedWeight, unpack_rows
from spec.datatypes import Datatype
from spec.prealigned import PrealignedConfig
from spec.system import core_preset
from verif.golden.weights_helpers import random_activations, random_weight, same
from verif.prealigned import reference as oracle

TINY = core_preset("tiny")  # 2 x 2 PEs, 4 tokens a block, 32 weights a group, 64 a chunk, 8 channels a super-block
NAN16 = 0x7E00


def any_float(value: Fraction, fraction_bits: int, least: int, most: int) -> tuple[int, bool]:
    """Bits of ``value`` rounded to nearest even in a format of IEEE 754 whose exponents go from ``least`` to ``most``,
    subnormals kept; Inf if too large, which the second tells."""
    if value == 0:
        return 0, False
    magnitude, exponent = abs(value), least
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    units = round(magnitude / Fraction(2) ** (exponent - fraction_bits))
    if units == 2 << fraction_bits:
        units, exponent = 1 << fraction_bits, exponent + 1
    sign = int(value < 0) << fraction_bits + (most - least + 2).bit_length()
    if exponent > most:
        return sign | (most - least + 2) << fraction_bits, True
    if units == 0:
        return 0, False
    normal = units >> fraction_bits
    return sign | (normal and exponent - least + 1) << fraction_bits | units - (normal << fraction_bits), False


def test_any_float_is_numpys(rng):
    for value in [*rng.integers(1, 2**32, 300).tolist(), 2**150 + 1, 3 << 148]:
        for shift in (0, 40, 60, 149, 160, 180):
            exact = Fraction(value) / 2**shift
            with np.errstate(all="ignore"):
                want = np.float32(float(exact)).view(np.uint32)
                half = np.float16(float(exact)).view(np.uint16)
            assert any_float(exact, 23, -126, 127)[0] == want
            assert any_float(-exact, 10, -14, 15)[0] & 0x7FFF == half


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("bits", [10, 16, 24])
def test_layer_in_rationals(rng, bits, fp16):
    """Channel scales from subnormal results to overflow; every step rounded on its own."""
    weight, activations = random_weight(rng, 12, 70, 32), random_activations(rng, 6, 70)
    exponents = rng.integers(-140, 110, 12) if not fp16 else rng.integers(-45, 5, 12)
    weight.channel_scale[:] = torch.from_numpy(np.ldexp(1 + rng.random(12), exponents).astype(np.float32))
    weight.channel_scale[0], weight.channel_scale[1] = 3e38 if not fp16 else 1e3, 0
    found = core_layer(weight, activations, datapath=PrealignedConfig(activation_bits=bits), fp16=fp16)
    values = group_values(weight, align(activations, group_size=32, activation_bits=bits))
    overflow = saturated = False
    for token, out in np.ndindex(6, 12):
        total = Fraction(0)
        for value in values[token, out].tolist():
            total = oracle.fp32_value(oracle.fp32(total + Fraction(value)))
        pattern, too_large = any_float(total * Fraction(weight.channel_scale[out].item()), 23, -126, 127)
        overflow |= too_large
        if fp16:
            sign = pattern >> 31
            if too_large:
                pattern, large = 0, True
            else:
                exact = Fraction(float(np.array(pattern, np.uint32).view(np.float32)))
                pattern, large = any_float(exact, 10, -14, 15)
            saturated |= large
            pattern = sign << 15 | 0x7BFF if large else pattern
        assert found.bits[token, out] == pattern
    assert (found.fp32_overflow, found.fp16_saturated) == (overflow, saturated)
    assert overflow or saturated
    assert not found.marked.any()


@pytest.mark.parametrize(
    ("total", "scale", "fp32", "fp16", "flags"),
    [
        (1.0, 1.0, 0x3F800000, 0x3C00, (False, False)),
        (-1.0, 0.0, 0, 0, (False, False)),
        (-1.0, 2.0**-149, 0x80000001, 0, (False, False)),
        (-0.5, 2.0**-149, 0, 0, (False, False)),  # a tie, to even: zero, and +0
        (2.0**50, 2.0**100, 0x7F800000, 0x7BFF, (True, True)),
        (-(2.0**50), 2.0**100, 0xFF800000, 0xFBFF, (True, True)),
        (1.0, 65519.0, 0x477FEF00, 0x7BFF, (False, False)),  # rounds to 65504
        (1.0, 65520.0, 0x477FF000, 0x7BFF, (False, True)),
        (-1.0, float("inf"), 0xFF800000, 0xFBFF, (False, True)),
        (0.0, float("inf"), 0x7FC00000, 0x7E00, (False, False)),
        (1.0, float("nan"), 0x7FC00000, 0x7E00, (False, False)),
    ],
)
def test_finish_worked_by_hand(total, scale, fp32, fp16, flags):
    for wide, bits in ((False, fp32), (True, fp16)):
        sums, scales = torch.tensor([[total]]), torch.tensor([scale])
        found = finish(sums, scales, torch.tensor([[False]]), fp16=wide)
        assert found.bits.tolist() == [[bits]]
        assert (found.fp32_overflow, found.fp16_saturated) == (flags[0], flags[1] and wide)
        marked = finish(sums, scales, torch.tensor([[True]]), fp16=wide)
        assert marked.bits.tolist() == [[NAN16 if wide else MARKED_BITS]]
        assert not marked.fp32_overflow
        assert not marked.fp16_saturated


def test_chunks_do_not_change_results(rng):
    weight, activations = random_weight(rng, 9, 333, 32), random_activations(rng, 5, 333)
    activations[2, 300] = float("nan")
    whole = core_layer(weight, activations)
    assert whole.marked.any(1).tolist() == [False, False, True, False, False]
    for chunk in range(32, 353, 32):
        part = core_layer(weight, activations, chunk=chunk)
        assert np.array_equal(part.bits, whole.bits)
        assert np.array_equal(part.marked, whole.marked)
    with pytest.raises(ValueError, match="chunk must be a multiple of the group size 32, not 40"):
        core_layer(weight, activations, chunk=40)


def test_input_channels(rng):
    weight = random_weight(rng, 4, 200, 64)
    part = input_channels(weight, 64, 200)
    assert torch.equal(part.integers(), weight.integers()[:, 64:])
    assert torch.equal(part.dequantize(), weight.dequantize()[:, 64:])
    with pytest.raises(ValueError, match="start must be a multiple of the group size 64, not 32"):
        input_channels(weight, 32, 200)


def test_channel_header_worked_by_hand():
    # 1.0 is 0x3F800000, with 7 ones: 1 word makes 8, 3 words make 9 and need the parity bit.
    headers = channel_header(np.array([1.0, 1.0, 0.0], np.float32), np.array([1, 3, 65]))
    assert headers.tolist() == [0x000000013F800000, 0x800000033F800000, 0x0000004100000000]


def parts(count: int, most: int) -> list[int]:
    """T1 by search: the fewest parts, then the smallest size that gives so few."""
    fewest = next(n for n in range(1, count + 1) if n * most >= count)
    size = next(s for s in range(1, most + 1) if s * fewest >= count)
    found = []
    while sum(found) < count:
        found.append(min(size, count - sum(found)))
    return found


def loops(config, tokens, inputs, outputs):
    """Section 2 as it is written; yields (kind, tokens, channels, inputs) of every packet, ranges."""
    unit, rows, each = config.datapath.group_size, config.rows, config.columns * config.token_sets
    for first_token in range(0, tokens, each):
        block_tokens = range(first_token, min(first_token + each, tokens))
        first_block = 0
        for blocks in parts(-(-outputs // rows), config.block_outputs // rows):
            first_unit = 0
            chunks = parts(-(-inputs // unit), config.chunk // unit)
            for index, units in enumerate(chunks):
                channels = range(first_unit * unit, min((first_unit + units) * unit, inputs))
                for token in block_tokens:
                    yield "activations", range(token, token + 1), None, channels
                for block in range(first_block, first_block + blocks):
                    out = range(block * rows, min((block + 1) * rows, outputs))
                    yield "weights", None, out, channels
                    if index == len(chunks) - 1:
                        yield "results", block_tokens, out, None
                first_unit += units
            first_block += blocks


SHAPES = [(1, 1, 1), (4, 64, 8), (5, 65, 9), (9, 200, 21), (3, 33, 17), (8, 129, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("config", [TINY, core_preset("tiny", rows=4, result_lanes=2, token_sets=1)], ids="ab")
def test_streams_follow_the_loops(rng, config, shape):
    """Each packet holds what the loops say; the results come back to their places."""
    tokens, inputs, outputs = shape
    weight, activations = random_weight(rng, outputs, inputs, 32), random_activations(rng, tokens, inputs)
    sent = {
        "weights": weight_stream(config, weight, tokens),
        "activations": activation_stream(config, activations, outputs),
    }
    packets = {name: iter(stream.split()) for name, stream in sent.items()}
    fp16 = bool(rng.integers(2))
    result = replace(
        core_layer(weight, activations, fp16=fp16), marked=rng.integers(0, 2, (tokens, outputs)).astype(bool)
    )
    beats = result_beats(config, result, inputs)
    position, lanes, width = 0, config.datapath.lanes, 2 if fp16 else 4
    per_beat = 4 * config.result_lanes // width
    for kind, rows, out, channels in loops(config, *shape):
        if kind == "activations":
            packet = next(packets[kind]).reshape(-1)
            assert len(packet) == -(-len(channels) // lanes) * lanes
            part = activations[rows.start, channels.start : channels.stop].numpy().view(np.uint16)
            assert np.array_equal(packet[: len(part)], part)
        elif kind == "weights":
            packet = next(packets[kind])
            counts = (packet[0] >> np.uint64(32) & np.uint64(0xFFFF)).tolist()
            assert len(packet) == 1 + max(counts)
            assert not np.bitwise_count(packet[0]).astype(int).__and__(1).any()
            found = unpack_rows(
                [packet[1 : 1 + count, k] for k, count in enumerate(counts[: len(out)])],
                lanes=lanes,
                channel_scale=(packet[0] & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)[: len(out)],
            )
            wanted = input_channels(weight, channels.start, channels.stop)
            chosen = slice(out.start, out.stop)
            names = ("datatype", "codes", "select", "scale8", "channel_scale")
            assert same(found, replace(wanted, **{name: getattr(wanted, name)[chosen] for name in names}))
        else:
            for token in rows:
                for start in range(out.start, out.stop, per_beat):
                    here = range(start, min(start + per_beat, out.stop))
                    data = b"".join(int(result.bits[token, n]).to_bytes(width, "little") for n in here)
                    assert beats["tdata"][position].tobytes() == data.ljust(4 * config.result_lanes, b"\0")
                    assert beats["tkeep"][position].tolist() == [
                        int(k < len(data)) for k in range(4 * config.result_lanes)
                    ]
                    marks = [int(result.marked[token, n]) for n in here]
                    assert beats["tuser"][position].tolist() == marks + [0] * (2 * config.result_lanes - len(marks))
                    assert beats["tlast"][position] == (token == rows[-1] and here.stop == out.stop)
                    position += 1
    assert position == len(beats["tdata"])
    assert all(next(left, None) is None for left in packets.values())
    for stream in sent.values():
        assert stream.last.sum() == len(stream.lengths)
        assert stream.last[-1] == 1

    bits, marked, received = result_matrix(config, beats, *shape, fp16=fp16)
    assert np.array_equal(bits, result.bits)
    assert np.array_equal(marked, result.marked)
    assert received.all()
    cut = {name: array[: position // 2] for name, array in beats.items()}
    bits, _marked, received = result_matrix(config, cut, *shape, fp16=fp16)
    assert np.array_equal(bits[received], result.bits[received])
    assert received.sum() == cut["tkeep"].sum() // width


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ((Datatype.FP4, (3, 16), 128), r"group_size for this core must be one of 32, not 128"),
        ((Datatype.FP4, (3, 129), 32), r"at most \[16384, 128\] for this core, not \[3, 129\]"),
        ((Datatype.INT8, (3, 16), 32), "datatype must be one that this core decodes, not 1"),
    ],
)
def test_layers_that_a_build_cannot_take(weight, message):
    datatype, shape, size = weight
    config = core_preset("tiny", max_inputs=128, datapath=replace(TINY.datapath, datatypes=(Datatype.FP4,)))
    codes = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        weight_image(config, QuantizedWeight.from_codes(datatype, codes, group_size=size))


def test_activations_that_are_refused():
    with pytest.raises(ValueError, match=r"activations must have 1\.\.4 tokens, not 5"):
        activation_image(TINY, torch.zeros(5, 8).half())
    with pytest.raises(TypeError, match=r"activations must be a torch\.float16 tensor"):
        activation_image(TINY, torch.zeros(4, 8))


def test_files(rng, tmp_path):
    """Images and streams on disk are those of the models; written twice they are the same."""
    weight, activations = random_weight(rng, 11, 100, 32), random_activations(rng, 6, 100)
    directory = tmp_path / "new" / "layer"
    for _ in range(2):
        described = write_layer(directory, TINY, weight, activations, fp16=True, streams=True)
    assert json.loads((directory / "job.json").read_text()) == described
    assert sorted(path.name for path in directory.parent.iterdir()) == ["layer"]
    assert described["registers"] == CoreJob.of(TINY, weight, 6, fp16=True).registers()
    assert described["tiling"] == {"tokens": [4, 2], "outputs": [6, 5], "chunks": [64, 36]}
    streams = {"weights": weight_stream(TINY, weight, 6), "activations": activation_stream(TINY, activations, 11)}
    for name, dtype in (("weights", "<u8"), ("activations", "<u2")):
        entry, stream = described["images"][name], streams[name]
        beats = np.fromfile(directory / f"{name}.bin", dtype).reshape(entry["beats"], -1)
        ends = np.fromfile(directory / f"{name}.ends", "<u4")
        assert (len(ends), beats.nbytes) == (entry["packets"], entry["beats"] * entry["beat_bytes"])
        image = Packets(beats, np.diff(ends.astype(np.int64), prepend=-1))
        split = iter(image.split())
        # The weights are for each token block; of the activations, each token block's part is for each super-block.
        once = [list(split)] if name == "weights" else [[next(split) for _ in range(2 * n)] for n in (4, 2)]
        sent = [packet for part in once for _ in range(entry["replays"]) for packet in part]
        assert np.array_equal(np.concatenate(sent), stream.beats)
        assert [len(packet) for packet in sent] == stream.lengths.tolist()
        lines = (directory / f"{name}.memh").read_text().split()
        values = [int(line, 16) for line in lines]
        octets = stream.octets()
        assert values == [
            int.from_bytes(row.tobytes(), "little") | int(last) << 8 * octets.shape[1]
            for row, last in zip(octets, stream.last, strict=True)
        ]
    without = write_layer(directory, TINY, weight, tokens=9)
    assert without["images"]["weights"]["replays"] == 3
    assert sorted(path.name for path in directory.iterdir()) == ["job.json", "weights.bin", "weights.ends"]
    with pytest.raises(ValueError, match=r"activations must have shape \[tokens, 100\]"):
        write_layer(directory, TINY, weight, activations[:, :99])

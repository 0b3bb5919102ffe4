"""The model of a job: a good one is the layer, and each defect of a stream marks what docs/core.md says."""

from dataclasses import replace

import numpy as np
import pytest

from golden.bitserial.dot import MARKED_BITS
from golden.core import (
    CoreJob,
    activation_stream,
    channel_header,
    core_layer,
    job_model,
    weight_stream,
)
from spec.datatypes import Datatype
from spec.system import core_preset
from verif.golden.weights_helpers import random_activations, random_weight

TINY = core_preset("tiny")  # 2 x 2 PEs, 4 tokens a block, 32 weights a group, 64 a chunk, 8 channels a super-block
NAN16 = 0x7E00


def defect_free(rng, config=TINY, shape=(6, 100, 11), fp16=False, datatypes=tuple(Datatype)):
    tokens, inputs, outputs = shape
    weight = random_weight(rng, outputs, inputs, 32, datatypes)
    activations = random_activations(rng, tokens, inputs)
    job = CoreJob.of(config, weight, tokens, fp16=fp16)
    streams = weight_stream(config, weight, tokens).split(), activation_stream(config, activations, outputs).split()
    return job, [packet.copy() for packet in streams[0]], [packet.copy() for packet in streams[1]], weight, activations


@pytest.mark.parametrize("fp16", [False, True])
def test_good_jobs_are_layers(rng, fp16):
    job, weights, activations, weight, given = defect_free(rng, fp16=fp16)
    found, wanted = job_model(TINY, job, weights, activations), core_layer(weight, given, fp16=fp16)
    assert found.errors == ()
    assert np.array_equal(found.result.bits, wanted.bits)
    assert not found.result.marked.any()
    assert found.result.fp32_overflow == wanted.fp32_overflow
    assert found.result.fp16_saturated == wanted.fp16_saturated
    assert job.registers() == {
        "TOKENS": 6,
        "INPUTS": 100,
        "OUTPUTS": 11,
        "FORMAT": fp16 << 8,
        "DATATYPES": job.registers()["DATATYPES"],
    }
    with pytest.raises(ValueError, match="the job takes"):
        job_model(TINY, job, weights[1:], activations)


# 6 tokens in blocks of 4 and 2; 100 inputs in chunks of 64 and 36; 11 channels in blocks 2, 2, 2 and 2, 2, 1.
# Weight packets 0..2 are chunk 0 of channels 0..5, packets 3..5 chunk 1, 6..8 chunk 0 of channels 6..10.
PARITY, RESERVED, CODE, LENGTH, ACT_LENGTH, NON_FINITE = 11, 9, 10, 12, 13, 14


def flip(beat, channel, *bits):
    def spoil(packet):
        for bit in bits:
            packet[beat, channel] ^= np.uint64(1 << bit)
        return packet

    return spoil


def set_words(channel, words):
    def spoil(packet):
        scale = (packet[0, channel] & np.uint64(0xFFFFFFFF)).astype(np.uint32).view(np.float32)
        packet[0, channel] = channel_header(np.array([scale]), np.array([words]))[0]
        return packet

    return spoil


@pytest.mark.parametrize(
    ("packet", "spoil", "channels", "codes"),
    [
        (0, flip(0, 0, 3), [0], [{PARITY}]),
        (4, flip(0, 1, 50, 51), [3], [{RESERVED}]),
        (1, set_words(0, 0), [2], [{LENGTH}]),
        (1, set_words(0, TINY.max_words + 1), [2], [{LENGTH}]),
        (0, flip(1, 0, 14, 15), [0], [{RESERVED, LENGTH, PARITY, CODE}]),  # group size code 3
        (2, flip(1, 1, 0), [5], [{LENGTH, PARITY}]),  # row length 63
        (7, flip(1, 1, 16 + 15), [9], [{PARITY}]),  # of the first group
        (8, flip(1, 1, 16 + 15), [], []),  # there is no channel 11
        (8, flip(1, 0, 16 + 15), [10], [{PARITY}]),
    ],
)
def test_defects_in_weights_mark_their_channel(rng, packet, spoil, channels, codes):
    # All of one length, so that the other channel's TLAST is right whatever this one's header says.
    job, weights, activations, _, _ = defect_free(rng, datatypes=(Datatype.INT6,))
    clean = job_model(TINY, job, weights, activations).result
    weights[packet] = spoil(weights[packet])
    found = job_model(TINY, job, weights, activations)
    assert len(found.errors) == len(codes)
    assert all(errors <= allowed for errors, allowed in zip(found.errors, codes, strict=True))
    wanted = np.zeros((6, 11), bool)
    wanted[:4, channels] = True
    assert np.array_equal(found.result.marked, wanted)
    assert np.array_equal(found.result.bits, np.where(wanted, MARKED_BITS, clean.bits))


def test_a_longest_channel_with_a_bad_header_takes_the_others_along(rng):
    """Without it nobody asks for so late a TLAST: the longest of the good headers is an error too, and no other."""
    config = core_preset("tiny", rows=4, block_outputs=8)
    weight = random_weight(rng, 4, 64, 32, (Datatype.INT4,))
    weight.datatype[2], weight.codes[2] = Datatype.INT8, 5
    weight.datatype[1], weight.codes[1] = Datatype.INT3, 2
    job = CoreJob.of(config, weight, 1)
    activations = activation_stream(config, random_activations(rng, 1, 64), 4).split()
    packet = weight_stream(config, weight, 1).split()[0].copy()
    found = job_model(config, job, [flip(0, 2, 3)(packet)], activations)
    assert found.errors == (frozenset({LENGTH}), frozenset({PARITY}), frozenset({LENGTH}))
    assert found.result.marked.tolist() == [[True, False, True, True]]


def test_weight_packets_that_end_elsewhere(rng):
    """Cut by one beat or more, too long by one, and a TLAST with the channel headers."""
    job, weights, activations, _, _ = defect_free(rng)
    whole = weights[1]
    counts = (whole[0] >> np.uint64(32) & np.uint64(0xFFFF)).astype(int)
    for length in (1, 2, counts.min(), counts.max(), counts.max() + 2):
        weights[1] = np.concatenate([whole, whole])[:length]
        found = job_model(TINY, job, weights, activations)
        late = length > counts.max() + 1
        bad = [2 + k for k in range(2) if counts[k] > length - 1 or (late and counts[k] == counts.max())]
        assert found.result.marked.any(0).nonzero()[0].tolist() == bad
        assert [LENGTH in codes for codes in found.errors] == [True] * len(bad)


@pytest.mark.parametrize("hole", [False, True])
def test_codes_before_the_cut_count(rng, hole):
    """Of a group that TLAST ends early, codes that are there may tell RESERVED_CODE before the length is wrong."""
    job, weights, activations, _, _ = defect_free(rng, shape=(1, 32, 1), datatypes=(Datatype.TERNARY,))
    (packet,) = weights
    assert len(packet) == 3  # channel headers; row header, group header and 16 codes; 16 codes
    word = int(packet[1, 0])
    changed = word & ~(3 << 34) | (2 if hole else 3) << 34
    packet[1, 0] = changed ^ ((changed ^ word).bit_count() & 1) << 31
    found = job_model(TINY, job, [packet[:2]], activations)
    assert found.errors == (frozenset({CODE, LENGTH} if hole else {LENGTH}),)


def test_datatypes_outside_the_jobs(rng):
    job, weights, activations, weight, _ = defect_free(rng)
    missing = Datatype(int(weight.datatype[3, 2]))
    found = job_model(TINY, replace(job, datatypes=job.datatypes - {missing}), weights, activations)
    spoiled = (weight.datatype == missing).any(1).numpy()
    assert np.array_equal(found.result.marked.all(0), spoiled)
    assert all(codes == {RESERVED} for codes in found.errors)


@pytest.mark.parametrize(
    ("packet", "spoil", "tokens", "codes"),
    [
        (0, lambda a: a[:-1], [0], [{ACT_LENGTH}]),
        (1, lambda a: np.concatenate([a, a[:3]]), [1], [{ACT_LENGTH}]),
        (7, lambda a: np.where(a == a[0, 0], np.uint16(0x7C00), a), [3], [{NON_FINITE}]),
        (2, lambda a: np.full((1, 4), 0xFE00, np.uint16), [2], [{ACT_LENGTH}, {NON_FINITE}]),
        (3, lambda a: np.concatenate([a, np.full((9, 4), 0x7C00, np.uint16)]), [3], [{ACT_LENGTH}]),
    ],
)
def test_defects_in_activations_mark_their_token(rng, packet, spoil, tokens, codes):
    job, weights, activations, _, _ = defect_free(rng)
    clean = job_model(TINY, job, weights, activations).result
    activations[packet] = spoil(activations[packet])
    found = job_model(TINY, job, weights, activations)
    wanted = np.zeros((6, 11), bool)
    wanted[tokens, :6] = True  # the first super-block
    assert list(found.errors) == codes
    assert np.array_equal(found.result.marked, wanted)
    assert np.array_equal(found.result.bits, np.where(wanted, MARKED_BITS, clean.bits))

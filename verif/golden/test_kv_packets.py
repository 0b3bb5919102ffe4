"""Packets of KV blocks: hand-worked ones, bad ones, every byte of trits, blocks that contradict their header."""

from dataclasses import replace
from fractions import Fraction

import pytest

from golden.kv.engine_model import decode
from golden.kv.pack import BlockError, pack_block, unpack_block
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvMetadata
from verif.golden.kv_helpers import VECTORS, random_block, reheader, vector


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_hand_worked_packets(vector):
    data = bytes.fromhex(" ".join(vector["bytes"]))
    block = unpack_block(data)
    got = decode(block)
    assert [[Fraction(float(x)) for x in row] for row in got.values] == [
        [Fraction(x) for x in r] for r in vector["values"]
    ]
    assert got.tokens.tolist() == vector["tokens"]
    assert not got.overflow.any()
    assert pack_block(block) == data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes([vector("k1_q8")[0] ^ 4]) + vector("k1_q8")[1:], KvError.HEADER),
        (reheader(vector("k1_q8"), version=2), KvError.HEADER),
        (reheader(vector("k1_q8"), format=0), KvError.FORMAT),
        (reheader(vector("k1_q8"), format=7), KvError.FORMAT),
        (reheader(vector("k1_q8"), metadata=3), KvError.FORMAT),
        (reheader(vector("k1_q8"), transform0=3), KvError.FORMAT),
        (reheader(vector("k1_q8"), transform1=1), KvError.FORMAT),
        (reheader(vector("k2_q8_bitmap"), metadata=2), KvError.FORMAT),
        (reheader(vector("k2_q8_bitmap"), transform0=1), KvError.FORMAT),
        (reheader(vector("k2s_k1_q8"), format=1), KvError.FORMAT),
        (reheader(vector("k1_q8"), transform0=1), KvError.CHANNELS),
        (reheader(vector("k1_q8"), segment0=1), KvError.CHANNELS),
        (reheader(vector("k2_q8_bitmap"), span=9), KvError.TOKEN),
        (reheader(vector("k2_q8_bitmap"), token=(1 << 20) - 1), KvError.TOKEN),
        (reheader(vector("k2_q8_bitmap"), rows=5), KvError.TOKEN),
        (vector("k2s_k1_q8").replace(bytes.fromhex("2E69"), bytes.fromhex("2F69")), KvError.CHANNELS),
        (vector("k1_fp16").replace(bytes.fromhex("FF7B"), bytes.fromhex("007C")), KvError.SCALE),
        (vector("k1_fp16").replace(bytes.fromhex("FF7B"), bytes.fromhex("0080")), KvError.SCALE),
        (vector("k2_fp16").replace(bytes.fromhex("00BC"), bytes.fromhex("00FC")), KvError.SCALE),
        (vector("v158_q8").replace(bytes.fromhex("AA7B"), bytes.fromhex("F37B")), KvError.TRIT),
        (vector("v158_q8").replace(bytes.fromhex("AA7B"), bytes.fromhex("AA7A")), None),
        (vector("v158_q8").replace(bytes.fromhex("AA7B"), bytes.fromhex("AA28")), KvError.PADDING),
        (vector("k1_q8")[:-16], KvError.SHORT),
        (vector("k1_q8")[:4], KvError.SHORT),
        (vector("k2s_k1_q8")[:12], KvError.SHORT),
        (vector("k1_q8") + bytes(16), KvError.LONG),
    ],
)
def test_bad_packets_are_refused_with_the_engines_code(data, code):
    if code is None:
        unpack_block(data)
        return
    with pytest.raises(BlockError, match=code.name) as caught:
        unpack_block(data)
    assert caught.value.code is code


def test_every_trit_byte():
    good = vector("v158_q8")
    at = good.index(bytes.fromhex("AA7B"))
    for byte in range(256):
        data = good[:at] + bytes([byte]) + good[at + 1 :]
        if byte >= 243:
            with pytest.raises(BlockError, match="TRIT"):
                unpack_block(data)
            continue
        digits = [byte // 3**i % 3 for i in range(5)]
        assert unpack_block(data).codes[0, :5].tolist() == digits
        assert pack_block(unpack_block(data)) == data


def test_blocks_that_contradict_their_header_are_not_packed(rng):
    block = random_block(rng, KvFormat.K2S, KvMetadata.Q8, 64, 4, 32)
    for change, message in (
        (dict(codes=block.codes[:3]), "codes must have shape"),
        (dict(codes=block.codes + 4), "codes must be at most 3"),
        (dict(tokens=block.tokens + 1), "tokens must ascend"),
        (dict(channels=block.channels[::-1].copy()), "channels must be all channels"),
        (dict(scales=block.scales + 256), "SCALE"),
        (dict(minima=block.scales[:32]), "minima must have shape None"),
    ):
        with pytest.raises(ValueError, match=message):
            pack_block(replace(block, **change))

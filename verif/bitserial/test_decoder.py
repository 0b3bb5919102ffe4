"""TermDecoder, exhaustively: every datatype field, code and select, against typed values and golden's terms."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from golden.bitserial.decoder import terms
from hw.bitserial.decoder import CodeBeat, TermBeat, TermDecoder
from hw.special_values import SPECIAL_VALUES
from sim.design import build_design
from sim.layout import pack, unpack
from spec.datatypes import Datatype
from verif.bitserial.coverage import Coverage, cross
from verif.bitserial.player import play
from verif.bitserial.ports import special_port
from verif.bitserial.typed import CODES, SPECIALS, allowed_specials, value

LANES = 4
DEFAULTS = np.array(SPECIALS["FP3"] + SPECIALS["FP4"])
STEPS = np.array([CODES[field][2] if field in CODES else 1 for field in range(16)])


@dataclass
class Beats:
    """Beats of codes and the special values that hold for each."""

    field: np.ndarray  # [n]
    select: np.ndarray  # [n]
    codes: np.ndarray  # [n, LANES], eight bits whatever the datatype
    mask: np.ndarray  # [n, LANES]
    specials: np.ndarray  # [n, 8]


@dataclass
class Expected:
    """Golden's terms [n, 4 steps, LANES] and bsig [n, 4], typed values [n, LANES], reserved [n]."""

    sign: np.ndarray
    man: np.ndarray
    x: np.ndarray
    bsig: np.ndarray
    values: np.ndarray
    reserved: np.ndarray


def expected(beats: Beats) -> Expected:
    count = len(beats.field)
    sign, man, x = (np.zeros((count, 4, LANES), np.int64) for _ in range(3))
    bsig, values = np.zeros((count, 4), np.int64), np.zeros((count, LANES), np.int64)
    reserved = ~np.isin(beats.field, list(CODES))
    for field, (name, bits, steps, _) in CODES.items():
        rows = np.flatnonzero(beats.field == field)
        if not len(rows):
            continue
        register = beats.select[rows] + (4 if name == "FP4" else 0)
        special = beats.specials[rows, register]
        codes = beats.codes[rows] & (1 << bits) - 1
        found = [[value(field, code, sv) for code in row] for row, sv in zip(codes.tolist(), special, strict=True)]
        missing = np.equal(np.array(found, dtype=object), None)
        in_use = beats.mask[rows].astype(bool)
        reserved[rows] = (missing & in_use).any(1)
        values[rows] = np.where(missing | ~in_use, 0, found).astype(np.int64)
        model = terms(Datatype(field), torch.from_numpy(values[rows]))
        for target, tensor in ((sign, model.sign), (man, model.man), (x, model.x)):
            target[rows, :steps] = tensor.numpy().transpose(1, 0, 2)
        if name == "BINARY":  # a lane without a weight has the value 0, which no binary code has
            man[rows, :steps] &= in_use[:, None]
        bsig[rows, :steps] = model.bsig.numpy().reshape(steps)
    return Expected(sign, man, x, bsig, values, reserved)


def enumeration(rng: np.random.Generator, specials, fields=range(16), masked: bool = False) -> Beats:
    """Every field, code and select in every lane, in random order; the bits above a code's width are noise."""
    field, select, code = (axis.ravel() for axis in np.meshgrid(list(fields), range(4), range(256), indexing="ij"))
    order = rng.permutation(len(field))
    field, select, code = field[order], select[order], code[order]
    codes = (code[:, None] + 64 * np.arange(LANES)) % 256
    mask = rng.integers(0, 2, codes.shape) if masked else np.ones_like(codes)
    return Beats(field, select, codes, mask, np.broadcast_to(specials, (len(field), SPECIAL_VALUES)))


def joined(parts: list[Beats]) -> Beats:
    return Beats(*(np.concatenate([getattr(part, name) for part in parts]) for name in Beats.__dataclass_fields__))


def decode(built, beats: Beats, rng, seed: int, idle: float = 0.0, stall: float = 0.0):
    """Play the beats; returns the recording, and the cycle in which each step must appear, [n, 4], -1 where none."""
    owner, valid, ready, due = [], [], [], np.full((len(beats.field), 4), -1)
    for beat, count in enumerate(STEPS[beats.field]):
        gap = int(rng.geometric(1 - idle)) - 1
        owner += [-1] * gap
        valid += [0] * gap
        ready += rng.integers(0, 2, gap).tolist()
        for step, wait in enumerate(rng.geometric(1 - stall, count) - 1):
            owner += [beat] * (wait + 1)
            valid += [1] * (wait + 1)
            ready += [0] * wait + [1]
            due[beat, step] = len(owner) - 1
    owner = np.array(owner)
    cycles = len(owner)

    def spread(array, noise):
        return np.where((owner >= 0).reshape(-1, *[1] * (array.ndim - 1)), array[owner], noise)

    payload = {
        "datatype": spread(beats.field, rng.integers(0, 16, cycles)),
        "select": spread(beats.select, rng.integers(0, 4, cycles)),
        "codes": spread(beats.codes, rng.integers(0, 256, (cycles, LANES))),
        "mask": spread((beats.mask << np.arange(LANES)).sum(1), rng.integers(0, 1 << LANES, cycles)),
    }
    inputs = {
        "i__payload": pack(CodeBeat(LANES), payload),
        "i__valid": np.array(valid),
        "o__ready": np.array(ready),
        "specials": special_port(spread(beats.specials, 1)),
    }
    recording = play(built, inputs, ["o__payload", "o__valid", "i__ready"], seed=seed)
    np.testing.assert_array_equal(recording["o__valid"], inputs["i__valid"])
    taken = np.zeros(cycles, bool)
    taken[due.max(1)] = True
    np.testing.assert_array_equal((recording["i__ready"] & recording["o__valid"]).astype(bool), taken)
    return recording, due


def check(built, beats: Beats, rng, seed: int, **traffic) -> Expected:
    """Terms equal golden's, add up to the typed values, and take exactly the typed number of steps."""
    want = expected(beats)
    recording, due = decode(built, beats, rng, seed, **traffic)
    total = np.zeros_like(want.values)
    for step in range(4):
        rows = np.flatnonzero(due[:, step] >= 0)
        out = unpack(TermBeat(LANES), recording["o__payload"][due[rows, step]])
        man, exp, sign = (
            np.stack([out["terms"][lane][name] for lane in range(LANES)], 1).astype(np.int64)
            for name in ("man", "exp", "sign")
        )
        np.testing.assert_array_equal(man, want.man[rows, step])
        np.testing.assert_array_equal(exp * man, want.x[rows, step] * man)
        np.testing.assert_array_equal(sign * man, want.sign[rows, step] * man)
        known = np.isin(beats.field[rows], list(CODES))
        np.testing.assert_array_equal(out["bsig"][known], want.bsig[rows, step][known])
        np.testing.assert_array_equal(out["final"], step == STEPS[beats.field[rows]] - 1)
        np.testing.assert_array_equal(out["reserved"], want.reserved[rows])
        total[rows] += (1 - 2 * sign) * man << (exp + out["bsig"].astype(np.int64)[:, None])
    np.testing.assert_array_equal(total, want.values)
    return want


@pytest.fixture(scope="module")
def plain():
    return build_design(TermDecoder(LANES), "term_decoder")


@pytest.fixture(scope="module")
def signed():
    return build_design(TermDecoder(LANES, signed_special_terms=True), "term_decoder")


@pytest.mark.sim
@pytest.mark.parametrize("build", ["plain", "signed"])
def test_every_code_in_every_lane(build, request, rng, seed):
    """All 16 fields x 256 codes x 4 selects in each of the lanes, default special values, a step per cycle."""
    beats = enumeration(rng, DEFAULTS)
    want = check(request.getfixturevalue(build), beats, rng, seed)

    codes = [(field, code) for field in CODES for code in range(1 << CODES[field][1])]
    coverage = Coverage(
        f"decoder-{build}",
        {
            "field x code x lane": cross(codes, range(LANES)),
            "field x select": cross(range(16), range(4)),
            "reserved field": [field for field in range(16) if field not in CODES],
            "reserved code in lane": range(LANES),
            "value": range(-128, 128),
        },
    )
    for field, codes_of_beat in zip(beats.field.tolist(), beats.codes.tolist(), strict=True):
        for lane, code in enumerate(codes_of_beat):
            if field in CODES:
                coverage.hit("field x code x lane", ((field, code & (1 << CODES[field][1]) - 1), lane))
    for pair in zip(beats.field.tolist(), beats.select.tolist(), strict=True):
        coverage.hit("field x select", pair)
    coverage.sample("reserved field", beats.field[~np.isin(beats.field, list(CODES))])
    coverage.sample("reserved code in lane", np.nonzero((beats.field[:, None] == 8) & (beats.codes % 4 == 2))[1])
    coverage.sample("value", want.values)
    coverage.close()


@pytest.mark.sim
@pytest.mark.parametrize("build", ["plain", "signed"])
def test_masks_idle_and_back_pressure(build, request, rng, seed):
    """The same enumeration under random masks; masked lanes have no term and no reserved code."""
    beats = enumeration(rng, DEFAULTS, masked=True)
    check(request.getfixturevalue(build), beats, rng, seed, idle=0.2, stall=0.2)


@pytest.mark.sim
@pytest.mark.parametrize("build", ["plain", "signed"])
def test_reprogrammed_special_values(build, request, rng, seed):
    """Every special value that the build allows, in every register and lane, for FP3 and FP4."""
    allowed = np.array(allowed_specials(build == "signed"))
    parts, seen = [], set()
    for shift in range(len(allowed)):
        specials = allowed[(shift + 3 * np.arange(SPECIAL_VALUES)) % len(allowed)]
        seen |= set(enumerate(specials.tolist()))
        part = enumeration(rng, specials, fields=(6, 7))
        keep = np.flatnonzero(part.codes[:, 0] < 16)
        parts.append(Beats(*(getattr(part, name)[keep] for name in Beats.__dataclass_fields__)))
    coverage = Coverage(
        f"decoder-special-{build}", {"register x value": cross(range(SPECIAL_VALUES), allowed.tolist())}
    )
    for pair in seen:
        coverage.hit("register x value", pair)
    coverage.close()
    check(request.getfixturevalue(build), joined(parts), rng, seed, stall=0.1)

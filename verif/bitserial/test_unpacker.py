"""RowUnpacker: hand-worked and random packets, every way to spoil one, traffic patterns, resets, throughput."""

import numpy as np
import pytest

from golden.weights import parse_row
from hw.bitserial.unpacker import RowBeat, RowUnpacker
from sim.design import build_design
from sim.job import Job, run_jobs
from sim.layout import unpack
from spec.errors import WeightError
from verif.bitserial.coverage import Coverage, cross
from verif.bitserial.packets import CORRUPTIONS, GROUP_SIZES, corrupted, random_packet, random_packets, word_beats
from verif.bitserial.typed import CODES
from verif.golden.weights_helpers import VECTORS, vector_words

LANES = (2, 4, 8, 16, 32)
TRAFFIC = [(0.0, 0.0, 1), (0.6, 0.0, 1), (0.0, 0.6, 1), (0.3, 0.3, 4)]
"""(idle, stall, mean length of idle and stalled runs)"""
PACKET_FLAGS = ~WeightError.RESERVED_CODE


def row_unpacker(lanes: int):
    return build_design(RowUnpacker(lanes), "row_unpacker")


def split(beats, lanes: int) -> list[dict]:
    """Received beats, cut behind each ``row_last``."""
    fields = unpack(RowBeat(lanes), beats)
    flat = {**{name: values for name, values in fields.items() if name != "code"}, **fields["code"]}
    ends = np.flatnonzero(flat["row_last"]) + 1
    assert not len(flat["row_last"]) or ends[-1] == len(flat["row_last"]), "beats without a row_last at the end"
    return [
        {name: values[begin:end].astype(int) for name, values in flat.items()}
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def check_packet(words: np.ndarray, got: dict, lanes: int) -> None:
    """One packet's beats: exact, or given up with the right error after a prefix of the right beats."""
    row = parse_row(words, lanes=lanes)
    flags = row.flags & PACKET_FLAGS
    errors = got["errors"]
    assert not errors[:-1].any()
    if flags:
        assert errors[-1], f"{row.problems} not noticed"
        assert int(errors[-1]).bit_count() == 1
        assert WeightError(int(errors[-1])) in flags
        assert got["group_last"][-1] == 1
        assert got["mask"][-1] == 0
    else:
        assert not errors[-1], f"a good packet shows {WeightError(int(errors[-1]))!r}"
    count = len(errors) - bool(flags)
    beat = weight = 0
    for group, (field, select, scale) in enumerate(zip(row.datatype, row.select, row.scale8, strict=True)):
        left = min(row.group_size, row.length - group * row.group_size)
        codes = np.zeros(-(-left // lanes) * lanes, int)
        codes[:left] = row.codes[weight : weight + left]
        for first in range(0, left, lanes):
            if beat == count:
                return
            used = min(lanes, left - first)
            assert (got["datatype"][beat], got["select"][beat], got["scale"][beat]) == (field, select, scale)
            assert got["mask"][beat] == (1 << used) - 1
            width = CODES[int(field)][1]
            mine = got["codes"][beat][:used] & (1 << width) - 1
            np.testing.assert_array_equal(mine, codes[first : first + used])
            assert got["group_last"][beat] == (first + lanes >= left)
            assert got["row_last"][beat] == (weight + left == row.length and first + lanes >= left)
            beat += 1
        weight += left
    assert beat == count or flags, "more beats than the packet has"


def run(built, jobs: list[list[np.ndarray]], traffic, rng, seed: int, lanes: int) -> None:
    """Each job's packets through the unpacker, each under its own traffic; a row per packet and each row right."""
    described = [
        Job(
            inputs={"i": word_beats(packets)},
            outputs={"o": None},
            idle=idle,
            stall=stall,
            burst=burst,
            resets=rng.integers(5, 400, 3).tolist(),
            tail=1500,
        )
        for packets, (idle, stall, burst) in zip(jobs, traffic, strict=True)
    ]
    for packets, result in zip(jobs, run_jobs(built, described, seed=seed), strict=True):
        rows = split(result.outputs["o"], lanes)
        assert len(rows) == len(packets), "not one row_last per packet"
        for index, (words, got) in enumerate(zip(packets, rows, strict=True)):
            try:
                check_packet(words, got, lanes)
            except AssertionError as error:
                raise AssertionError(f"packet {index}: {error}") from error


@pytest.mark.sim
@pytest.mark.parametrize("lanes", sorted({vector["lanes"] for vector in VECTORS}))
def test_hand_worked_packets(lanes, rng, seed):
    """The literal packets of verif/golden/weight_packets.json, whose codes are stated beside them."""
    vectors = [vector for vector in VECTORS if vector["lanes"] == lanes]
    packets = [vector_words(vector) for vector in vectors]
    built = row_unpacker(lanes)
    (result,) = run_jobs(built, [Job(inputs={"i": word_beats(packets)}, outputs={"o": None})], seed=seed)
    rows = split(result.outputs["o"], lanes)
    for vector, got in zip(vectors, rows, strict=True):
        stated = [code for group in vector["groups"] for code in group["codes"]]
        used = (got["mask"][:, None] >> np.arange(lanes) & 1).astype(bool)
        widths = np.array([CODES[field][1] for field in got["datatype"]])
        codes = got["codes"] & ((1 << widths) - 1)[:, None]
        np.testing.assert_array_equal(codes[used], stated)
        last = got["group_last"].astype(bool)
        assert [CODES[field][0] for field in got["datatype"][last]] == [g["datatype"] for g in vector["groups"]]
        assert got["scale"][last].tolist() == [group["scale8"] for group in vector["groups"]]
        assert got["select"][last].tolist() == [group["select"] for group in vector["groups"]]
        assert not got["errors"].any()


@pytest.mark.sim
@pytest.mark.parametrize("lanes", LANES)
def test_random_and_spoiled_packets(lanes, rng, seed):
    """Good packets of every kind between spoiled ones of every kind; resets in the midst of packets first."""
    jobs, kinds = [], []
    for _ in TRAFFIC:
        packets, names = [], []
        for kind in [*CORRUPTIONS] * PER_KIND:
            while True:
                try:
                    bad = corrupted(rng, random_packet(rng, lanes), kind, lanes)
                    break
                except LookupError:
                    pass
            packets += [bad, random_packet(rng, lanes)]
            names += [kind, "good"]
        order = np.arange(len(packets)).reshape(-1, 2)[rng.permutation(len(packets) // 2)].ravel()
        jobs.append([packets[k] for k in order])
        kinds.append([names[k] for k in order])
    jobs[0].append(random_packets(rng, 1, 1 << 14, 128, lanes)[0])  # the longest row
    kinds[0].append("good")
    cover(lanes, jobs, kinds)
    run(row_unpacker(lanes), jobs, TRAFFIC, rng, seed, lanes)


PER_KIND = 8


def cover(lanes: int, jobs, kinds) -> None:
    flags = (
        WeightError.RESERVED_HEADER,
        WeightError.RESERVED_CODE,
        WeightError.PARITY,
        WeightError.WEIGHT_LENGTH,
    )
    positions = ("only", "first", "middle", "last")
    names = [code[0] for code in CODES.values()]
    coverage = Coverage(
        f"unpacker-{lanes}-lanes",
        {
            "datatype x group": cross(names, positions),
            "group size": GROUP_SIZES,
            "weights past the last whole beat": range(min(lanes, 8)),
            "weights of a short group": ("1", "more") if lanes == 2 else ("1", "below a beat", "more"),
            "header at bit": range(0, 64, 16),  # groups before the last have a multiple of 32 codes
            "codes across a word": [name for name, width, _, _ in CODES.values() if 16 % (width * lanes)],
            "spoiled by x traffic": cross(CORRUPTIONS, range(len(jobs))),
            "flag": flags,
            "good packet behind": CORRUPTIONS,
            "packet cut off": ("behind a beat", "elsewhere"),
            "fill bits": ("none", "some"),
            "longest row": (True,),
        },
    )
    for traffic, (packets, names_of_job) in enumerate(zip(jobs, kinds, strict=True)):
        before = None
        for words, kind in zip(packets, names_of_job, strict=True):
            row = parse_row(words, lanes=lanes)
            if kind == "good":
                if before in coverage.counts["good packet behind"]:
                    coverage.hit("good packet behind", before)
                cover_row(coverage, row, len(words), lanes)
            else:
                coverage.hit("spoiled by x traffic", (kind, traffic))
            if kind == "truncated":
                coverage.hit("packet cut off", "behind a beat" if cut_behind_a_beat(row, words, lanes) else "elsewhere")
            for flag in row.flags:
                coverage.hit("flag", flag)
            before = kind
    coverage.close()


def cut_behind_a_beat(row, words: np.ndarray, lanes: int) -> bool:
    """Whether a truncated packet ends exactly with a beat, so that nothing of the missing part shows in its words."""
    position = 16 + sum(16 + row.group_size * CODES[field][1] for field in row.datatype.tolist())
    rest = 64 * len(words) - position
    if rest <= 16:
        return rest == 0
    header = int(words[position // 64]) >> position % 64  # starts at a multiple of 16 bits
    return (rest - 16) % (lanes * CODES[header & 15][1]) == 0


def cover_row(coverage: Coverage, row, words: int, lanes: int) -> None:
    coverage.hit("group size", row.group_size)
    coverage.hit("weights past the last whole beat", min(row.length % lanes, 7))
    short = row.length % row.group_size
    if short:
        coverage.hit("weights of a short group", "1" if short == 1 else "below a beat" if short < lanes else "more")
    coverage.hit("longest row", True, row.length == 1 << 14)
    position, groups = 16, len(row.datatype)
    for group, field in enumerate(row.datatype.tolist()):
        name, width, _, _ = CODES[field]
        place = "only" if groups == 1 else "first" if group == 0 else "last" if group == groups - 1 else "middle"
        coverage.hit("datatype x group", (name, place))
        coverage.hit("header at bit", position % 64)
        count = min(row.group_size, row.length - group * row.group_size)
        end = position + 16 + -(-count // lanes) * lanes * width
        starts = np.arange(position + 16, end, lanes * width)
        if across := int((starts // 64 != (starts + lanes * width - 1) // 64).sum()):
            coverage.hit("codes across a word", name, across)
        position = end
    coverage.hit("fill bits", "some" if words * 64 > position else "none")


@pytest.mark.sim
@pytest.mark.parametrize("lanes", LANES)
def test_one_beat_per_cycle(lanes, rng, seed):
    """Without back-pressure a row's beats come in successive cycles, group headers included; a row header takes one."""
    # Beats of more than 32 bits could outrun the input; they last two steps and more in the PE.
    datatypes = [field for field, (_, width, _, _) in CODES.items() if width * lanes <= 32]
    jobs = []
    for field in datatypes:
        packets = random_packets(rng, 4, 3 * 32 + 8, 32, lanes, datatypes=(field,))
        jobs.append(Job(inputs={"i": word_beats(packets)}, outputs={"o": None}))
    for field, result in zip(datatypes, run_jobs(row_unpacker(lanes), jobs, seed=seed), strict=True):
        cycles = result.output_cycles["o"]
        per_row = 3 * 32 // lanes + -(-8 // lanes)
        assert len(cycles) == 4 * per_row
        gaps = np.diff(cycles).reshape(-1)
        between = np.arange(1, len(cycles)) % per_row == 0
        assert (gaps[~between] == 1).all(), CODES[field][0]
        # The row header's own cycle; the first beat may wait for the row's second word besides.
        assert gaps[between].max() <= 3, CODES[field][0]
        assert cycles[0] - result.input_cycles["i"][0] == 3

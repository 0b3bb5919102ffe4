"""GroupAccumulator: FP32 sums of several PEs' groups through one adder, against NumPy's float32 in the same order."""

import numpy as np
import pytest

from hw.bitserial.accumulator import ColumnResult, GroupAccumulator
from hw.bitserial.column_pe import GroupResult
from sim.design import build_design
from sim.layout import pack, unpack
from spec.config import ColumnConfig
from verif.bitserial.coverage import Coverage
from verif.bitserial.player import play

NAN = 0x7FC00000


def arrivals(rng, config: ColumnConfig, groups: int):
    """When each PE's groups come and are served, lowest PE first: cycle of arrival and of service, [pes, groups]."""
    gaps = rng.geometric(0.3, (config.pes, groups)) - 1
    gaps[:, rng.random(groups) < 0.3] = 0  # all at once, at the shortest distance
    arrival = np.cumsum(config.group_interval + gaps, 1)
    service = np.zeros_like(arrival)
    served = np.zeros(config.pes, int)
    cycle = 0
    while (served < groups).any():
        waiting = [pe for pe in range(config.pes) if served[pe] < groups and arrival[pe, served[pe]] <= cycle]
        if waiting:
            service[waiting[0], served[waiting[0]]] = cycle
            served[waiting[0]] += 1
        cycle += 1
    assert (service - arrival < config.pes).all()
    return arrival, service


@pytest.mark.sim
@pytest.mark.parametrize(
    "config",
    [
        ColumnConfig(pes=2, group_size=32),
        ColumnConfig(),
        ColumnConfig(pes=5, lanes=2, digit_bits=8, accumulator_bits=17, group_size=32),
        ColumnConfig(pes=1, lanes=8, digit_bits=2, accumulator_bits=16),
    ],
    ids=["tiny", "paper", "5 PEs, 17 bits", "1 PE, 16 bits"],
)
def test_sums(config, rng, seed):
    """Sums of any sign and exponent, rows of 1 to 9 groups, errors, a PE per cycle and all at once."""
    pes, bits, groups = config.pes, config.accumulator_bits, 900
    arrival, service = arrivals(rng, config, groups)
    a = rng.integers(-(1 << bits - 1), 1 << bits - 1, (pes, groups)) >> rng.integers(0, bits, (pes, groups))
    a[rng.random(a.shape) < 0.05] = rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, 0])
    d = a * rng.choice([0, 1, 128, 255, *rng.integers(0, 256, 8)], a.shape)
    exponent = np.where(
        rng.random(a.shape) < 0.5, rng.integers(0, 62 - bits, a.shape), 20 + rng.integers(0, 3, a.shape)
    )
    again = rng.random(a.shape) < 0.1  # the negative of the group before
    d[:, 1:] = np.where(again[:, 1:], -d[:, :-1], d[:, 1:])
    exponent[:, 1:] = np.where(again[:, 1:], exponent[:, :-1], exponent[:, 1:])
    row_last = rng.random(a.shape) < rng.choice([0.9, 0.3, 0.1], (pes, 1))
    row_last[:, -1] = True
    error = row_last & (rng.random(a.shape) < 0.1)

    cycles = int(service.max()) + 64
    inputs = {}
    shape = GroupResult(bits)
    for pe in range(pes):
        owner = np.full(cycles, -1)
        for group in range(groups):
            owner[arrival[pe, group] : service[pe, group] + 1] = group
        held = owner >= 0
        fields = {
            "sum": {
                "mantissa": np.where(held, d[pe, owner], rng.integers(-1000, 1000, cycles)),
                "exponent": np.where(held, exponent[pe, owner], rng.integers(0, 64, cycles)),
            },
            "row_last": np.where(held, row_last[pe, owner], rng.integers(0, 2, cycles)),
            "error": np.where(held, error[pe, owner], rng.integers(0, 2, cycles)),
        }
        inputs |= {f"i__{pe}__payload": pack(shape, fields), f"i__{pe}__valid": held}
    issued = np.zeros(cycles, np.int64)
    for pe, group in zip(*np.nonzero(row_last), strict=True):
        issued[arrival[pe, group] - 4] |= 1 << pe
    inputs |= {"row_issued": issued, "o__ready": np.ones(cycles, bool)}
    built = build_design(GroupAccumulator(config), "group_accumulator")
    readies = [f"i__{pe}__ready" for pe in range(pes)]
    got = play(built, inputs, ["o__payload", "o__valid", "room", *readies], seed=seed)
    for pe in range(pes):
        np.testing.assert_array_equal(np.flatnonzero(got[f"i__{pe}__ready"] & inputs[f"i__{pe}__valid"]), service[pe])
    valid = got["o__valid"].astype(bool)
    out = unpack(ColumnResult(pes), got["o__payload"][valid])

    coverage = Coverage(
        f"accumulator-{pes}-{bits}",
        {
            "groups of a row": range(1, 9),
            "marked": (False, True),
            "scaled sum": ("zero", "negative", "positive"),
            "row sum": ("zero after cancellation", "rounded", "exact"),
            "waited": range(pes),
        },
    )
    coverage.sample("waited", service - arrival)
    coverage.sample("marked", error, row_last)
    for name, chosen in (("zero", d == 0), ("negative", d < 0), ("positive", d > 0)):
        coverage.hit("scaled sum", name, chosen.sum())
    scaled = np.ldexp(d.astype(float), exponent - 28)
    assert np.array_equal(scaled.astype(np.float32), scaled), "every scaled sum is a float32"
    for pe in range(pes):
        want, at, total, exact, count = [], [], np.float32(0), 0.0, 0
        for group in range(groups):
            total, exact, count = total + np.float32(scaled[pe, group]), exact + scaled[pe, group], count + 1
            if row_last[pe, group]:
                bits_of_row = int(total.view(np.uint32)) if total else 0
                want.append(NAN if error[pe, group] else bits_of_row)
                at.append(service[pe, group] + 5)
                coverage.hit("groups of a row", min(count, 8))
                kind = "exact" if float(total) == exact else "rounded"
                coverage.hit("row sum", "zero after cancellation" if exact == 0 and scaled[pe, group] else kind)
                total, exact, count = np.float32(0), 0.0, 0
        mine = out["pe"] == pe
        fields = out["data"]
        data = fields["sign"] << np.uint64(31) | fields["exponent"] << np.uint64(23) | fields["fraction"]
        np.testing.assert_array_equal(data[mine], want)
        np.testing.assert_array_equal(out["error"][mine].astype(bool), error[pe][row_last[pe]])
        assert (np.flatnonzero(valid)[mine] - at <= pes).all()
    coverage.close()

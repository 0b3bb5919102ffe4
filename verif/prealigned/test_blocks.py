"""The pre-aligned blocks in Amaranth's simulator, against exact scalar arithmetic."""

import random
from fractions import Fraction

import pytest
from amaranth.sim import Simulator

from hw.prealigned.accumulator import RunningSums
from hw.prealigned.aligner import ActivationAligner
from hw.prealigned.decoder import DigitDecoder
from hw.prealigned.dequantizer import GroupDequantizer
from hw.prealigned.digits import allowed_specials, code_digits
from hw.prealigned.multiples import OddMultiples
from hw.prealigned.pe import PrealignedPE
from spec.datatypes import FLOATS, Datatype
from spec.digits import DIGIT_SETS, digit_set
from spec.prealigned import PrealignedConfig
from verif.prealigned.reference import align, fp32, fp32_value

SEED = 20


def simulate(design, *benches):
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run_until(50e-3) if len(benches) > 1 else simulator.run()


@pytest.mark.parametrize(
    "config",
    [
        *(PrealignedConfig(digits=digits, lanes=4) for digits in DIGIT_SETS.values()),
        PrealignedConfig(),
        PrealignedConfig(lanes=32, registers=(32, 9, 2)),
        PrealignedConfig(lanes=8, activation_bits=24, registers=(3,)),
        *(PrealignedConfig(lanes=4, segment_bits=bits) for bits in (5, 16, 64)),
    ],
    ids=lambda c: f"{len(c.digits.multiples)}-{c.lanes}-{c.activation_bits}-{len(c.registers)}-{c.segment_bits}",
)
def test_pe(config):
    """Random groups, the first with every product at its limit; sums equal modulo 2**accumulator_bits."""
    rng, design = random.Random(SEED), PrealignedPE(config)
    multiples, limit = config.digits.multiples, config.activation_limit

    async def bench(ctx):
        cycle, seen, expected = 0, {}, []

        async def tick():
            nonlocal cycle
            await ctx.tick()
            cycle += 1
            seen[cycle] = ctx.get(design.o.total) + ctx.get(design.o.carry)

        for group in range(5):
            planes, beats, total = rng.choice([1, 2]), rng.choice([config.beats, 2]), 0
            for plane in range(planes):
                for beat in range(beats):
                    step = 0
                    for lane in range(config.lanes):
                        q = rng.choice([limit, -limit, rng.randint(-limit, limit)])
                        index, negative = rng.randrange(-1, len(multiples)), rng.randrange(2)
                        if group == 0:
                            q, index, negative = limit, len(multiples) - 1, 1
                        for odd in config.digits.odd_multiples:
                            mask = (1 << config.multiple_bits(odd)) - 1
                            ctx.set(design.multiples[f"x{odd}"][lane], q * odd & mask)
                        ctx.set(design.digits.select[lane], 0 if index < 0 else 1 << index)
                        ctx.set(design.digits.negative[lane], negative)
                        step += (0 if index < 0 else multiples[index]) * (-q if negative else q)
                    shift = beat == 0 and plane > 0
                    total = (total << config.plane_bits if shift else total) + step
                    ctx.set(design.control.keep, int(beat > 0))
                    ctx.set(design.control.shift, int(shift))
                    ctx.set(design.control.last, plane == planes - 1 and beat == beats - 1)
                    await tick()
            expected.append((cycle - 1 + design.latency, total))
        ctx.set(design.control.last, 0)
        for _ in range(design.latency):
            await tick()
        for when, total in expected:
            assert (seen[when] - total) % (1 << config.accumulator_bits) == 0, f"seed {SEED}"

    simulate(design, bench)


@pytest.mark.parametrize("name", DIGIT_SETS)
def test_decoder(name):
    """Exhaustive over datatype, plane, code and allowed special value."""
    config = PrealignedConfig(digits=digit_set(name), lanes=4)
    design, rng = DigitDecoder(config), random.Random(SEED)
    names = {int(d): d for d in config.datatypes}

    async def bench(ctx):
        cycle, expected, checked = 0, {}, 0

        async def tick():
            nonlocal cycle, checked
            await ctx.tick()
            cycle += 1
            if cycle not in expected:
                return
            digits, flags = expected[cycle]
            for lane, digit in enumerate(digits):
                select = ctx.get(design.digits.select[lane])
                assert select & (select - 1) == 0
                found = config.digits.multiples[select.bit_length() - 1] if select else 0
                found = -found if ctx.get(design.digits.negative[lane]) else found
                assert digit is None or found == digit, (expected[cycle], lane)
            control = design.control
            found = (ctx.get(control.keep), ctx.get(control.shift), ctx.get(control.last), ctx.get(design.reserved))
            assert found == flags, expected[cycle]
            checked += 1

        for field in range(16):
            datatype = names.get(field)
            specials = sorted(allowed_specials(datatype, config.digits)) if datatype in FLOATS else [0]
            for special in specials:
                select = rng.randrange(4)
                register = design.specials[select + 4 * (datatype == Datatype.FP4)]
                ctx.set(register.magnitude, abs(special))
                ctx.set(register.sign, special < 0)
                planes = design.planes(datatype) if datatype else 1
                bits = datatype.bits if datatype else 2
                for plane in range(planes):
                    for first_code in range(0, 1 << bits, 4):
                        codes = [(first_code + k) % (1 << bits) for k in range(4)]
                        mask, valid = rng.choice([15, rng.randrange(16)]), rng.random() < 0.8
                        first, last = rng.randrange(2), rng.randrange(2)
                        for lane, code in enumerate(codes):
                            ctx.set(design.i.codes[lane], (code | rng.randrange(256) << bits) & 255)
                        values = dict(datatype=field, select=select, plane=plane, mask=mask, first=first, last=last)
                        for key, value in values.items():
                            ctx.set(design.i[key], value)
                        ctx.set(design.i_valid, valid)
                        digits, reserved = [0] * 4, valid and datatype is None
                        for lane, code in enumerate(codes):
                            if not (valid and datatype and mask >> lane & 1):
                                continue
                            if datatype.value_of(code, special) is None:
                                digits[lane], reserved = None, True
                            else:
                                digits[lane] = code_digits(datatype, code, config.digits, special)[plane]
                        below_top = datatype is not None and plane < planes - 1
                        flags = (
                            int(not (valid and first)),
                            int(valid and first and below_top),
                            int(valid and last and plane == 0),
                            int(reserved),
                        )
                        expected[cycle + design.latency] = (digits, flags)
                        await tick()
                for _ in range(design.latency):
                    ctx.set(design.i_valid, 0)
                    await tick()
        assert checked == len(expected) > 100

    simulate(design, bench)


@pytest.mark.parametrize(("lanes", "bits"), [(1, 16), (4, 16), (2, 10), (4, 11), (2, 12), (2, 24), (16, 13)])
def test_aligner(lanes, bits):
    """Normal, wide-ranging, subnormal, zero and non-finite groups of any length, replayed, with both sides stalling."""
    rng, design = random.Random(SEED), ActivationAligner(lanes, bits)
    draw = [
        lambda: rng.randrange(1 << 16),
        lambda: rng.choice([0, 0x8000, rng.randrange(1024), 0x7BFF, 0xFBFF]),
        lambda: rng.randrange(1024) | rng.choice([0, 0x8000]),
        lambda: 0,
        lambda: rng.randrange(10, 20) << 10 | rng.randrange(1024) | rng.choice([0, 0x8000]),
    ]
    groups, expected, received = [], [], []
    for k in range(10):
        beats = rng.choice([design.beats, design.beats, 1, max(1, design.beats // 2)])
        groups.append((beats, rng.randrange(3), [draw[k % 5]() for _ in range(beats * lanes)]))
    for beats, planes, halves in groups:
        exponent, poison, integers = align(halves, bits)
        largest = max((abs(Fraction(q)) for q in integers), default=0)
        assert largest <= 2 ** (bits - 1) - 1
        expected += [
            (integers[b * lanes : (b + 1) * lanes], exponent, poison, b == 0, b == beats - 1, p == planes)
            for p in range(planes + 1)
            for b in range(beats)
        ]

    async def source(ctx):
        for beats, planes, halves in groups:
            for beat in range(beats):
                while rng.random() < 0.3:
                    await ctx.tick()
                for lane in range(lanes):
                    ctx.set(design.i.payload.activations[lane].as_value(), halves[beat * lanes + lane])
                ctx.set(design.i.payload.last, beat == beats - 1)
                ctx.set(design.i.payload.planes, planes)
                ctx.set(design.i.valid, 1)
                await ctx.tick().until(design.i.ready)
                ctx.set(design.i.valid, 0)

    async def sink(ctx):
        while len(received) < len(expected):
            ctx.set(design.o.ready, rng.random() < 0.7)
            _, _, valid, ready, beat = await ctx.tick().sample(design.o.valid, design.o.ready, design.o.payload)
            if valid and ready:
                flags = (bool(beat[name]) for name in ("poison", "first", "last", "final"))
                received.append(([beat.integers[lane] for lane in range(lanes)], beat.exponent, *flags))

    simulate(design, source, sink)
    assert len(received) == len(expected), f"seed {SEED}"
    assert received == expected, f"seed {SEED}"


@pytest.mark.parametrize("name", ["radix8+", "radix16-fp4"])
def test_multiples(name):
    config = PrealignedConfig(digits=digit_set(name), lanes=4)
    rng, design = random.Random(SEED), OddMultiples(config)
    limit = config.activation_limit

    async def bench(ctx):
        sent = []
        for cycle in range(300):
            sent.append([rng.choice([limit, -limit, 0, rng.randint(-limit, limit)]) for _ in range(4)])
            for lane, q in enumerate(sent[-1]):
                ctx.set(design.i.integers[lane], q & ((1 << config.activation_bits) - 1))
            await ctx.tick()
            if cycle + 1 >= design.latency:
                for odd in config.digits.odd_multiples:
                    mask = (1 << config.multiple_bits(odd)) - 1
                    for lane, q in enumerate(sent[cycle + 1 - design.latency]):
                        assert ctx.get(design.o[f"x{odd}"][lane]) == q * odd & mask, f"seed {SEED}"

    simulate(design, bench)


@pytest.mark.parametrize(
    "config", [PrealignedConfig(), PrealignedConfig(activation_bits=24, group_size=32)], ids=("16", "24")
)
def test_dequantizer(config):
    rng, design = random.Random(SEED), GroupDequantizer(config)
    bits = config.accumulator_bits
    top = 2 ** (bits - 1) - 1

    async def bench(ctx):
        expected = {}
        for cycle in range(600):
            span = 2 ** rng.randrange(1, bits - 1)
            total = rng.choice([0, 1, -1, top, -top, rng.randint(-top, top), rng.randint(-span, span)])
            carry, scale, exponent = (
                rng.randrange(1 << bits),
                rng.choice([0, 1, 255, rng.randrange(256)]),
                rng.randrange(1, 31),
            )
            ctx.set(design.i.total, (total - carry) % (1 << bits))
            ctx.set(design.i.carry, carry)
            ctx.set(design.scale, scale)
            ctx.set(design.exponent, exponent)
            exact = total * scale * Fraction(2) ** (exponent - 13 - config.activation_bits)
            expected[cycle + design.latency] = fp32(exact)
            await ctx.tick()
            if cycle + 1 in expected:
                assert ctx.get(design.o.as_value()) == expected[cycle + 1], f"seed {SEED}, cycle {cycle}"

    simulate(design, bench)


def test_running_sums():
    """Cancellation, ties, fresh sums and marks; every sum visited at the shortest interval."""
    rng, design = random.Random(SEED), RunningSums(8)

    async def bench(ctx):
        sums, marks, expected, results = [0] * 8, [False] * 8, {}, 0
        for cycle in range(4000):
            index = cycle % design.interval
            valid = index < 8 and rng.random() < 0.9
            index %= 8
            nudge = 1 + Fraction(rng.choice([0, 0, 1, -1, 3]), 2 ** rng.randrange(18, 26))
            value = rng.choice(
                [
                    0,
                    fp32(rng.randrange(-(2**38), 2**38) * Fraction(2) ** rng.randrange(-40, -2)),
                    fp32(-fp32_value(sums[index]) * nudge),
                    rng.randrange(2) << 31
                    | rng.randrange(115, 140) << 23
                    | rng.choice([0, 1, 0x7FFFFF, rng.randrange(1 << 23)]),
                ]
            )
            first, last, error = cycle < design.interval or rng.random() < 0.1, rng.random() < 0.3, rng.random() < 0.05
            ctx.set(design.i.value.as_value(), value)
            for name, bit in (("index", index), ("first", first), ("last", last), ("error", error)):
                ctx.set(design.i[name], bit)
            ctx.set(design.i_valid, valid)
            if valid:
                sums[index] = fp32((0 if first else fp32_value(sums[index])) + fp32_value(value))
                marks[index] = error or (marks[index] and not first)
                if last:
                    expected[cycle + design.latency] = (0x7FC00000 if marks[index] else sums[index], index)
            await ctx.tick()
            assert ctx.get(design.o_valid) == (cycle + 1 in expected)
            if cycle + 1 in expected:
                assert (ctx.get(design.o.value.as_value()), ctx.get(design.o.index)) == expected[cycle + 1], (
                    f"seed {SEED}"
                )
                results += 1
        assert results > 500

    simulate(design, bench)


@pytest.mark.parametrize(("planes", "period"), [(1, 8), (2, 16)])
def test_aligner_rate(planes, period):
    """Latency from a group's last beat to its first, and cycles per full group where nobody stalls."""
    design = ActivationAligner(lanes=4, group_size=32)
    came, left = [], []

    async def source(ctx):
        ctx.set(design.i.payload.planes, planes - 1)
        ctx.set(design.i.valid, 1)
        ctx.set(design.o.ready, 1)
        beat = 0
        for cycle in range(12 * period):
            ctx.set(design.i.payload.last, beat == design.beats - 1)
            _, _, ready, valid, first, last = await ctx.tick().sample(
                design.i.ready, design.o.valid, design.o.payload.first, design.i.payload.last
            )
            if ready:
                beat = (beat + 1) % design.beats
                came.extend([cycle] * last)
            left.extend([cycle] * (valid and first))

    simulate(design, source)
    assert left[0] - came[0] == design.latency
    starts = left[::planes]
    assert len(starts) > 6
    assert (starts[6] - starts[2]) / 4 == period

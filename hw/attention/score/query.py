"""The query of a list of packets: aligned to integers, put in storage order and transformed, once per step."""

from contextlib import nullcontext

from amaranth import Array, C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit, ripple_sum
from hw.attention.layouts import Layout, QueryElement
from hw.attention.score.query_rfft import QueryRfft, bit_reversed, rfft_place
from spec.attention import AttentionConfig
from spec.kv_block import MAX_HEAD_DIM, TRANSFORM_SIZES
from spec.kv_formats import KvTransform

__all__ = ["QueryUnit"]

FP16_BITS = 11
"""Bits of a significand."""


class QueryUnit(wiring.Component):
    """Takes a query and its layout, does equations Q1 to Q3 of docs/attention.md, and holds the result until released.

    FP16 elements are stored as they come, while the largest exponent is found; then each is aligned and stored in
    channel order and in storage order; then the transform runs in place: ``wht`` one butterfly in two cycles, ``rfft``
    the same for its first stage, then :class:`hw.attention.score.query_rfft.QueryRfft`. Latency for D channels: 2 D
    cycles, per transformed segment of n n log2(n) (``wht``) or n + 2 n (log2(n) - 1) more (``rfft``), and a few.

    Members
    -------
    layout : stream of Layout, In
    i : stream of QueryElement, In
    there : Out
        The query is ready: everything below holds.
    release : In
        It is no longer needed.
    address, exact, value : In, In, Out
        Reads an element, transformed in storage order or (``exact``) aligned in channel order; a cycle's latency.
    bits : Out
        b of either segment (Q3).
    exponent, poison : Out
        Of the alignment (Q1); a query whose length is not the layout's is poisoned too, and one whose layout this build
        cannot do.
    bad : Out
        One cycle: a poisoned query is ready.
    current : Layout, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        self.value_bits = config.transformed_bits
        super().__init__(
            {
                "layout": In(stream.Signature(Layout)),
                "i": In(stream.Signature(QueryElement)),
                "there": Out(1),
                "release": In(1),
                "address": In(range(config.channels)),
                "exact": In(1),
                "value": Out(signed(self.value_bits)),
                "bits": Out(data.ArrayLayout(range(self.value_bits), 2)),
                "exponent": Out(5),
                "poison": Out(1),
                "bad": Out(1),
                "current": Out(Layout),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, channels = self.config, self.config.channels
        wide = signed(self.value_bits)
        # Elements in channel order: first as FP16, then, in place, as integers.
        raw_shape = signed(max(16, config.query_bits))
        m.submodules.raw = raw = memory.Memory(shape=raw_shape, depth=channels, init=[])
        m.submodules.mixed = mixed = memory.Memory(shape=wide, depth=channels, init=[])
        raw_write, raw_read = raw.write_port(), raw.read_port()
        write, read = mixed.write_port(), mixed.read_port()
        layout = self.current
        last_channel = Cat(C(7, 3), layout.channels)[: len(self.address)]
        m.d.comb += [
            raw_read.en.eq(1),
            read.en.eq(1),
            read.addr.eq(self.address),
            raw_read.addr.eq(self.address),
        ]
        fourier = KvTransform.RFFT in config.transforms
        was_exact = Signal()
        m.d.sync += was_exact.eq(self.exact)
        m.d.comb += self.value.eq(Mux(was_exact, raw_read.data, read.data))

        element = self.i.payload.value
        biased = element[10:15]
        place = Signal(range(channels))
        seen = Array(Signal(self.value_bits - 1, name=f"seen{s}") for s in range(2))
        largest = self.exponent
        stored = [Signal(range(channels + 1), name=f"stored{s}") for s in range(2)]
        bits = [Signal(range(self.value_bits), name=f"bits{s}") for s in range(2)]
        for s in range(2):
            for k in range(self.value_bits - 1):
                with m.If(seen[s][k]):
                    m.d.comb += bits[s].eq(k + 1)
            m.d.comb += self.bits[s].eq(bits[s])

        segment = Signal()
        told = Signal()
        transform = Mux(segment, layout.transform1, layout.transform0)
        groups0, groups = layout.segment0 + 1, layout.channels + 1
        two = layout.segment0 != layout.channels
        size = Signal(range(channels + 1))
        base = Signal(range(channels + 1))
        m.d.comb += [
            size.eq(Cat(C(0, 3), Mux(segment, groups - groups0, groups0)[:5])),
            base.eq(Mux(segment, Cat(C(0, 3), groups0), 0)),
        ]
        if fourier:
            self._coefficients(m, read, layout)
        aligned = self._align(m, raw_read.data, largest)
        impossible = self._impossible(m)

        with m.FSM():
            with m.State("LAYOUT"):
                m.d.comb += self.layout.ready.eq(1)
                m.d.sync += [place.eq(0), largest.eq(1), self.poison.eq(0), segment.eq(0)]
                m.d.sync += [seen[0].eq(0), seen[1].eq(0), stored[0].eq(0)]
                with m.If(self.layout.valid):
                    m.d.sync += layout.eq(self.layout.payload)
                    # Bits that no channel of this build has are never looked at.
                    m.d.sync += layout.mask.eq(self.layout.payload.mask[:channels])
                    with m.If(impossible):
                        # Any layout that can be done will do: all scores are marked.
                        m.d.sync += [self.poison.eq(1), layout.channels.eq(channels // 8 - 1)]
                        m.d.sync += [layout.transform0.eq(0), layout.transform1.eq(0)]
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += [
                    self.i.ready.eq(1),
                    raw_write.addr.eq(place),
                    raw_write.data.eq(element),
                    raw_write.en.eq(self.i.valid),
                ]
                m.d.sync += stored[1].eq(Cat(C(0, 3), groups0))
                with m.If(self.i.valid):
                    m.d.sync += place.eq(place + 1)
                    with m.If(biased.all()):
                        m.d.sync += self.poison.eq(1)
                    with m.Elif(biased > largest):
                        m.d.sync += largest.eq(biased)
                    with m.If((place == last_channel) != self.i.payload.last):
                        m.d.sync += self.poison.eq(1)
                    with m.If(self.i.payload.last):
                        m.d.sync += place.eq(0)
                        m.next = "ALIGN"
            with m.State("ALIGN"):
                # One cycle to read, one to write: the same port serves the fold later.
                m.d.comb += raw_read.addr.eq(place)
                m.next = "STORE"
            with m.State("STORE"):
                second = two & ~layout.mask.bit_select(place, 1)
                m.d.comb += [
                    raw_read.addr.eq(place + 1),
                    raw_write.addr.eq(place),
                    raw_write.data.eq(aligned),
                    raw_write.en.eq(1),
                    write.addr.eq(Mux(second, stored[1], stored[0])),
                    write.data.eq(aligned),
                    write.en.eq(1),
                ]
                if fourier:
                    self._scatter(m, write, second, stored, layout)
                magnitude = aligned ^ aligned[-1].replicate(len(aligned))
                for s in range(2):
                    with m.If(second == s):
                        m.d.sync += stored[s].eq(stored[s] + 1)
                        with m.If((layout.transform1 if s else layout.transform0) == 0):
                            m.d.sync += seen[s].eq(seen[s] | magnitude[:-1])
                m.d.sync += place.eq(place + 1)
                with m.If(place == last_channel):
                    m.next = "SEGMENT"
                    with m.If(stored[0] + ~second != Cat(C(0, 3), groups0)):  # the mask's count
                        m.d.sync += self.poison.eq(1)
            self._transform(m, read, write, segment, transform, size, base, seen)
            with m.State("THERE"):
                m.d.comb += self.there.eq(1)
                m.d.sync += told.eq(~self.release)
                m.d.comb += self.bad.eq(self.poison & ~told)
                with m.If(self.release):
                    m.next = "LAYOUT"
        return m

    def _segments(self, layout):
        """(is ``rfft``, first address, size) of either segment."""
        base = Cat(C(0, 3), layout.segment0 + 1)
        size1 = Cat(C(0, 3), layout.channels + 1) - base
        return [
            (transform == KvTransform.RFFT, first, size[: self.config.channels.bit_length()])
            for transform, first, size in ((layout.transform0, C(0), base), (layout.transform1, base, size1))
        ]

    def _scatter(self, m, write, second, stored, layout):
        """``rfft`` begins with its elements in bit-reversed order."""
        for s, (there, base, size) in enumerate(self._segments(layout)):
            index = Signal(len(write.addr), name=f"index{s}")
            held = Signal(len(size), name=f"size{s}")
            m.d.comb += [index.eq(stored[s] - base), held.eq(size)]
            place = bit_reversed(m, index, held, f"reversed{s}")
            with m.If((second == s) & there):
                m.d.comb += write.addr.eq(base + place)

    def _coefficients(self, m, read, layout):
        """Addresses in storage order to where ``rfft`` leaves its coefficients."""
        second = self.address >= Cat(C(0, 3), layout.segment0 + 1)
        for s, (there, base, size) in enumerate(self._segments(layout)):
            index = Signal(len(self.address), name=f"coefficient{s}")
            m.d.comb += index.eq(self.address - base)
            with m.If((second == s) & there):
                m.d.comb += read.addr.eq(base + rfft_place(index, size))

    def _impossible(self, m):
        """Whether the layout at the input is one that no block of this build can have."""
        layout = self.layout.payload
        groups0 = layout.segment0
        rest = Signal(5)
        m.d.comb += rest.eq(layout.channels - layout.segment0)
        absent = [code for code in range(1, 4) if code not in self.config.transforms]
        flaws = [
            rest[4],
            *[layout[name] == code for name in ("transform0", "transform1") for code in absent],
            (layout.transform0 != 0) & ~Cat(groups0 == size // 8 - 1 for size in TRANSFORM_SIZES).any(),
            (layout.transform1 != 0) & ~Cat(rest == size // 8 for size in TRANSFORM_SIZES).any(),
        ]
        if self.config.channels < MAX_HEAD_DIM:
            flaws.append(layout.channels >= self.config.channels // 8)
        return Cat(flaws).any()

    def _align(self, m, element, largest):
        """A2 and A3 of docs/prealigned.md; 0 for what is not finite."""
        bits = self.config.query_bits
        exponent, sign = element[10:15], element[15]
        significand = Cat(element[:10], exponent.any())
        amount = Signal(5)
        m.d.comb += amount.eq(largest - (exponent | ~exponent.any()))
        # The largest keeps all bits, at the top of the bits - 1 of a magnitude.
        value = Cat(C(0, bits - 1 - FP16_BITS), significand)
        shifted, up = round_shift(m, value, amount, "align")
        magnitude = Signal(bits - 1)
        rounded = add_bit(m, Cat(shifted, C(0, 1)), up, "rounded")
        m.d.comb += [
            magnitude.eq(Mux(exponent.all(), 0, Mux(rounded[-1], (1 << bits - 1) - 1, rounded))),
        ]
        aligned = Signal(signed(bits), name="aligned")
        m.d.comb += aligned.eq(add_bit(m, Cat(magnitude, C(0, 1)) ^ sign.replicate(bits), sign, "signed"))
        return aligned

    def _transform(self, m, read, write, segment, transform, size, base, seen):
        """In-place butterflies, distances 1, 2, .. n / 2; pair number j is index j with a 0 at the distance's bit."""
        channels = self.config.channels
        wide = signed(self.value_bits)
        distance = Signal(range(channels))
        pair = Signal(range(channels))
        second = Signal()
        drained = Signal()
        low = Signal(range(channels))
        high = Signal(range(channels))
        below = distance - 1
        m.d.comb += [
            low.eq(base + (((pair & ~below) << 1) | (pair & below))),
            high.eq(low + distance),
        ]
        first = Signal(wide, reset_less=True)
        difference = Signal(wide, reset_less=True)
        low_before = Signal.like(low, reset_less=True)
        high_before = Signal.like(high, reset_less=True)
        writing = Signal()
        final_stage = distance << 1 == size
        rotated, last_sums = None, final_stage
        if KvTransform.RFFT in self.config.transforms:
            # The first stage is sums and differences, as in `wht`.
            rotated = transform == KvTransform.RFFT
            last_sums = rotated | final_stage
            m.submodules.rfft = rfft = QueryRfft(self.config)
            m.d.comb += [rfft.size.eq(size), rfft.base.eq(base), rfft.read_data.eq(read.data)]
        final_before = Signal()
        total = Signal(wide)
        less = Signal(wide)
        bits = self.value_bits
        one, other = first.as_unsigned(), read.data.as_unsigned()
        m.d.comb += [
            total.eq(ripple_sum(m, one, other, bits, "butterfly_sum")),
            less.eq(ripple_sum(m, one, ~other, bits, "butterfly_less", C(1, 1))),
        ]
        result = Signal(wide)
        with m.State("SEGMENT"):
            m.d.sync += [distance.eq(1), pair.eq(0), second.eq(0), writing.eq(0), drained.eq(0)]
            m.next = "THERE"
            with m.If((transform != KvTransform.NONE) & (size != 0)):
                m.next = "BUTTERFLY"
            with m.Elif(~segment):
                m.d.sync += segment.eq(1)
                m.next = "SEGMENT"
        with m.State("BUTTERFLY"):
            m.d.sync += second.eq(~second)
            # A pair's sum is written when the next pair's first is read, its difference with the second.
            m.d.comb += [
                read.addr.eq(Mux(second, high, low)),
                write.addr.eq(Mux(second, high_before, low_before)),
                result.eq(Mux(second, difference, total)),
                write.data.eq(result),
                write.en.eq(writing),
            ]
            with m.If(second):
                m.d.sync += [first.eq(read.data), writing.eq(~drained)]
                m.d.sync += [low_before.eq(low), high_before.eq(high), final_before.eq(final_stage)]
                m.d.sync += pair.eq(pair + 1)
                with m.If(pair + 1 == size >> 1):
                    m.d.sync += [pair.eq(0), distance.eq(distance << 1)]
                    with m.If(last_sums):
                        m.d.sync += drained.eq(1)
                with m.If(drained):
                    self._next_segment(m, segment, rotated)
            with m.Else():
                m.d.sync += difference.eq(less)
            with m.If(writing & final_before):
                self._see(m, seen[segment], result)
        if KvTransform.RFFT in self.config.transforms:
            with m.State("ROTATE"):
                m.d.comb += rfft.start.eq(1)
                m.next = "ROTATING"
            with m.State("ROTATING"):
                m.d.comb += [
                    read.addr.eq(rfft.read_address),
                    write.addr.eq(rfft.write_address),
                    write.data.eq(rfft.write_data),
                    write.en.eq(rfft.write),
                ]
                with m.If(rfft.write & rfft.final):
                    self._see(m, seen[segment], rfft.write_data)
                with m.If(rfft.done):
                    self._next_segment(m, segment)

    @staticmethod
    def _see(m, seen, value):
        """Bits of a transformed element's magnitude, for Q3."""
        magnitude = value ^ value[-1].replicate(len(value))
        m.d.sync += seen.eq(seen | magnitude[:-1])

    @staticmethod
    def _next_segment(m, segment, rotated=None):
        """Where a stage of sums, or a transform, ends; ``rotated``, in builds with `rfft`: there is more to it."""
        following = nullcontext() if rotated is None else m.Else()
        if rotated is not None:
            with m.If(rotated):
                m.next = "ROTATE"
        with following:
            m.d.sync += segment.eq(1)
            m.next = "SEGMENT"
            with m.If(segment):
                m.next = "THERE"


def round_shift(m, value, amount, name):
    """(``value >> amount``, whether to round up to the nearest even); a shift beyond the value gives 0."""
    width = len(value)
    shifted, lost = Signal(width + 1, name=f"{name}_shifted"), Signal(name=f"{name}_lost")
    extended = Cat(C(0, 1), value)
    stages, sticky = extended, C(0, 1)
    for k in range(len(amount)):
        step = 1 << k
        dropped = stages[: min(step, width + 1)]
        following = Signal(width + 1, name=f"{name}_stage{k}")
        gone = Signal(name=f"{name}_gone{k}")
        m.d.comb += following.eq(Mux(amount[k], stages >> step, stages))
        m.d.comb += gone.eq(sticky | (amount[k] & dropped.any()))
        stages, sticky = following, gone
    m.d.comb += [shifted.eq(stages), lost.eq(sticky)]
    return shifted[1:], shifted[0] & (lost | shifted[1])

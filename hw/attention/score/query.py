"""The query of a list of packets: aligned to integers, put in storage order and transformed, once per step."""

from amaranth import Array, C, Cat, Module, Mux, Signal, signed
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit
from hw.arith.rounding import round_shift
from hw.attention.layouts import HeldQuery, Layout, QueryElement
from hw.attention.score.query_rfft import bit_reversed, rfft_place
from hw.attention.score.query_transform import QueryTransform
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
    held : HeldQuery, Out
    bad : Out
        One cycle: a poisoned query is ready.
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        self.value_bits = config.transformed_bits
        super().__init__(
            {
                "layout": In(stream.Signature(Layout)),
                "i": In(stream.Signature(QueryElement)),
                "held": Out(HeldQuery(config)),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        held, channels = self.held, self.config.channels
        raw_write, raw_read, write, read = self._memories(m)
        layout, largest = held.layout, held.exponent
        last_channel = Cat(C(7, 3), layout.channels)[: len(held.address)]
        exponent = self.i.payload.value[10:15]
        place = Signal(range(channels))
        stored = [Signal(range(channels + 1), name=f"stored{s}") for s in range(2)]
        seen = self._seen(m)
        segment = Signal()
        reported = Signal()
        groups0 = layout.segment0 + 1
        two = layout.segment0 != layout.channels
        m.submodules.transform = transform = QueryTransform(self.config)
        transformed = self._segment(m, transform, segment, read)
        aligned = self._align(m, raw_read.data, largest)
        impossible = self._impossible(m)

        with m.FSM():
            with m.State("LAYOUT"):
                m.d.comb += self.layout.ready.eq(1)
                m.d.sync += [place.eq(0), largest.eq(1), held.poison.eq(0), segment.eq(0)]
                m.d.sync += [seen[0].eq(0), seen[1].eq(0), stored[0].eq(0)]
                with m.If(self.layout.valid):
                    m.d.sync += layout.eq(self.layout.payload)
                    # Bits that no channel of this build has are never looked at.
                    m.d.sync += layout.mask.eq(self.layout.payload.mask[:channels])
                    with m.If(impossible):
                        # Any layout that can be done will do: all scores are marked.
                        m.d.sync += [held.poison.eq(1), layout.channels.eq(channels // 8 - 1)]
                        m.d.sync += [layout.transform0.eq(0), layout.transform1.eq(0)]
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += [
                    self.i.ready.eq(1),
                    raw_write.addr.eq(place),
                    raw_write.data.eq(self.i.payload.value),
                    raw_write.en.eq(self.i.valid),
                ]
                m.d.sync += stored[1].eq(Cat(C(0, 3), groups0))
                with m.If(self.i.valid):
                    m.d.sync += place.eq(place + 1)
                    with m.If(exponent.all()):
                        m.d.sync += held.poison.eq(1)
                    with m.Elif(exponent > largest):
                        m.d.sync += largest.eq(exponent)
                    with m.If((place == last_channel) != self.i.payload.last):
                        m.d.sync += held.poison.eq(1)
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
                ]
                self._store(m, write, aligned, second, stored, seen)
                m.d.sync += place.eq(place + 1)
                with m.If(place == last_channel):
                    m.next = "SEGMENT"
                    with m.If(stored[0] + ~second != Cat(C(0, 3), groups0)):  # the mask's count
                        m.d.sync += held.poison.eq(1)
            with m.State("SEGMENT"):
                m.next = "READY"
                with m.If(transformed):
                    m.d.comb += transform.start.eq(1)
                    m.next = "TRANSFORM"
                with m.Elif(~segment):
                    m.d.sync += segment.eq(1)
                    m.next = "SEGMENT"
            with m.State("TRANSFORM"):
                m.d.comb += [
                    read.addr.eq(transform.read_address),
                    write.addr.eq(transform.write_address),
                    write.data.eq(transform.write_data),
                    write.en.eq(transform.write),
                ]
                with m.If(transform.write & transform.final):
                    self._see(m, seen[segment], transform.write_data)
                with m.If(transform.done):
                    m.d.sync += segment.eq(1)
                    m.next = "SEGMENT"
                    with m.If(segment):
                        m.next = "READY"
            with m.State("READY"):
                m.d.comb += held.valid.eq(1)
                m.d.sync += reported.eq(~held.release)
                m.d.comb += self.bad.eq(held.poison & ~reported)
                with m.If(held.release):
                    m.next = "LAYOUT"
        return m

    def _memories(self, m):
        """Ports of the elements in channel order, first as FP16, then, in place, as integers; and in storage order."""
        held, config = self.held, self.config
        raw_shape = signed(max(16, config.query_bits))
        m.submodules.raw = raw = memory.Memory(shape=raw_shape, depth=config.channels, init=[])
        m.submodules.mixed = mixed = memory.Memory(shape=signed(self.value_bits), depth=config.channels, init=[])
        raw_write, raw_read = raw.write_port(), raw.read_port()
        write, read = mixed.write_port(), mixed.read_port()
        was_exact = Signal()
        m.d.sync += was_exact.eq(held.exact)
        m.d.comb += [
            raw_read.en.eq(1),
            read.en.eq(1),
            read.addr.eq(held.address),
            raw_read.addr.eq(held.address),
            held.value.eq(Mux(was_exact, raw_read.data, read.data)),
        ]
        if KvTransform.RFFT in config.transforms:
            self._coefficients(m, read, held.layout)
        return raw_write, raw_read, write, read

    def _seen(self, m):
        """Bits that the magnitudes of either segment have, for Q3."""
        seen = Array(Signal(self.value_bits - 1, name=f"seen{s}") for s in range(2))
        for s in range(2):
            bits = Signal(range(self.value_bits), name=f"bits{s}")
            for k in range(self.value_bits - 1):
                with m.If(seen[s][k]):
                    m.d.comb += bits.eq(k + 1)
            m.d.comb += self.held.bits[s].eq(bits)
        return seen

    @staticmethod
    def _see(m, seen, value):
        magnitude = value ^ value[-1].replicate(len(value))
        m.d.sync += seen.eq(seen | magnitude[:-1])

    def _segment(self, m, transform, segment, read):
        """What ``transform`` works on; returns whether the segment needs it."""
        layout = self.held.layout
        kind = Mux(segment, layout.transform1, layout.transform0)
        groups0, groups = layout.segment0 + 1, layout.channels + 1
        m.d.comb += [
            transform.size.eq(Cat(C(0, 3), Mux(segment, groups - groups0, groups0)[:5])),
            transform.base.eq(Mux(segment, Cat(C(0, 3), groups0), 0)),
            transform.read_data.eq(read.data),
        ]
        if transform.with_rfft:
            m.d.comb += transform.fourier.eq(kind == KvTransform.RFFT)
        return (kind != KvTransform.NONE) & (transform.size != 0)

    def _store(self, m, write, aligned, second, stored, seen):
        """An element to where it belongs in storage order."""
        layout = self.held.layout
        m.d.comb += [
            write.addr.eq(Mux(second, stored[1], stored[0])),
            write.data.eq(aligned),
            write.en.eq(1),
        ]
        if KvTransform.RFFT in self.config.transforms:
            self._scatter(m, write, second, stored, layout)
        for s, transform in enumerate((layout.transform0, layout.transform1)):
            with m.If(second == s):
                m.d.sync += stored[s].eq(stored[s] + 1)
                with m.If(transform == 0):
                    self._see(m, seen[s], aligned)

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
        for s, (fourier, base, size) in enumerate(self._segments(layout)):
            index = Signal(len(write.addr), name=f"index{s}")
            held = Signal(len(size), name=f"size{s}")
            m.d.comb += [index.eq(stored[s] - base), held.eq(size)]
            place = bit_reversed(m, index, held, f"reversed{s}")
            with m.If((second == s) & fourier):
                m.d.comb += write.addr.eq(base + place)

    def _coefficients(self, m, read, layout):
        """Addresses in storage order to where ``rfft`` leaves its coefficients."""
        second = self.held.address >= Cat(C(0, 3), layout.segment0 + 1)
        for s, (fourier, base, size) in enumerate(self._segments(layout)):
            index = Signal(len(self.held.address), name=f"coefficient{s}")
            m.d.comb += index.eq(self.held.address - base)
            with m.If((second == s) & fourier):
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

"""The rows of blocks: buffered, ternary digits decoded, and shown as a sliding window."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import add, increment
from hw.kv.layouts import Beat
from hw.kv.packet.trits import TritDecoder
from spec.kv_block import ALIGN_BYTES, TRITS_PER_BYTE
from spec.kv_config import KvEngineConfig

__all__ = ["RowGeometry", "RowWindow"]


class RowGeometry:
    """How rows are cut: chunks of a beat (4 and 8 lanes) or half a beat, each of a few units.

    A unit is 8 bits, with 4 lanes 4 bits. The digits of a ternary chunk are decoded to 2 bits each, so that it has 5
    units for every 4: then ternary codes are 2-bit codes, and every beat of elements is a whole number of units.
    """

    def __init__(self, lanes: int):
        self.lanes = lanes
        self.narrow = lanes <= 8
        """A chunk is a whole beat."""
        self.chunk_bits = 4 * lanes if self.narrow else 2 * lanes
        self.chunk_bytes = self.chunk_bits // 8
        self.unit_bits = min(8, lanes)
        self.units = self.chunk_bits // self.unit_bits
        self.ternary_units = self.units * TRITS_PER_BYTE // 4
        self.window_units = 2 * lanes // self.unit_bits
        self.chunks = 8 * ALIGN_BYTES // self.chunk_bits
        """In 16 bytes, of which packets are multiples."""
        self.units_shape = range(self.window_units + 1)


class RowWindow(wiring.Component):
    """Buffers rows, shows the next ``2 * lanes`` bits of codes, and moves on by what the caller takes.

    Chunks lie in two memories, even and odd ones, so that one read gives the current chunk and the next. There is no
    register behind them: the read address is that of the state to come. Each byte comes from either memory, ternary
    bytes are decoded, and the window is the units from the position on.

    Throughput: what a beat of elements takes, every cycle. A beat that comes in can be taken from the window 2 cycles
    later.

    Members
    -------
    i : stream of Beat(4 * lanes), In
        Rows of one packet after another, each ending with ``last``.
    ternary : In
        The current block's bytes are five digits each.
    window : Out
        The next codes, first in the least significant bits.
    invalid : Out
        Some of these ``units`` come from an invalid ternary byte.
    units : In
        How many units the next beat of elements takes.
    complete : Out
        They are in the window.
    cut : Out
        They never will be: the packet ends within them.
    ended : Out
        The packet has been moved past.
    take : In
        Move on by ``units``.
    skip : In
        Move on to the next chunk.
    open : In
        A new packet begins; with 32 lanes at the upper half of its beat if ``odd``.
    odd : In
    held : Out
        A chunk is there.
    partial, aligned : Out
        The current chunk is used in part; the position in the packet is a multiple of 16 bytes.
    padded : Out
        The digits before the next byte are all 1.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        self.geometry = RowGeometry(config.lanes)
        super().__init__(
            {
                "i": In(stream.Signature(Beat(config.input_bits))),
                "ternary": In(1),
                "window": Out(2 * config.lanes),
                "invalid": Out(1),
                "units": In(self.geometry.units_shape),
                "complete": Out(1),
                "cut": Out(1),
                "ended": Out(1),
                "take": In(1),
                "skip": In(1),
                "open": In(1),
                "odd": In(1),
                "held": Out(1),
                "partial": Out(1),
                "aligned": Out(1),
                "padded": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self.geometry
        position = Signal(range(geometry.ternary_units))
        end = Signal(range(geometry.ternary_units + geometry.window_units + 1))
        size = Signal(len(end))
        left = Signal(len(end))
        crossing = Signal()
        advance = Signal()
        last = Signal()
        both = Signal()
        exact = Signal()
        m.d.comb += [
            size.eq(Mux(self.ternary, geometry.ternary_units, geometry.units)),
            end.eq(add(m, position, self.units)),
            left.eq(add(m, end, ~size, 1)),  # modulo a power of two above both
            crossing.eq(~left[-1] & ~exact),
            exact.eq(end == size),
            self.complete.eq(self.held & ~self.ended & (~crossing | (both & ~last))),
            self.cut.eq(self.held & ~self.ended & crossing & last),
            advance.eq(self.skip | (self.take & (crossing | exact))),
            self.partial.eq(position != 0),
        ]
        with m.If(self.skip | self.open):
            m.d.sync += position.eq(0)
        with m.Elif(self.take):
            m.d.sync += position.eq(Mux(advance, left, end))
        place = Signal(range(geometry.chunks))
        m.d.comb += self.aligned.eq(place == 0)
        with m.If(self.open):
            m.d.sync += [place.eq(Mux(self.odd, geometry.chunks // 2, 0)), self.ended.eq(0)]
        with m.Elif(advance):
            m.d.sync += [place.eq(increment(m, place)), self.ended.eq(last)]
        chunk = self._buffer(m, advance, position, last, both)
        self._show(m, chunk, position)
        return m

    def _buffer(self, m, advance, position, last, both):
        """The memories; returns the current chunk, with the bytes before the position from the next one."""
        geometry, beat = self.geometry, self.i.payload
        depth = self.config.row_beats // (2 if geometry.narrow else 1)
        bits = ceil_log2(depth)
        even = memory.Memory(shape=geometry.chunk_bits + geometry.narrow, depth=depth, init=[])
        odd = memory.Memory(shape=geometry.chunk_bits + 1, depth=depth, init=[])
        m.submodules.even, m.submodules.odd = even, odd
        writes, reads = (even.write_port(), odd.write_port()), (even.read_port(), odd.read_port())

        # Pointers have a bit more than an address: they differ by `depth` when the buffer is full.
        tail = Signal(bits + 2 if geometry.narrow else bits + 1)
        chunk = Signal(bits + 2)
        following = Signal(bits + 2)
        ahead = Signal(bits + 2)
        write = Signal()
        rows = (tail[1:] if geometry.narrow else tail, chunk[1:])
        free = (rows[0][:-1] != rows[1][:-1]) | (rows[0][-1] == rows[1][-1])
        m.d.comb += [
            self.i.ready.eq(free),
            write.eq(self.i.valid & free),
            following.eq(increment(m, chunk, advance)),
            ahead.eq(Cat(~following[0], increment(m, following[1:], following[0]))),
            reads[0].addr.eq(ahead[1:-1]),
            reads[1].addr.eq(following[1:-1]),
        ]
        with m.If(write):
            m.d.sync += tail.eq(increment(m, tail))
        filled = Signal()
        m.d.comb += filled.eq((following if geometry.narrow else following[1:]) != tail)
        m.d.sync += [
            chunk.eq(following),
            self.held.eq(filled),
            both.eq(filled & ((ahead if geometry.narrow else ahead[1:]) != tail)),
        ]
        half = chunk[0]
        if geometry.narrow:
            for k in range(2):
                m.d.comb += [
                    writes[k].addr.eq(tail[1:-1]),
                    writes[k].data.eq(Cat(beat.data, beat.last)),
                    writes[k].en.eq(write & (tail[0] == k)),
                ]
        else:
            m.d.comb += [
                writes[0].data.eq(beat.data[: geometry.chunk_bits]),
                writes[1].data.eq(Cat(beat.data[geometry.chunk_bits :], beat.last)),
            ]
            m.d.comb += [port.addr.eq(tail[:-1]) for port in writes]
            m.d.comb += [port.en.eq(write) for port in writes]
        lasts = [Value.cast(port.data)[geometry.chunk_bits :] for port in reads]
        m.d.comb += last.eq(Mux(half, lasts[1], lasts[0]) if geometry.narrow else half & lasts[1])

        passed = Signal(geometry.chunk_bytes)  # bytes wholly before the position
        unit_bits = geometry.unit_bits
        with m.Switch(Cat(position, self.ternary)):
            for ternary in range(2):
                for p in range(geometry.ternary_units if ternary else geometry.units):
                    bytes_before = p * unit_bits // 2 // TRITS_PER_BYTE if ternary else p * unit_bits // 8
                    with m.Case(p | ternary << len(position)):
                        m.d.comb += passed.eq((1 << bytes_before) - 1)
            with m.Default():
                pass
        data = [Value.cast(port.data).word_select for port in reads]
        return [Mux(half ^ passed[k], data[1](k, 8), data[0](k, 8)) for k in range(geometry.chunk_bytes)]

    def _show(self, m, chunk, position):
        """Units of the chunk, and the window from the position on."""
        geometry, width = self.geometry, self.geometry.unit_bits
        plain = Signal(geometry.chunk_bits)
        m.d.comb += plain.eq(Cat(chunk))
        digits, invalid = [], []
        for k in range(geometry.chunk_bytes):
            m.submodules[f"trits{k}"] = decoder = TritDecoder()
            m.d.comb += decoder.byte.eq(plain.word_select(k, 8))
            digits += [decoder.digits[d] for d in range(TRITS_PER_BYTE)]
            invalid.append(decoder.invalid & self.ternary)
        decoded = Signal(2 * len(digits))
        m.d.comb += decoded.eq(Cat(digits))
        units = []
        for k in range(geometry.ternary_units):
            unit = Signal(width, name=f"unit{k}")
            raw = plain[width * k : width * (k + 1)] if k < geometry.units else Const(0, width)
            m.d.comb += unit.eq(Mux(self.ternary, decoded[width * k : width * (k + 1)], raw))
            units.append(unit)
        # One gate per source: where a window's unit comes from is the same for most positions in both kinds of row.
        at = [position == p for p in range(geometry.ternary_units)]
        self._judge(m, invalid, at)
        shown = []
        for j in range(geometry.window_units):
            parts = []
            for k, unit in enumerate(units):
                plain_at, ternary_at = (k - j) % geometry.units, (k - j) % geometry.ternary_units
                if k >= geometry.units:
                    chosen = at[ternary_at] & self.ternary
                elif plain_at == ternary_at:
                    chosen = at[plain_at]
                else:
                    chosen = Mux(self.ternary, at[ternary_at], at[plain_at])
                choose = Signal(name=f"choose{j}_{k}")
                m.d.comb += choose.eq(chosen)
                parts.append(unit & choose.replicate(width))
            word = parts[0]
            for part in parts[1:]:
                word = word | part
            shown.append(word)
        m.d.comb += self.window.eq(Cat(shown))

        # Digits up to the next byte, when a block has ended at this position.
        pads = []
        for p in range(geometry.ternary_units):
            left = -p * (width // 2) % TRITS_PER_BYTE
            good = Cat(self.window[2 * d : 2 * d + 2] == 1 for d in range(left)).all() if left else Const(1)
            pads.append(at[p] & good)
        m.d.comb += self.padded.eq(~self.ternary | Cat(pads).any())

    def _judge(self, m, invalid, at):
        """Which bytes the taken units come from: a byte counts from so many units on, which depends on the position."""
        geometry = self.geometry
        per_unit = geometry.unit_bits // 2
        counts = range(2, geometry.window_units + 1, 2)
        touched = []
        for k, bad in enumerate(invalid):
            uses = []
            for p in range(geometry.ternary_units):
                ends = [range(p * per_unit, (p + n) * per_unit) for n in counts]
                first = [
                    n
                    for n, digits in zip(counts, ends, strict=True)
                    if k in {d // TRITS_PER_BYTE % geometry.chunk_bytes for d in digits}
                ]
                if first:
                    uses.append(at[p] & (self.units >= first[0] if first[0] > counts[0] else 1))
            touched.append(bad & Cat(uses).any())
        m.d.comb += self.invalid.eq(Cat(touched).any())

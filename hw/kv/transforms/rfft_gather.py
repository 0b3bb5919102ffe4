"""Coefficients put in the order in which the inverse real DFT takes them."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.transforms.rfft_layouts import INPUT_BITS, MAX_QUARTERS, Plain, Quarter, Slot
from hw.kv.transforms.rotate import operation_order

__all__ = ["Gather", "Gathered"]

DEPTH = 2 * MAX_QUARTERS


class Gathered(data.Struct):
    """Four words and their slot: r_k, i_k, r_(h-k), i_(h-k); of operation 0 X_0, X_h, r_q, i_q (h = n/2, q = n/4)."""

    data: data.ArrayLayout(INPUT_BITS, 4)
    slot: Slot


class Gather(wiring.Component):
    """Collects a transform's coefficients in a ring and reads pairs k, h - k, in `operation_order`; passes other
    quarters on.

    Positions of the upper half of a transform are stored with the halves of a quarter exchanged: then the four words of
    every pair, positions 2k - 1, 2k, n - 2k - 1 and n - 2k, are in four banks, and one cycle reads them. Throughput: a
    quarter per cycle.

    Members
    -------
    i : stream of Quarter, In
    o : stream of Gathered, Out
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(Quarter)), "o": Out(stream.Signature(Gathered))})

    def elaborate(self, platform):
        m = Module()
        quarter = self.i.payload
        # A transform is announced when it is complete, anything else at once.
        m.submodules.ready = ready = fifo.SyncFIFOBuffered(width=len(Value.cast(quarter.plain)), depth=DEPTH)
        level = Signal(range(DEPTH + 1))
        head = Signal(6)
        base = Signal(6)
        place = Signal(5)
        size = quarter.plain.size
        last_place = Signal(5)
        m.d.comb += last_place.eq((Const(4, 6) << size) - 1)
        complete = ~quarter.plain.rfft | (place == last_place)
        write = Signal()
        m.d.comb += [
            self.i.ready.eq((level != DEPTH) & ready.w_rdy),
            write.eq(self.i.valid & self.i.ready),
            ready.w_en.eq(write & complete),
            ready.w_data.eq(quarter.plain),
        ]
        with m.If(write):
            m.d.sync += [head.eq(head + 1), place.eq(Mux(complete, 0, place + 1))]
        upper = quarter.plain.rfft & Array(place[1 + k] for k in range(4))[size]

        segment = Plain(ready.r_data)
        index = Signal(5)
        room = Signal()
        occupied = Signal()
        slot = Signal(Slot, reset_less=True)
        final = ~segment.rfft | (index == (Const(4, 6) << segment.size) - 1)
        read = Signal()
        freed = Mux(segment.rfft, Const(4, 6) << segment.size, 1)
        m.d.comb += [
            room.eq(~occupied | self.o.ready),
            read.eq(ready.r_rdy & room),
            ready.r_en.eq(read & final),
            self.o.valid.eq(occupied),
            self.o.payload.slot.eq(slot),
        ]
        with m.If(room):
            m.d.sync += occupied.eq(read)
        with m.If(read):
            m.d.sync += [index.eq(Mux(final, 0, index + 1)), slot.plain.eq(segment), slot.index.eq(index)]
        with m.If(read & final):
            m.d.sync += base.eq(base + freed)
        m.d.sync += level.eq(level + write - Mux(read & final, freed, 0))

        # Where the words of pair k are: banks 0 and 1 (2 and 3 for an odd k: the other way round) count up and down.
        pair = Signal(5)
        m.d.comb += pair.eq(Array(Const(k, 5) for k in operation_order(4 * MAX_QUARTERS))[index])
        half, odd = pair[1:], pair[0]
        quarters = Const(4, 6) << segment.size
        down = quarters - 1 - half
        middle = quarters >> 1
        zero = pair == 0
        offsets = [
            Mux(odd, down, half),
            Mux(odd, half, down),
            Mux(odd, half, Mux(zero, middle, down + 1)),
            Mux(odd, down, Mux(zero, middle - 1, half - 1)),
        ]
        words = []
        for bank in range(4):
            m.submodules[f"bank{bank}"] = ram = memory.Memory(shape=INPUT_BITS, depth=DEPTH, init=[])
            port, out = ram.write_port(), ram.read_port()
            m.d.comb += [
                port.addr.eq(head),
                port.data.eq(Mux(upper, quarter.data[bank ^ 2], quarter.data[bank])),
                port.en.eq(write),
                out.addr.eq(base + Mux(segment.rfft, offsets[bank], 0)),
                out.en.eq(read),
            ]
            words.append(out.data)
        was_odd = Signal(reset_less=True)
        was_zero = Signal(reset_less=True)
        with m.If(read):
            m.d.sync += [was_odd.eq(odd), was_zero.eq(zero)]
        even = Cat(words[3], words[0], words[1], words[2])
        first = Cat(words[0], words[1], words[3], words[2])
        uneven = Cat(words[1], words[2], words[3], words[0])
        m.d.comb += self.o.payload.data.eq(
            Mux(slot.plain.rfft, Mux(was_odd, uneven, Mux(was_zero, first, even)), Cat(*words))
        )
        return m

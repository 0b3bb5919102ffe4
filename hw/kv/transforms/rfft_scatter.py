"""Results of the inverse real DFT put back in channel order."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.kv.transforms.rfft_layouts import MAX_QUARTERS, Slot

__all__ = ["Ordered", "Scatter", "Unordered"]

DEPTH = 2 * MAX_QUARTERS


class Unordered(data.Struct):
    """Four FP16 results as the levels give them; ``overflow``: one of them was beyond FP16; ``marked``: some
    coefficient was bad."""

    data: data.ArrayLayout(16, 4)
    overflow: 1
    marked: 1
    slot: Slot


class Ordered(data.Struct):
    """Four neighbouring elements; ``overflow``: some result of their transform was beyond FP16; ``marked``: some
    coefficient of it was bad."""

    data: data.ArrayLayout(16, 4)
    overflow: 1
    marked: 1


class Scatter(wiring.Component):
    """Writes results to their places in a ring, reads them in order. Throughput: four elements per cycle.

    Results come n/4 apart, elements leave as neighbours: bank = (j mod 4) xor (j div n/4) serves both without a
    conflict. A transform leaves when its last result is in.

    Members
    -------
    i : stream of Unordered, In
    o : stream of Ordered, Out
    """

    def __init__(self):
        super().__init__({"i": In(stream.Signature(Unordered)), "o": Out(stream.Signature(Ordered))})

    def elaborate(self, platform):
        m = Module()
        got = self.i.payload
        rfft, size, index = got.slot.plain.rfft, got.slot.plain.size, got.slot.index
        m.submodules.ready = ready = fifo.SyncFIFOBuffered(width=5, depth=DEPTH)
        level = Signal(range(DEPTH + 1))
        base = Signal(6)
        tail = Signal(6)
        taken = Signal(6)
        last_index = Signal(5)
        m.d.comb += [
            taken.eq(Mux(rfft, Const(4, 6) << size, 1)),
            last_index.eq(taken - 1),
        ]
        first, final = ~rfft | (index == 0), ~rfft | (index == last_index)
        write = Signal()
        freed = Signal()
        spoiled = Signal()
        overflow = got.overflow | (spoiled & ~first)
        m.d.comb += [
            self.i.ready.eq(ready.w_rdy & (~first | (level + taken <= DEPTH))),
            write.eq(self.i.valid & self.i.ready),
            ready.w_en.eq(write & final),
            ready.w_data.eq(Cat(rfft, size, overflow, got.marked)),
        ]
        with m.If(write):
            m.d.sync += spoiled.eq(overflow)
        with m.If(write & final):
            m.d.sync += base.eq(base + taken)
        m.d.sync += level.eq(level + Mux(write & first, taken, 0) - freed)

        # The results of operation p are j = rev(p) + 0, 1, 2, 3 times n/4.
        reversed_index = Signal(5)
        with m.Switch(size):
            for code in range(4):
                with m.Case(code):
                    m.d.comb += reversed_index.eq(Cat(index[k] for k in reversed(range(2 + code))))
        low, high = reversed_index[:2], reversed_index[2:]

        # Reading.
        segment = ready.r_data
        place = Signal(5)
        done = ~segment[0] | (place == (Const(4, 6) << segment[1:3]) - 1)
        occupied = Signal()
        room = Signal()
        read = Signal()
        m.d.comb += [
            room.eq(~occupied | self.o.ready),
            read.eq(ready.r_rdy & room),
            ready.r_en.eq(read & done),
            freed.eq(read),
            self.o.valid.eq(occupied),
        ]
        with m.If(room):
            m.d.sync += occupied.eq(read)
        turn = Signal(2, reset_less=True)
        flags = Signal(2, reset_less=True)
        with m.If(read):
            m.d.sync += [
                tail.eq(tail + 1),
                place.eq(Mux(done, 0, place + 1)),
                turn.eq(Mux(segment[0], (place >> segment[1:3])[:2], 0)),
                flags.eq(segment[3:]),
            ]
        words = []
        for bank in range(4):
            m.submodules[f"bank{bank}"] = ram = memory.Memory(shape=16, depth=DEPTH, init=[])
            port, out = ram.write_port(), ram.read_port()
            element = Signal(2, name=f"element{bank}")
            m.d.comb += [
                element.eq(bank ^ Mux(rfft, low, 0)),
                port.addr.eq(base + Mux(rfft, (element << size) + high, 0)),
                port.data.eq(Array(got.data[k] for k in range(4))[element]),
                port.en.eq(write),
                out.addr.eq(tail),
                out.en.eq(read),
            ]
            words.append(out.data)
        m.d.comb += [self.o.payload.data[k].eq(Array(words)[turn ^ k]) for k in range(4)]
        m.d.comb += [self.o.payload.overflow.eq(flags[0]), self.o.payload.marked.eq(flags[1])]
        return m

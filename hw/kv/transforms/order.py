"""Elements back in channel order: a buffer of two tokens, filled in storage order, emptied as the mask says."""

from amaranth import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.ripple import above, add, increment
from hw.kv.layouts import TOKEN_BITS, Elements
from hw.kv.packet.masks import BlockNote
from hw.kv.transforms.merge import ChannelMerge, exceeds, ones
from spec.kv_config import KvEngineConfig

__all__ = ["ChannelOrder"]

GROUP = 8
"""Segments are whole groups of 8 channels."""


class _Note(data.Struct):
    """What is kept beside a token; ``groups`` of its last beat."""

    token: TOKEN_BITS
    marked: 1
    groups: 4


class ChannelOrder(wiring.Component):
    """Puts every token's elements in channel order (docs/kv-engine.md C1), marked ones too: marks are a token's.

    One memory per lane holds two tokens, one being filled while the other leaves. Segment 0 is stored from the lowest
    place on upwards, segment 1 from the highest downwards, places going round the banks: so the elements of one beat
    lie one in each bank, in storage order and, whatever the mask, in channel order
    (:class:`hw.kv.transforms.merge.ChannelMerge`).

    Throughput: a beat per cycle. Latency: a token and 1 cycle.

    Members
    -------
    i, o : stream of Elements(lanes), In, Out
    note, entered : BlockNote, In; Out
        Of the block whose beats enter; its last one does.
    mask : In
        Of the beat that leaves the memories next, number ``beat``.
    beat, next_beat, left : Out
        ``next_beat``: what ``beat`` is in the next cycle. The block's last beat leaves the memories.
    read : Out
        A beat leaves the memories: it is at ``o`` from the next cycle on.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        elements = stream.Signature(Elements(config.lanes))
        self.row_bits = ceil_log2(config.max_channels // config.lanes)
        super().__init__(
            {
                "i": In(elements),
                "o": Out(elements),
                "note": In(BlockNote),
                "entered": Out(1),
                "mask": In(config.lanes),
                "beat": Out(self.row_bits),
                "next_beat": Out(self.row_bits),
                "left": Out(1),
                "read": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, rows = self.config.lanes, self.row_bits
        tag, out = self.i.payload.tag, self.o.payload.tag
        # Of either token: it is whole; number of its last beat; it is the block's last.
        whole = Array(Signal(name=f"whole{k}") for k in range(2))
        ends = Array(Signal(rows, name=f"end{k}", reset_less=True) for k in range(2))
        lasts = Array(Signal(name=f"last{k}", reset_less=True) for k in range(2))

        fill = Signal()
        taken = Signal()
        place = Signal(rows)
        m.d.comb += [
            self.i.ready.eq(~whole[fill]),
            taken.eq(self.i.valid & self.i.ready),
            self.entered.eq(taken & tag.last),
        ]
        with m.If(taken):
            m.d.sync += place.eq(increment(m, place) & (~tag.token_last).replicate(rows))
            with m.If(tag.token_last):
                m.d.sync += [fill.eq(~fill), whole[fill].eq(1), ends[fill].eq(place), lasts[fill].eq(tag.last)]
        words, addresses = self._store(m, place)

        turn = Signal()
        end = Signal()
        full = Signal()
        step = ~full | self.o.ready
        m.d.comb += [
            self.read.eq(whole[turn] & step),
            end.eq(self.beat == ends[turn]),
            self.left.eq(self.read & end & lasts[turn]),
            self.next_beat.eq(Mux(self.read, increment(m, self.beat) & (~end).replicate(rows), self.beat)),
        ]
        m.d.sync += self.beat.eq(self.next_beat)
        with m.If(step):
            m.d.sync += full.eq(self.read)
        token_last = Signal(reset_less=True)
        last = Signal(reset_less=True)
        beat = Signal(rows, reset_less=True)
        with m.If(self.read):
            m.d.sync += [token_last.eq(end), last.eq(self.left), beat.eq(self.beat)]
            with m.If(end):
                m.d.sync += [turn.eq(~turn), whole[turn].eq(0)]
        wanted, first = self._places(m, end)

        m.submodules.merge = merge = ChannelMerge(lanes)
        mask = Signal(lanes, reset_less=True)
        begin = Signal(ceil_log2(lanes), reset_less=True)
        m.d.comb += [merge.mask.eq(mask), merge.first.eq(begin)]
        with m.If(self.read):
            m.d.sync += [mask.eq(self.mask), begin.eq(first)]
        for k in range(lanes):
            m.submodules[f"bank{k}"] = bank = memory.Memory(shape=16, depth=2 << rows, init=[])
            write, read = bank.write_port(), bank.read_port()
            m.d.comb += [
                write.addr.eq(Cat(addresses[k], fill)),
                write.data.eq(words[k]),
                write.en.eq(taken),
                read.addr.eq(Cat(wanted[k], turn)),
                read.en.eq(self.read),
                merge.banks[k].eq(read.data),
            ]
        m.submodules.notes = notes = memory.Memory(shape=_Note, depth=2, init=[])
        write, read = notes.write_port(), notes.read_port()
        all_groups = (1 << max(1, lanes // GROUP)) - 1
        m.d.comb += [
            write.addr.eq(fill),
            write.data.token.eq(tag.token),
            write.data.marked.eq(tag.marked),  # marks stay: that of the last beat is the token's
            write.data.groups.eq(tag.groups),
            write.en.eq(taken),
            read.addr.eq(turn),
            read.en.eq(self.read),
            out.token.eq(read.data.token),
            out.marked.eq(read.data.marked),
            out.groups.eq(Mux(token_last, read.data.groups, all_groups)),
            out.token_last.eq(token_last),
            out.last.eq(last),
            out.channel.eq(beat << ceil_log2(lanes)),
            self.o.payload.data.eq(merge.o),
            self.o.valid.eq(full),
        ]
        return m

    def _store(self, m, place):
        """Word and row for each bank, of beat ``place`` in storage order.

        Place p of segment 1 is the (p - n0)-th from the top. In beats of that segment the lanes are reversed, and moved
        up by the groups of n0 that fill no beat.
        """
        lanes, rows = self.config.lanes, self.row_bits
        words, note = self.i.payload.data, self.note
        size = Signal(5)  # of segment 0, in groups of 8
        m.d.comb += size.eq(increment(m, Cat(note.segment0, C(0, 1))))
        if lanes < GROUP:
            here, moved = Cat(C(0, 1), size), size[:0]
        else:
            here, moved = size[ceil_log2(lanes // GROUP) :], size[: ceil_log2(lanes // GROUP)]
        upper = Signal(rows)
        lower = Signal(rows)
        m.d.comb += [
            upper.eq(add(m, here[:rows], ~place, 1)),
            lower.eq(add(m, here[:rows], ~place)),
        ]
        turned = [words[lanes - 1 - k] for k in range(lanes)]
        for bit in range(len(moved)):
            turned = [Mux(moved[bit], turned[(k - (GROUP << bit)) % lanes], turned[k]) for k in range(lanes)]
        placed, addresses = [], []
        for group in range(max(1, lanes // GROUP)):
            number = self._group(place, group)
            second = Signal(name=f"second{group}")
            m.d.comb += second.eq(above(m, number, note.segment0))
            row = Mux(second, Mux(exceeds(moved, group), upper, lower), place)
            for k in range(group * GROUP, min(lanes, (group + 1) * GROUP)):
                placed.append(Mux(second, turned[k], words[k]))
                addresses.append(row)
        return placed, addresses

    def _group(self, place, group):
        """Number of the 8 channels of group ``group`` of a beat; 4 bits."""
        lanes = self.config.lanes
        low = ceil_log2(max(1, lanes // GROUP))
        number = Cat(*(C(group >> bit & 1, 1) for bit in range(low)), place[1:] if lanes < GROUP else place)
        return Cat(number, C(0, 4 - len(number)))

    def _places(self, m, end):
        """Row for each bank of the beat that leaves, and the bank where its segment 0 begins."""
        lanes, rows = self.config.lanes, self.row_bits
        bits = ceil_log2(lanes)
        before = Signal(rows + bits)  # elements of segment 0 in the token's beats before this one
        count = ones(m, list(self.mask))[0, lanes]
        with m.If(self.read):
            m.d.sync += before.eq(add(m, before, count) & (~end).replicate(rows + bits))
        first, row = before[:bits], before[bits:]
        stop = Signal(bits + 1)
        following = Signal(rows)
        under = Signal(rows)
        over = Signal(rows)
        m.d.comb += [
            stop.eq(add(m, first, count)),
            following.eq(increment(m, row)),
            under.eq(add(m, row, ~self.beat, 1)),
            over.eq(add(m, row, ~self.beat)),
        ]
        wanted = []
        for k in range(lanes):
            # Banks from `first` up to `stop`, round: segment 0.
            reached, inside = Signal(name=f"reached{k}"), Signal(name=f"inside{k}")
            address = Signal(rows, name=f"address{k}")
            m.d.comb += [
                reached.eq(~exceeds(first, k)),
                inside.eq(Mux(stop[bits], reached | exceeds(stop[:bits], k), reached & exceeds(stop[:bits], k))),
                address.eq(Mux(inside, Mux(reached, row, following), Mux(reached, over, under))),
            ]
            wanted.append(address)
        return wanted, first

"""Where the front stands before the rows: bits of mask and bitmap, whose ones are counted, then channels."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.ripple import add, increment
from hw.kv.layouts import Header

__all__ = ["PrefixCount"]


class PrefixCount(wiring.Component):
    """Counts a mask's or bitmap's ones, two bits per cycle but one if both are set; then the channels.

    Members
    -------
    slice, header : Header, In
        The 16 bits at work; of their block.
    restart : In
        Mask, bitmap or metadata begin.
    scan, masking : In
        Look at the next bits; they are the mask's.
    channel_done : In
        Go on to the next channel.
    count : Out
        Number of the bit at work, or of the channel.
    found, row, offset : Out
        ``scan`` finds a one: number ``row``, bit ``offset``.
    complete : Out
        There have been as many as the header says.
    used, finished : Out
        The slice is looked through with this cycle; mask or bitmap are.
    """

    def __init__(self):
        super().__init__(
            {
                "slice": In(16),
                "header": In(Header),
                "restart": In(1),
                "scan": In(1),
                "masking": In(1),
                "channel_done": In(1),
                "count": Out(9),
                "found": Out(1),
                "row": Out(7),
                "offset": Out(9),
                "complete": Out(1),
                "used": Out(1),
                "finished": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        header, scan = self.header, self.scan
        # ``ones`` starts at -1, as rows and channels are stored.
        count = Signal(9, reset_less=True)
        ones = Signal(8, reset_less=True)
        pair = Signal(2)
        both = Signal()
        scanned = Signal()
        expected = Mux(self.masking, Cat(C(7, 3), header.segment0), header.rows)
        last_word = Mux(self.masking, header.channels[3], add(m, header.span[:3], C(7, 3))[:3])
        counted = increment(m, ones, self.found)
        m.d.comb += [
            self.count.eq(count),
            pair.eq(self.slice.word_select(count[1:4], 2) & Cat(~count[0], 1)),
            both.eq(pair.all()),
            self.found.eq(scan & pair.any()),
            self.complete.eq(ones == expected),
            scanned.eq(count[1:6].all() & (count[6:] == last_word)),
            self.row.eq(counted),
            self.offset.eq(Cat(~pair[0], count[1:])),
            self.used.eq(count[1:4].all() & ~both),
            self.finished.eq(scanned & ~both),
        ]
        with m.If(self.restart):
            m.d.sync += [count.eq(0), ones.eq(-1)]
        with m.Else():
            with m.If(scan | self.channel_done):
                m.d.sync += count.eq(
                    Cat(
                        Mux(scan, both, ~count[0]),
                        increment(m, count[1:], Mux(scan, ~both, count[0])),
                    )
                )
            with m.If(scan):
                m.d.sync += ones.eq(counted)
        return m

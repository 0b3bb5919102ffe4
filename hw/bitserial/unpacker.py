"""Row packets to beats of codes: headers parsed, codes sliced, every check of the packet made."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.bitserial.decoder import CodeBeat
from spec import checks
from spec.datatypes import MAX_CODE_BITS, Datatype
from spec.errors import WeightError
from spec.packet import GROUP_HEADER, GROUP_HEADER_BITS, GROUP_SIZES, ROW_HEADER, ROW_HEADER_BITS, WORD_BITS

__all__ = ["PACKET_ERRORS", "RowBeat", "RowUnpacker", "WeightWord"]

PACKET_ERRORS = 4
"""Error bits that a packet alone can show: the lowest of :class:`spec.errors.WeightError`."""


class WeightWord(data.Struct):
    """One 64-bit word of a row packet; ``last`` on the packet's final word."""

    data: WORD_BITS
    last: 1


class RowBeat(data.StructLayout):
    """A beat of a row: the codes, its group's scaling factor, and where it stands.

    Members: ``code`` (CodeBeat), ``scale``, ``group_last``, ``row_last``, ``errors``. A beat with errors ends a packet
    that was given up; it has both ``last`` flags and no lanes.
    """

    def __init__(self, lanes):
        super().__init__(
            {
                "code": CodeBeat(lanes),
                "scale": 8,
                "group_last": 1,
                "row_last": 1,
                "errors": PACKET_ERRORS,
            }
        )


def _fields(header):
    return data.FlexibleLayout(
        max(field.offset + field.width for field in header),
        {field.name: data.Field(field.width, field.offset) for field in header},
    )


class RowUnpacker(wiring.Component):
    """Parses row packets (layout: ``spec.packet``) into beats of ``lanes`` codes.

    Throughput is a beat per cycle, group headers included: a group's header is taken in the same cycle as its first
    codes. A row header takes a cycle of its own. Latency 3 cycles from a packet's first word to its first beat.

    Every packet gives exactly one beat with ``row_last``. On a reserved field, wrong parity, wrong short flag or wrong
    length, the packet is drained to its last word and that beat carries the error; the next packet is parsed afresh.

    Parameters
    ----------
    lanes : int
        Codes per beat: 2, 4, 8, 16 or 32.

    Members
    -------
    i : stream of WeightWord, In
    o : stream of RowBeat, Out

    Raises
    ------
    ValueError
        For lanes that are not supported.
    """

    def __init__(self, lanes=4):
        checks.power_of_two("lanes", lanes, 2, 32)
        self.lanes = lanes
        super().__init__({"i": In(stream.Signature(WeightWord)), "o": Out(stream.Signature(RowBeat(lanes)))})

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes
        unit = min(lanes, GROUP_HEADER_BITS)  # every field starts at a multiple of that many bits
        word_units, header_units = WORD_BITS // unit, GROUP_HEADER_BITS // unit
        most = GROUP_HEADER_BITS + MAX_CODE_BITS * lanes  # bits taken at once
        slots = -(-(WORD_BITS - unit + most) // WORD_BITS)
        words = [Signal(WORD_BITS, name=f"word{k}", reset_less=True) for k in range(slots)]
        lasts = [Signal(name=f"last{k}", reset_less=True) for k in range(slots)]
        valids = Signal(slots)
        position = Signal(range(word_units))
        pops = Signal(range(slots + 1))  # words done with in this cycle
        next_position = Signal(range(word_units))

        # Words shift down as they are used up; a new one enters at the first free slot.
        kept = Signal(slots)
        m.d.comb += [kept.eq(valids >> pops), self.i.ready.eq(~valids[-1])]
        entering = self.i.valid & self.i.ready
        free = ~kept & Cat(C(1, 1), kept[:-1])
        m.d.sync += [valids.eq(Mux(entering, kept | free, kept)), position.eq(next_position)]
        for k in range(slots):
            with m.If(entering & free[k]):
                m.d.sync += [words[k].eq(self.i.payload.data), lasts[k].eq(self.i.payload.last)]
            with m.Else(), m.Switch(pops):
                for count in range(1, slots - k):
                    with m.Case(count):
                        m.d.sync += [words[k].eq(words[k + count]), lasts[k].eq(lasts[k + count])]
                with m.Default():
                    pass

        # Words of this packet that are here: up to the first last one.
        mine, ended = [valids[0]], [valids[0] & lasts[0]]
        for k in range(1, slots):
            mine.append(valids[k] & ~ended[-1])
            ended.append(ended[-1] | (mine[-1] & lasts[k]))
        complete = ended[-1]
        here = Signal(range(slots * word_units + 1))  # in units, from the start of the first word
        m.d.comb += here.eq(sum(mine) * word_units)
        window = Signal(most)
        shifted = Cat(words) >> Cat(C(0, ceil_log2(unit)), position)
        m.d.comb += window.eq(shifted)

        left = Signal(15)  # weights of the row still to come
        beats_left = Signal(range(GROUP_SIZES[-1] // lanes))  # beats of the group after this one
        group_beats = Signal(range(GROUP_SIZES[-1] // lanes))  # beats of a full group, minus 1
        starting = Signal()  # this beat is a group's first
        parity = Signal()
        group = Signal(_fields(GROUP_HEADER), reset_less=True)
        errors = Signal(PACKET_ERRORS)

        current = Signal.like(group)
        raw = Signal(MAX_CODE_BITS * lanes)
        with m.If(starting):
            m.d.comb += [current.eq(window[:GROUP_HEADER_BITS]), raw.eq(window[GROUP_HEADER_BITS:])]
        with m.Else():
            m.d.comb += [current.eq(group), raw.eq(window)]

        beat = Signal(RowBeat(lanes))
        known = Signal()
        taken = Signal(range(most // unit + 1))  # units of this beat, header included
        code_parity = Signal()
        with m.Switch(current.datatype):
            for datatype in Datatype:
                bits = datatype.bits
                with m.Case(datatype):
                    m.d.comb += [
                        known.eq(1),
                        taken.eq(bits * lanes // unit + Mux(starting, header_units, 0)),
                        code_parity.eq(raw[: bits * lanes].xor()),
                    ]
                    for lane in range(lanes):
                        m.d.comb += beat.code.codes[lane].eq(raw[lane * bits : (lane + 1) * bits])
            with m.Default():
                m.d.comb += taken.eq(header_units)
        end = Signal(range(word_units + most // unit))
        m.d.comb += end.eq(position + taken)
        ends_here = Signal()  # this beat's last bit lies in the packet's last word
        end_words = Signal(range(slots + 1))  # words up to the one that holds it
        for k in reversed(range(slots)):
            with m.If(end <= (k + 1) * word_units):
                m.d.comb += [ends_here.eq(mine[k] & lasts[k]), end_words.eq(k + 1)]
        row_last = left <= lanes
        group_last = row_last | (Mux(starting, group_beats, beats_left) == 0)
        is_short = Mux(group_beats == GROUP_SIZES[0] // lanes - 1, left < GROUP_SIZES[0], 0)
        for size in GROUP_SIZES[1:]:
            is_short = Mux(group_beats == size // lanes - 1, left < size, is_short)
        parity_now = parity ^ code_parity ^ (starting & window[:GROUP_HEADER_BITS].xor())
        m.d.comb += [
            beat.code.datatype.eq(current.datatype),
            beat.code.select.eq(current.select),
            beat.scale.eq(current.scale),
            beat.group_last.eq(group_last),
            beat.row_last.eq(row_last),
        ]
        for lane in range(lanes):
            m.d.comb += beat.code.mask[lane].eq(left > lane)

        found = Signal(PACKET_ERRORS)
        cut_off = complete & (end == here) & ~row_last  # the packet's last bit is this beat's, the row's is not
        header_seen = ~starting | (here - position >= header_units)
        with m.If(starting & header_seen & ~known):
            m.d.comb += found.eq(WeightError.RESERVED_HEADER)
        with m.Elif((end > here) | cut_off | (starting & (current.short != is_short)) | (row_last & ~ends_here)):
            m.d.comb += found.eq(WeightError.WEIGHT_LENGTH)
        with m.Elif(group_last & parity_now):
            m.d.comb += found.eq(WeightError.PARITY)
        # Enough bits to judge: all that the beat takes, or all that will ever come.
        decidable = valids[0] & ((end <= here) & header_seen | complete)

        out_full = Signal()
        out = Signal(RowBeat(lanes), reset_less=True)
        m.d.comb += [self.o.valid.eq(out_full), self.o.payload.eq(out)]
        room = ~out_full | self.o.ready
        with m.If(self.o.ready):
            m.d.sync += out_full.eq(0)

        m.d.comb += next_position.eq(position)
        with m.FSM():
            with m.State("ROW"):
                row = data.View(_fields(ROW_HEADER), words[0][:ROW_HEADER_BITS])
                sizes = [size // lanes - 1 for size in GROUP_SIZES]
                m.d.sync += [
                    left.eq(row.length + 1),
                    parity.eq(words[0][:ROW_HEADER_BITS].xor()),
                    starting.eq(1),
                ]
                with m.If(valids[0]):
                    with m.Switch(row.group_size):
                        for code, size in enumerate(sizes):
                            with m.Case(code):
                                m.d.sync += group_beats.eq(size)
                                m.d.comb += next_position.eq(ROW_HEADER_BITS // unit)
                                m.next = "GROUP"
                        with m.Default():
                            m.d.sync += errors.eq(WeightError.RESERVED_HEADER)
                            m.next = "DRAIN"
            with m.State("GROUP"):
                with m.If(decidable & found.any()):
                    m.d.sync += errors.eq(found)
                    m.next = "DRAIN"
                with m.Elif(decidable & room):
                    m.d.sync += [
                        out.eq(beat),
                        out_full.eq(1),
                        left.eq(left - lanes),
                        parity.eq(parity_now & ~group_last),
                        starting.eq(group_last),
                        group.eq(current),
                        beats_left.eq(Mux(starting, group_beats, beats_left) - 1),
                    ]
                    m.d.comb += [next_position.eq(end), pops.eq(end >> ceil_log2(word_units))]
                    with m.If(row_last):
                        m.d.comb += [next_position.eq(0), pops.eq(end_words)]
                        m.next = "ROW"
            with m.State("DRAIN"):
                m.d.comb += [pops.eq(valids[0]), next_position.eq(0)]
                with m.If(valids[0] & lasts[0]):
                    m.next = "ABORT"
            with m.State("ABORT"):
                with m.If(room):
                    m.d.sync += [
                        out.eq(0),
                        out.group_last.eq(1),
                        out.row_last.eq(1),
                        out.errors.eq(errors),
                        out_full.eq(1),
                    ]
                    m.next = "ROW"
        return m

"""A block's scales taken into the query: integers of one exponent, in the tables that the dot product wants."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit, booth_product, prefix_sum, ripple_sum
from hw.attention.layouts import UNIT_BITS, Job, Layout, PacketEntry
from hw.attention.score.dot import QUAD, TableWrite
from hw.attention.score.query import round_shift
from hw.kv.layouts import PrefixWord
from hw.kv.packet.metadata import MetadataReader
from spec.attention import AttentionConfig, AttentionError
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvMetadata

__all__ = ["FoldUnit"]

SCALE_BIAS = 26
"""r + 26 is never negative: FP16 scales have r >= -24, integer ones E >= -24, K2 one less."""


class FoldUnit(wiring.Component):
    """Equations F1, F2 and F4 of docs/attention.md, and whether a block is good up to its rows.

    Scales go through a short memory, from which a multiplier takes them one per cycle as soon as the common exponent is
    known: at once where scales are integers under the header's exponent, after the last one where they are FP16.
    Four of them make a quad, whose 8 table entries are written while the next four come. A block of D = 64 takes about
    90 cycles from its header to the job, exact tokens 75.

    Members
    -------
    entries : stream of PacketEntry, In
    words : stream of PrefixWord, In
    there, release, address, exact, value, bits, exponent, poison, layout
        The query unit's.
    job : stream of Job, Out
        What follows in the rows, when its tables have been written; the other set's are free once it is taken.
    write, write_valid : TableWrite, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "entries": In(stream.Signature(PacketEntry)),
                "words": In(stream.Signature(PrefixWord)),
                "there": In(1),
                "release": Out(1),
                "address": Out(range(config.channels)),
                "exact": Out(1),
                "value": In(signed(config.transformed_bits)),
                "bits": In(data.ArrayLayout(range(config.transformed_bits), 2)),
                "exponent": In(5),
                "poison": In(1),
                "layout": In(Layout),
                "job": Out(stream.Signature(Job(config))),
                "write": Out(TableWrite(config)),
                "write_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, channels = self.config, self.config.channels
        entry = self.entries.payload
        header = entry.header
        m.submodules.reader = reader = MetadataReader(config.parser)
        wiring.connect(m, wiring.flipped(self.words), reader.words)
        m.d.comb += [
            *(reader.blocks.payload[name].eq(entry[name]) for name in ("header", "error", "bare", "odd")),
            reader.blocks.valid.eq(self.entries.valid & ~entry.exact),
        ]
        halved = Signal()
        m.d.comb += halved.eq(header.format == KvFormat.K2)

        # Scales as they come.
        scale_layout = data.StructLayout({"g": 11, "r": 6} | ({"minimum": 16} if config.minima else {}))
        m.submodules.scales = scales = memory.Memory(shape=scale_layout, depth=channels, init=[])
        write, read = scales.write_port(), scales.read_port()
        record = reader.records.payload
        written = Signal(range(channels + 1))
        largest = Signal(5)
        finite = Signal(5)
        code = Mux(record.segment, header.exponent1, header.exponent0)
        transformed = [header.transform0 != 0, header.transform1 != 0]
        is_integer = Mux(record.segment, transformed[1], transformed[0])
        m.d.comb += [
            reader.records.ready.eq(1),
            finite.eq(record.exponent | ~record.exponent.any()),
            write.addr.eq(written),
            write.data.g.eq(record.significand),
            # Integers count from E = code - 24, FP16's fields from max(exponent, 1) - 25.
            write.data.r.eq(
                Mux(is_integer, code + (SCALE_BIAS - 24), finite + (SCALE_BIAS - 25)) - (halved & ~record.segment)
            ),
            write.en.eq(reader.records.valid),
            read.en.eq(1),
        ]
        with m.If(reader.records.valid):
            m.d.sync += written.eq(written + 1)
            with m.If(~record.segment & (finite > largest)):
                m.d.sync += largest.eq(finite)
        lowest = Signal(5)
        minimum = record.minimum
        if config.minima:
            m.d.comb += write.data.minimum.eq(minimum)
            field = Cat(minimum[10] | ~minimum[10:15].any(), minimum[11:15])
            with m.If(reader.records.valid & ~record.segment & (field > lowest)):
                m.d.sync += lowest.eq(field)
        # In a two-segment block without transforms, segment 1's scales are FP16 too.
        largest1 = Signal(5)
        with m.If(reader.records.valid & record.segment & (finite > largest1)):
            m.d.sync += largest1.eq(finite)

        minima = Signal()  # this pass is F3's
        top = self._top(m, header, halved, transformed, (largest, largest1))
        if config.minima:
            room = Signal(6)
            need = self.bits[0] + 11
            m.d.comb += room.eq(Mux(need > config.fold_bits - 1, need, config.fold_bits - 1))
            plain, top = top, Signal(7, name="top_here")
            m.d.comb += top.eq(Mux(minima, lowest + (SCALE_BIAS - 25) + room, plain))
        awaited = Signal()  # FP16 scales without a transform: the exponent is known after the last one
        two = header.segment0 != header.channels
        fp16 = header.metadata == KvMetadata.FP16
        m.d.comb += awaited.eq(fp16 & ~entry.exact & (~transformed[0] | (two & ~transformed[1])))

        mismatch = self._layout_check(m, reader, header, two)

        # Positions through the multiplier: read, multiply, shift, pair.
        position = Signal(range(channels + 1))
        count = Cat(C(0, 3), header.channels + 1)
        exact_count = Cat(C(0, 3), self.layout.channels + 1)
        limit = Signal(range(channels + 1))
        first_count = Cat(C(0, 3), header.segment0 + 1)
        m.d.comb += limit.eq(Mux(entry.exact, exact_count, Mux(minima, first_count, count)))
        issue = Signal()
        busy = Signal()
        known = Signal()
        exists = position < limit
        verdict = Signal()
        m.d.comb += [
            known.eq((~awaited & ~minima) | (written == count)),
            # Padding positions need no scale; a block cut short never gets its scales but a verdict.
            issue.eq(busy & (entry.exact | ~exists | (known & (position < written)) | verdict)),
            self.address.eq(position),
            self.exact.eq(entry.exact),
            read.addr.eq(position),
        ]
        total = Signal(signed(config.constant_bits))
        counted = entry.exact | (position < first_count)
        which = Signal()
        done = self._multiply(m, issue, position, exists, counted, read.data, top, minima, total, which)

        negated = add_bit(m, ~total.as_unsigned(), C(1, 1), "total_negated")
        job = self.job.payload
        groups0 = Mux(header.format == KvFormat.K1, 0, header.segment0 + 1)
        error = Signal(4)
        bare = Signal()
        unit = Signal(UNIT_BITS)
        constant_unit = Signal(UNIT_BITS, reset_less=True)
        constant = Signal.like(total, reset_less=True)
        if config.minima:
            m.d.comb += [job.constant.eq(constant), job.constant_unit.eq(constant_unit)]
        m.d.comb += [
            job.rows.groups.eq(Mux(entry.exact, self.layout.channels, header.channels) + 1),
            job.rows.groups0.eq(Mux(entry.exact, self.layout.channels + 1, groups0)),
            job.rows.rows.eq(header.rows),
            job.rows.odd.eq(entry.odd & ~entry.exact),
            job.rows.exact.eq(entry.exact),
            job.rows.final.eq(entry.final),
            job.rows.bare.eq(bare),
            job.rows.error.eq(error),
            job.set.eq(which),
            job.poison.eq(self.poison),
            # S3 takes the sum of all z off, S2 adds three times that of segment 0.
            job.offset.eq(Mux(entry.exact, negated, Mux(halved, (total << 1) + total, 0))),
            # 2^(M - W + 1) units of the aligned query, 2^(exponent - 13 - Wq); F4 for exact tokens.
            job.unit.eq(unit),
        ]
        m.d.comb += unit.eq(top - (SCALE_BIAS + config.fold_bits - 1 + 13 + config.query_bits) + self.exponent)
        accepted = (header.format == KvFormat.K1) | (header.format == KvFormat.K2S)
        if config.minima:
            accepted = accepted | halved
        flaw = Signal(4)
        m.d.comb += flaw.eq(reader.verdicts.payload.error)
        with m.If(reader.verdicts.payload.error == 0):
            with m.If(~accepted):
                m.d.comb += flaw.eq(KvError.FORMAT)
            with m.Elif(mismatch):
                m.d.comb += flaw.eq(AttentionError.LAYOUT)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [written.eq(0), largest.eq(1), largest1.eq(1), position.eq(0), verdict.eq(0)]
                m.d.sync += [error.eq(0), bare.eq(0), lowest.eq(1), total.eq(0)]
                if config.minima:
                    m.d.sync += [constant.eq(0), minima.eq(halved & ~entry.exact)]
                with m.If(self.entries.valid & self.there):
                    m.d.sync += busy.eq(1)
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += [reader.grant.eq(~verdict), reader.verdicts.ready.eq(~verdict)]
                with m.If(reader.verdicts.valid & ~verdict):
                    m.d.sync += [verdict.eq(1), error.eq(flaw), bare.eq(reader.verdicts.payload.bare)]
                with m.If(issue):
                    m.d.sync += position.eq(position + 1)
                    with m.If(position == channels - 1):
                        m.d.sync += busy.eq(0)
                with m.If(~busy & done & (verdict | entry.exact)):
                    m.next = "JOB"
                    if config.minima:
                        with m.If(minima):
                            m.d.sync += [constant.eq(total), constant_unit.eq(unit)]
                            m.d.sync += [minima.eq(0), total.eq(0), position.eq(0), busy.eq(1)]
                            m.next = "SCALES"
            with m.State("JOB"):
                m.d.comb += self.job.valid.eq(1)
                with m.If(self.job.ready):
                    m.d.comb += [self.entries.ready.eq(1), self.release.eq(entry.final)]
                    m.d.sync += which.eq(~which)
                    m.next = "IDLE"
        return m

    def _top(self, m, header, halved, transformed, largest):
        """M + SCALE_BIAS (F1): the largest over the segments of R + max(b, W - 1 - w); F4's for exact tokens."""
        config = self.config
        fold = config.fold_bits - 1
        tops = []
        for s in range(2):
            width, bound, room = Signal(4, name=f"width{s}"), Signal(6, name=f"bound{s}"), Signal(5, name=f"room{s}")
            result = Signal(7, name=f"top{s}")
            code = header.exponent1 if s else header.exponent0
            fp16 = header.metadata == KvMetadata.FP16
            m.d.comb += width.eq(Mux(header.metadata == KvMetadata.F6, 7, Mux(fp16, 11, 8)))
            m.d.comb += bound.eq(code + (SCALE_BIAS - 24))
            with m.If(fp16 & ~transformed[s]):
                m.d.comb += bound.eq(largest[s] + (SCALE_BIAS - 25))
            m.d.comb += [
                room.eq(Mux(width + self.bits[s] > fold, width + self.bits[s], fold)),
                result.eq(bound + room - (halved if s == 0 else 0)),
            ]
            tops.append(result)
        top = Signal(7)
        two = header.segment0 != header.channels
        with m.If(self.entries.payload.exact):
            m.d.comb += top.eq(SCALE_BIAS + config.query_bits - 1)
        with m.Else():
            m.d.comb += top.eq(Mux(two & (tops[1] > tops[0]), tops[1], tops[0]))
        return top

    def _layout_check(self, m, reader, header, two):
        """Whether the block's layout is another than the query's; right once the metadata have been read."""
        layout = self.layout
        differs = Signal()
        with m.If(reader.start):
            m.d.sync += differs.eq(0)
        with m.Elif(
            reader.mask_strobe
            & (
                reader.byte
                != layout.mask[: self.config.channels].word_select(
                    reader.byte_index[: self.config.channels.bit_length() - 4], 8
                )
            )
        ):
            m.d.sync += differs.eq(1)
        names = ("channels", "segment0", "transform0", "transform1")
        return (differs & two) | Cat(header[name] != layout[name] for name in names).any()

    def _multiply(self, m, issue, position, exists, counted, scale, top, minima, total, which):
        """Memories; product; shift and round; tables, and the sum of those ``counted``. Returns whether all is done."""
        config = self.config
        width = config.fold_bits
        exact = self.exact
        valid = [Signal(name=f"valid{k}") for k in range(1, 4)]
        places = [Signal.like(position, name=f"place{k}", reset_less=True) for k in range(1, 4)]
        real = Signal(reset_less=True)
        counts = counted & exists
        for k in range(3):
            later = Signal(name=f"counts{k}", reset_less=True)
            m.d.sync += later.eq(counts)
            counts = later
        m.d.sync += [valid[0].eq(issue), places[0].eq(position), real.eq(exists)]
        for before, after, place, following in zip(valid, valid[1:], places, places[1:], strict=False):
            m.d.sync += [after.eq(before), following.eq(place)]

        length = config.transformed_bits
        product = Signal(length + 11, reset_less=True)
        below = Signal(reset_less=True)
        size = Signal(length)
        negative = self.value[-1]
        m.d.comb += size.eq(prefix_sum(m, self.value ^ negative.replicate(length), C(0, 1), length, "size", negative))
        amount = Signal(7, reset_less=True)
        factor = Signal(11)
        weight = Signal(6)
        m.d.comb += [factor.eq(Mux(exact, 1, scale.g)), weight.eq(scale.r)]
        flip = Signal(reset_less=True)
        if config.minima:
            with m.If(minima):
                field = scale.minimum[10:15]
                m.d.comb += [
                    factor.eq(Cat(scale.minimum[:10], field.any())),
                    weight.eq((field | ~field.any()) + (SCALE_BIAS - 25)),
                ]
            m.d.sync += flip.eq(minima & scale.minimum[15])
        m.d.sync += [
            product.eq(Mux(real, booth_product(m, size, factor, "scaled"), 0)),
            below.eq(negative),
            # A place that is padding is beyond, whatever is in its scale and its element.
            amount.eq(Mux(exact, config.query_bits - width, top - weight - (width - 1)) | Cat(C(0, 6), ~real)),
        ]
        sign = below ^ flip
        beyond = amount[6]
        floor, up = round_shift(m, product, amount[:6], "fold")
        rounded = add_bit(m, floor[:width], up, "rounded")
        limit = (1 << width - 1) - 1
        clamped = Signal(width - 1)
        m.d.comb += clamped.eq(Mux(rounded[-1], limit, rounded))
        z = Signal(signed(width), reset_less=True)
        signed_here = add_bit(m, Cat(clamped, C(0, 1)) ^ sign.replicate(width), sign, "signed")
        m.d.sync += z.eq(Mux(beyond, 0, signed_here))

        bits = len(total)
        wide = Cat(z, z[-1].replicate(bits))[:bits]
        grown = ripple_sum(m, total.as_unsigned(), wide, bits, "grown")
        with m.If(valid[2] & counts):
            m.d.sync += total.eq(grown)

        building = self._tables(m, z, valid[2], places[2], which)
        return ~(valid[0] | valid[1] | valid[2] | building)

    def _tables(self, m, z, valid, place, which):
        """Entries of each quad, two per cycle, once its last channel is there. Returns whether some are to come."""
        bits = self.config.fold_bits
        wide = signed(bits + 2)

        def add(a, b, name, carry=None):
            """Signed, modulo 2**(bits + 2)."""
            a, b = (Cat(x, x[-1].replicate(bits + 2))[: bits + 2] for x in (a, b))
            return ripple_sum(m, a, b, bits + 2, name, carry)

        quad = place[: QUAD.bit_length() - 1]
        total = Signal(signed(bits + 2), reset_less=True)
        gathered = [Signal(signed(bits), name=f"gathered{k}", reset_less=True) for k in (1, 2)]
        with m.If(valid):
            m.d.sync += total.eq(add(Mux(quad == 0, 0, total).as_signed(), z, "gathered_sum"))
            for k, one in enumerate(gathered, 1):
                with m.If(quad == k):
                    m.d.sync += one.eq(z)
        # In the order of a Gray code: the sign of one channel turns from entry to entry.
        sum_here = Signal(wide, reset_less=True)
        first, second, last = (Signal(signed(bits), name=f"turned{k}", reset_less=True) for k in (1, 2, 3))
        entry = Signal(QUAD - 2)
        building = Signal()
        write = self.write
        number = Signal.like(self.write.quad, reset_less=True)
        turned = Signal(signed(bits))
        following = Signal(wide)
        m.d.comb += [
            self.write_valid.eq(building),
            write.entry.eq(entry ^ (entry >> 1)),
            write.set.eq(which),
            write.quad.eq(number),
            write.plus.eq(add(sum_here, last, "plus")),
            write.minus.eq(add(sum_here, ~last, "minus", C(1, 1))),
            turned.eq(Mux(entry[0], second, first)),
            # Minus twice the channel where its sign becomes negative.
            following.eq(add(sum_here, Cat(C(0, 1), turned) ^ (~entry[1]).replicate(bits + 1), "following", ~entry[1])),
        ]
        with m.If(building):
            m.d.sync += [entry.eq(entry + 1), sum_here.eq(following)]
            with m.If(entry.all()):
                m.d.sync += building.eq(0)
        with m.If(valid & quad.all()):
            m.d.sync += [first.eq(gathered[0]), second.eq(gathered[1]), last.eq(z), sum_here.eq(total)]
            m.d.sync += [number.eq(place >> QUAD.bit_length() - 1), entry.eq(0), building.eq(1)]
        return building

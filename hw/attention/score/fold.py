"""A block's scales taken into the query: integers of one exponent, in the tables that the dot product wants."""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit
from hw.arith.formats import UNIT_BITS
from hw.attention.layouts import HeldQuery, Job, PacketEntry
from hw.attention.metadata import MetadataReader
from hw.attention.score.dot import TableWrites
from hw.attention.score.scaling import SCALE_BIAS, QueryScaler, Scale
from hw.kv.layouts import ERROR_BITS, PrefixWord
from spec.attention import AttentionConfig, AttentionError
from spec.kv_config import KvError
from spec.kv_formats import KvFormat, KvMetadata

__all__ = ["FoldUnit"]


class FoldUnit(wiring.Component):
    """Equations F1 to F4 of docs/attention.md, and whether a block is good up to its rows.

    Scales go through a short memory, from which a multiplier takes them one per cycle as soon as the common exponent is
    known: at once where scales are integers under the header's exponent, after the last one where they are FP16.
    Four of them make a quad, whose 8 table entries are written while the next four come. A block of D = 64 takes about
    90 cycles from its header to the job, exact tokens 75.

    Members
    -------
    entries : stream of PacketEntry, In
    words : stream of PrefixWord, In
    query : HeldQuery, In
    jobs : stream of Job, Out
        What follows in the rows, when its tables have been written; the other set's are free once it is taken.
    tables : TableWrites, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "entries": In(stream.Signature(PacketEntry)),
                "words": In(stream.Signature(PrefixWord)),
                "query": In(HeldQuery(config)),
                "jobs": Out(stream.Signature(Job(config))),
                "tables": Out(TableWrites(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, channels = self.config, self.config.channels
        query, entry = self.query, self.entries.payload
        header = entry.header
        m.submodules.reader = reader = MetadataReader(config.parser)
        m.submodules.scaler = scaler = QueryScaler(config)
        wiring.connect(m, wiring.flipped(self.words), reader.words)
        wiring.connect(m, scaler.tables, wiring.flipped(self.tables))
        m.d.comb += [
            *(reader.blocks.payload[name].eq(entry[name]) for name in ("header", "error", "bare", "odd")),
            reader.blocks.valid.eq(self.entries.valid & ~entry.exact),
        ]
        halved = Signal()
        two = Signal()
        fresh = Signal()  # nothing of this block has come yet
        minima = Signal()  # this pass is F3's
        m.d.comb += [halved.eq(header.format == KvFormat.K2), two.eq(header.segment0 != header.channels)]
        written, largest, lowest = self._store(m, reader, scaler, halved, fresh)
        awaited = self._exponent(m, scaler, halved, two, minima, largest, lowest)
        mismatch = self._layout_check(m, reader, header, two)

        # Positions through the multiplier.
        position = Signal(range(channels + 1))
        limit = Signal(range(channels + 1))
        count, first_count = Cat(C(0, 3), header.channels + 1), Cat(C(0, 3), header.segment0 + 1)
        exact_count = Cat(C(0, 3), query.layout.channels + 1)
        known = Signal()
        issuing = Signal()
        verdict = Signal()
        set_ = Signal(name="set")
        m.d.comb += [
            limit.eq(Mux(entry.exact, exact_count, Mux(minima, first_count, count))),
            known.eq((~awaited & ~minima) | (written == count)),
            # Padding positions need no scale; a block cut short never gets its scales but a verdict.
            scaler.issue.eq(issuing & (entry.exact | ~scaler.exists | (known & (position < written)) | verdict)),
            scaler.place.eq(position),
            scaler.exists.eq(position < limit),
            scaler.counted.eq(entry.exact | (position < first_count)),
            scaler.value.eq(query.value),
            scaler.exact.eq(entry.exact),
            scaler.set.eq(set_),
            query.address.eq(position),
            query.exact.eq(entry.exact),
        ]
        if config.minima:
            m.d.comb += scaler.minima.eq(minima)
        error = Signal(ERROR_BITS)
        bare = Signal()
        self._job(m, scaler, halved, fresh, set_, error, bare)
        found = reader.verdicts.payload
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [fresh.eq(1), scaler.clear.eq(1)]
                m.d.sync += [position.eq(0), verdict.eq(0), error.eq(0), bare.eq(0)]
                if config.minima:
                    m.d.sync += minima.eq(halved & ~entry.exact)
                with m.If(self.entries.valid & query.valid):
                    m.d.sync += issuing.eq(1)
                    m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += [reader.grant.eq(~verdict), reader.verdicts.ready.eq(~verdict)]
                with m.If(reader.verdicts.valid & ~verdict):
                    m.d.sync += [verdict.eq(1), error.eq(self._flaw(m, found, halved, mismatch)), bare.eq(found.bare)]
                with m.If(scaler.issue):
                    m.d.sync += position.eq(position + 1)
                    with m.If(position == channels - 1):
                        m.d.sync += issuing.eq(0)
                with m.If(~issuing & ~scaler.busy & (verdict | entry.exact)):
                    m.next = "JOB"
                    if config.minima:
                        with m.If(minima):
                            m.d.comb += scaler.clear.eq(1)
                            m.d.sync += [minima.eq(0), position.eq(0), issuing.eq(1)]
                            m.next = "SCALES"
            with m.State("JOB"):
                m.d.comb += self.jobs.valid.eq(1)
                with m.If(self.jobs.ready):
                    m.d.comb += [self.entries.ready.eq(1), query.release.eq(entry.final)]
                    m.d.sync += set_.eq(~set_)
                    m.next = "IDLE"
        return m

    def _store(self, m, reader, scaler, halved, fresh):
        """Scales as they come, to ``scaler``; returns (how many have come, the largest exponents of FP16 scales in
        either segment, and of minima)."""
        config, header = self.config, self.entries.payload.header
        m.submodules.scales = scales = memory.Memory(shape=Scale(config), depth=config.channels, init=[])
        write, read = scales.write_port(), scales.read_port()
        record, valid = reader.records.payload, reader.records.valid
        written = Signal(range(config.channels + 1))
        code = Mux(record.segment, header.exponent1, header.exponent0)
        is_integer = Mux(record.segment, header.transform1, header.transform0) != 0
        finite = record.exponent | ~record.exponent.any()
        m.d.comb += [
            reader.records.ready.eq(1),
            write.addr.eq(written),
            write.data.g.eq(record.significand),
            # Integers count from E = code - 24, FP16's fields from max(exponent, 1) - 25.
            write.data.r.eq(
                Mux(is_integer, code + (SCALE_BIAS - 24), finite + (SCALE_BIAS - 25)) - (halved & ~record.segment)
            ),
            write.en.eq(valid),
            read.en.eq(1),
            read.addr.eq(scaler.place),
            scaler.scale.eq(read.data),
        ]
        with m.If(fresh):
            m.d.sync += written.eq(0)
        with m.Elif(valid):
            m.d.sync += written.eq(written + 1)

        def most(field, counts, name):
            found = Signal(5, name=name)
            with m.If(fresh):
                m.d.sync += found.eq(1)
            with m.Elif(valid & counts & (field > found)):
                m.d.sync += found.eq(field)
            return found

        # In a two-segment block without transforms, segment 1's scales are FP16 too.
        largest = [most(finite, record.segment == s, f"largest{s}") for s in range(2)]
        if not config.minima:
            return written, largest, None
        minimum = record.minimum
        m.d.comb += write.data.minimum.eq(minimum)
        return written, largest, most(minimum[10:15] | ~minimum[10:15].any(), ~record.segment, "lowest")

    def _exponent(self, m, scaler, halved, two, minima, largest, lowest):
        """The common exponent; returns whether it is known only after the last scale: of FP16 without a transform."""
        config, entry = self.config, self.entries.payload
        header = entry.header
        top = self._top(m, header, halved, [header.transform0 != 0, header.transform1 != 0], largest)
        if config.minima:
            room = Signal(6)
            need = self.query.bits[0] + 11
            m.d.comb += room.eq(Mux(need > config.fold_bits - 1, need, config.fold_bits - 1))
            top = Mux(minima, lowest + (SCALE_BIAS - 25) + room, top)
        m.d.comb += scaler.top.eq(top)
        awaited = Signal()
        fp16 = header.metadata == KvMetadata.FP16
        m.d.comb += awaited.eq(fp16 & ~entry.exact & ((header.transform0 == 0) | (two & (header.transform1 == 0))))
        return awaited

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
                room.eq(Mux(width + self.query.bits[s] > fold, width + self.query.bits[s], fold)),
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
        layout = self.query.layout
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

    def _flaw(self, m, found, halved, mismatch):
        """Error of a block that the metadata reader is done with."""
        header = self.entries.payload.header
        accepted = (header.format == KvFormat.K1) | (header.format == KvFormat.K2S)
        if self.config.minima:
            accepted = accepted | halved
        flaw = Signal(ERROR_BITS)
        m.d.comb += flaw.eq(found.error)
        with m.If(found.error == 0):
            with m.If(~accepted):
                m.d.comb += flaw.eq(KvError.FORMAT)
            with m.Elif(mismatch):
                m.d.comb += flaw.eq(AttentionError.LAYOUT)
        return flaw

    def _job(self, m, scaler, halved, fresh, set_, error, bare):
        """What the rows have to know. In builds with minima the first pass leaves its sum as the constant."""
        config, query = self.config, self.query
        entry, job, total = self.entries.payload, self.jobs.payload, scaler.total
        header = entry.header
        groups0 = Mux(header.format == KvFormat.K1, 0, header.segment0 + 1)
        unit = Signal(UNIT_BITS)
        m.d.comb += [
            # 2^(M - W + 1) units of the aligned query, 2^(exponent - 13 - Wq); F4 for exact tokens.
            unit.eq(scaler.top - (SCALE_BIAS + config.fold_bits - 1 + 13 + config.query_bits) + query.exponent),
            job.rows.groups.eq(Mux(entry.exact, query.layout.channels, header.channels) + 1),
            job.rows.groups0.eq(Mux(entry.exact, query.layout.channels + 1, groups0)),
            job.rows.rows.eq(header.rows),
            job.rows.odd.eq(entry.odd & ~entry.exact),
            job.rows.exact.eq(entry.exact),
            job.rows.final.eq(entry.final),
            job.rows.bare.eq(bare),
            job.rows.error.eq(error),
            job.set.eq(set_),
            job.poison.eq(query.poison),
            # S3 takes the sum of all z off, S2 adds three times that of segment 0.
            job.offset.eq(
                Mux(
                    entry.exact,
                    add_bit(m, ~total.as_unsigned(), C(1, 1), "total_negated"),
                    Mux(halved, (total << 1) + total, 0),
                )
            ),
            job.unit.eq(unit),
        ]
        if config.minima:
            constant = Signal.like(total, reset_less=True)
            constant_unit = Signal(UNIT_BITS, reset_less=True)
            with m.If(fresh):
                m.d.sync += constant.eq(0)
            with m.Elif(scaler.clear):
                m.d.sync += [constant.eq(total), constant_unit.eq(unit)]
            m.d.comb += [job.constant.eq(constant), job.constant_unit.eq(constant_unit)]

"""Channel sums times their scales, added up over a list's groups in FP32, and out as FP16."""

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arith.adders import add_bit, booth_product, prefix_sum, ripple_sum, select
from hw.arith.formats import FP32, UNIT_BITS
from hw.arith.fp32_multiplier import Fp32ToFp16
from hw.arith.fp32_normal import FiniteAdder, SignedToFp32
from hw.attention.layouts import WEIGHT_EXPONENT_BITS, SumsJob
from hw.attention.value.channels import SUM_LANES, SumsReads
from hw.kv.layouts import BlockEntry, Record
from spec.attention import PLANE_OFFSET, AttentionConfig
from spec.kv_formats import KvFormat

__all__ = ["Value", "ValueOut"]

BURST = 4
"""Channels whose scales come before their minima do: as long as an addition takes."""
SETTLE = 7
"""Cycles from a job's end until its last result is stored."""
SCALE_BITS = 11
BIAS = 50 - 11
"""P2's integers are worth 2^(L - 50 + 11 - weight_bits)."""


class Value(data.Struct):
    """An FP16 element of a list's result, in channel order."""

    value: 16
    marked: 1
    last: 1


class ValueOut(wiring.Component):
    """Equations V2 to V6 of docs/attention.md: one subtractor, multiplier and FP32 adder for all channels.

    ```
    sums -> minus Y or 128 Y -> times g -> FP32 -> + --> FP16 -> results (memory) -> o
    records ----------------------^                ^ |
                                                   +-+ running sums (memory)
    ```

    A channel per cycle, as its record comes from the metadata reader; V2 takes two: four scales, then the same four
    channels' minima. Latency 7 cycles. What a list's last group adds up to goes on as results; they leave, one per
    cycle, while the next lists' groups are added, of which none may be a list's last before they have left.

    Members
    -------
    channels : In
        Head dim / 8 - 1; static.
    jobs : stream of SumsJob, In
        Taken when its sums have been read.
    sums : SumsReads, Out
    grant : Out
        The metadata reader may start on a block.
    records : stream of Record, In
    verdicts : stream of BlockEntry, In
    overflow : Out
        One cycle: a list that nothing else was wrong with is marked, because a result was beyond FP16.
    o : stream of Value, Out
    """

    def __init__(self, config: AttentionConfig):
        self.config = config
        super().__init__(
            {
                "channels": In(4),
                "jobs": In(stream.Signature(SumsJob(config))),
                "sums": Out(SumsReads(config)),
                "grant": Out(1),
                "records": In(stream.Signature(Record)),
                "verdicts": In(stream.Signature(BlockEntry)),
                "overflow": Out(1),
                "o": Out(stream.Signature(Value)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, record, verdict = self.jobs.payload, self.records.payload, self.verdicts.payload
        channel_bits = (self.config.channels - 1).bit_length()
        channel = Signal(channel_bits)
        following = Signal(channel_bits)
        last_channel = Signal(channel_bits)
        m.d.comb += last_channel.eq(Cat(C(7, 3), self.channels))

        # Which channel, and whether it is its minimum's turn.
        issue = Signal()
        second = Signal()
        affine = Signal()
        place = Signal(range(BURST))
        m.submodules.minima = minima = memory.Memory(shape=16, depth=BURST, init=[])
        keep, recall = minima.write_port(), minima.read_port()
        m.d.comb += [
            affine.eq(job.words & (verdict.header.format == KvFormat.V2)),
            keep.addr.eq(place),
            keep.data.eq(record.minimum),
            keep.en.eq(self.records.valid & self.records.ready),
            recall.addr.eq(place),
            recall.en.eq(1),
        ]
        m.d.comb += following.eq(channel + issue)
        with m.If(issue):
            m.d.sync += [channel.eq(following), place.eq(place + 1)]
            with m.If(affine & (place == BURST - 1)):
                m.d.sync += second.eq(~second)
                with m.If(~second):
                    m.d.sync += channel.eq(following - BURST)

        first = Signal(init=1)
        marked = Signal()
        leaving = Signal()
        left_marked = Signal()
        settling = Signal(range(SETTLE + 1))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [channel.eq(0), place.eq(0), second.eq(0)]
                with m.If(self.jobs.valid & ~(job.final & leaving)):
                    m.d.sync += marked.eq(marked | job.marked)
                    m.d.comb += self.grant.eq(job.words)
                    m.next = "LOWER"
            with m.State("LOWER"):
                m.next = "UPPER"
            with m.State("UPPER"):
                m.next = "BEGIN"
            with m.State("BEGIN"):
                # By now the first channels' sums are written, both halves; the others are before they are read.
                m.next = "EXACT"
                with m.If(job.words):
                    m.next = "BLOCK"
                with m.Elif(job.marked):
                    m.next = "END"
            with m.State("BLOCK"):
                m.d.comb += [
                    self.records.ready.eq(~second),
                    issue.eq(self.records.valid | second),
                    self.verdicts.ready.eq(~second),
                ]
                with m.If(self.verdicts.valid & ~second):
                    m.d.sync += marked.eq(marked | (verdict.error != 0))
                    m.next = "END"
            with m.State("EXACT"):
                m.d.comb += issue.eq(1)
                with m.If(channel == last_channel):
                    m.next = "END"
            with m.State("END"):
                # Nothing of the job is asked for later than the cycle after its last channel.
                m.d.comb += self.jobs.ready.eq(1)
                m.d.sync += first.eq(job.final)
                m.next = "IDLE"
                with m.If(job.final):
                    m.d.sync += [leaving.eq(1), left_marked.eq(marked), marked.eq(0), settling.eq(SETTLE)]

        closes = job.final & (second | ~affine)
        total, target, complete = self._add(m, job, record, recall.data, channel, issue, second, first, closes)
        self._send(m, last_channel, leaving, left_marked, settling, total, target, complete)
        return m

    def _send(self, m, last_channel, leaving, left_marked, settling, total, target, complete):
        """A list's sums to FP16 results, and results to the consumer."""
        m.submodules.narrow = narrow = Fp32ToFp16()
        m.submodules.results = results = memory.Memory(shape=16, depth=self.config.channels, init=[])
        write, read = results.write_port(), results.read_port()
        saturated = Signal()
        m.d.comb += [
            narrow.i.eq(total),
            write.addr.eq(target),
            write.data.eq(narrow.o),
            write.en.eq(complete),
        ]
        with m.If(complete & narrow.saturated):
            m.d.sync += saturated.eq(1)

        # The last results are on their way yet; then an element per transfer, a cycle for the memory before.
        sent = Signal(len(last_channel))
        following = Signal(len(last_channel))
        m.d.comb += [
            following.eq(sent),
            read.addr.eq(following),
            read.en.eq(1),
            self.o.payload.value.eq(read.data),
            self.o.payload.marked.eq(left_marked),
            self.o.payload.last.eq(sent == last_channel),
        ]
        with m.If(settling != 0):
            m.d.sync += settling.eq(settling - 1)
            with m.If(settling == 1):
                m.d.comb += self.overflow.eq(saturated & ~left_marked)
                m.d.sync += [left_marked.eq(left_marked | saturated), saturated.eq(0), self.o.valid.eq(1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += following.eq(sent + 1)
            m.d.sync += sent.eq(following)
            with m.If(self.o.payload.last):
                m.d.sync += [sent.eq(0), self.o.valid.eq(0), leaving.eq(0)]

    def _add(self, m, job, record, minimum, channel, issue, second, first, closes):
        """The pipeline from a channel's number to its running sum: (sum, channel, it is the list's of this channel)."""
        bits = self.config.sum_bits

        def register(value, name, shape=None):
            signal = Signal(shape or len(value), name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # Cycle 1: reads the sums.
        lanes = SUM_LANES.bit_length() - 1
        m.d.comb += self.sums.address.eq(Cat(channel[lanes:], job.set))
        lane, is_second = register(channel[:lanes], "lane"), register(second, "is_second")
        scale, exponent = register(record.significand, "scale"), register(record.exponent, "scale_exponent")

        # Cycle 2: what is multiplied. An exact group's scale is in its weights.
        field = minimum[10:15]
        g = Signal(SCALE_BITS)
        e = Signal(5)
        with m.If(job.exact):
            m.d.comb += e.eq(25)
        with m.Elif(is_second):
            m.d.comb += [g.eq(Cat(minimum[:10], field.any())), e.eq(field)]
        with m.Else():
            m.d.comb += [g.eq(scale), e.eq(exponent)]
        lanes_here = Signal(SUM_LANES)
        m.d.comb += lanes_here.eq(1 << lane)
        total = select((lanes_here[k], self.sums.sums[k]) for k in range(SUM_LANES))
        plus = Signal(bits)
        minus = Signal(bits)
        negative = minimum[15]
        m.d.comb += [
            plus.eq(Mux(is_second, Mux(negative, 0, job.total), total)),
            minus.eq(
                Mux(is_second, Mux(negative, job.total, 0),
                    Mux(job.exact, PLANE_OFFSET * job.total, Mux(job.ternary, job.total, 0)))
            ),
        ]  # fmt: skip
        number = prefix_sum(m, plus, ~minus, bits + 1, "number", C(1, 1))
        negated = Signal()
        # The constant alone is negative.
        together = ripple_sum(m, e | ~e.any(), job.exponent, WEIGHT_EXPONENT_BITS + 1, "together")
        offset = C(-(25 + BIAS + self.config.weight_bits), signed(UNIT_BITS)).as_unsigned()
        unit = ripple_sum(m, together, offset, UNIT_BITS, "unit_here").as_signed()
        m.d.comb += negated.eq(~number[-1])
        magnitude = register(
            add_bit(m, number[:-1] ^ negated.replicate(bits), negated, "magnitude_here"), "magnitude", bits
        )
        g, unit, negated = register(g, "g"), register(unit, "unit", signed(UNIT_BITS)), register(negated, "negated")

        # Cycle 3: the product, without its sign. Sums of 2-bit codes are shorter than those of exact tokens.
        short = self.config.total_bits + 2
        width = max(bits, short + SCALE_BITS)
        product = register(
            Mux(job.exact, magnitude, booth_product(m, magnitude[:short], g, "scaled")), "product", width
        )
        m.submodules.convert = convert = SignedToFp32(width + 1)
        m.d.comb += [
            convert.i.eq(Cat(product, C(0, 1)).as_signed()),
            convert.unit.eq(register(unit, "product_unit", signed(UNIT_BITS))),
        ]
        for k in range(1 + convert.latency):
            negated = register(negated, f"negated{k}")

        # Cycles 4 and 5: to FP32. Cycles 6 and 7: the addition; the running sums are read the cycle before.
        m.submodules.adder = adder = FiniteAdder()
        adding = 3 + convert.latency
        stages = adding + adder.latency
        fresh = first & ~second
        valid, completes, channels = issue, issue & closes, [channel]
        for k in range(stages):
            later = [Signal(name=f"{name}{k}") for name in ("valid", "completes")]
            m.d.sync += [later[0].eq(valid), later[1].eq(completes)]
            valid, completes = later
            channels.append(register(channels[-1], f"channel{k}"))
            if k < adding:
                fresh = register(fresh, f"fresh{k}")
        m.submodules.sums = sums = memory.Memory(shape=FP32, depth=self.config.channels, init=[])
        write, before = sums.write_port(), sums.read_port()
        m.d.comb += [
            before.addr.eq(channels[adding - 1]),
            before.en.eq(1),
            adder.a.eq(Mux(fresh, 0, before.data.as_value())),
            adder.b.eq(Cat(convert.o.as_value()[:31], negated & convert.o.as_value()[:31].any())),
            write.addr.eq(channels[stages]),
            write.data.eq(adder.o),
            write.en.eq(valid),
        ]
        return adder.o, channels[stages], completes

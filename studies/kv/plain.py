"""What the engine would be without value tables: arithmetic in every lane. For comparison, see docs/kv-engine.md."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.engine import KvDequantizer
from hw.kv.layouts import Beside, Coefficients, Header, RecordWrite
from hw.kv.values.store import RecordStore
from hw.kv.values.value_unit import ValueArithmetic, ValueUnit, multiple_of
from spec import checks
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvFormat
from studies.kv.multiply_add import Fp16MultiplyAdd, fp16_factor

__all__ = ["PLAIN", "PlainDequantizer", "PlainLanes"]

PLAIN = ("multiply-add", "adder", "FP16 multiply-add")


class _PlainConfig(KvEngineConfig):
    """Records need no values formed: half as many rows are buffered where scale and minimum are all that is stored."""

    @property
    def row_beats(self) -> int:
        return 2 * self.max_channels // self.value_units // (1 if self.method == PLAIN[1] else 2)

    method = PLAIN[0]


class _AdderConfig(_PlainConfig):
    method = PLAIN[1]


class PlainLanes(wiring.Component):
    """In place of :class:`hw.kv.values.tables.ValueTables`: each lane forms its element when its code comes.

    ``multiply-add``: a memory of scale and minimum per channel; the lane multiplies the scale by its code, adds the
    minimum and rounds once. ``adder``: the scale's multiples are stored, a code selects one by being part of the
    address; the lane adds the minimum and rounds once. Both use the arithmetic of the value unit, 2-bit multiplier
    included, so that they are no larger than they have to be.

    Bit exact like the tables, but OVERFLOW is not found: values beyond FP16 are +-65504 unmarked. No transforms.

    Members
    -------
    record ... idle, beat, codes, read_set, read : as in ValueTables
    read_header : Header, In
        Of the block being read.
    step : In
        Values move on: those read come out after it.
    values : Out
        16 bits per lane.
    """

    def __init__(self, config: KvEngineConfig, method: str):
        checks.choice("method", method, PLAIN)
        if config.transforms:
            raise ValueError("transforms must be none in plain lanes")
        self.config, self.method = config, method
        lanes = config.lanes
        super().__init__(
            {
                "record": In(RecordWrite),
                "room": Out(1, init=1),
                "header": In(Header),
                "write_set": In(1),
                "start": In(1),
                "overflow": Out(1),
                "idle": Out(1, init=1),
                "beat": In(ceil_log2(config.max_channels // lanes)),
                "codes": In(data.ArrayLayout(2, lanes)),
                "read_set": In(1),
                "read": In(1),
                "read_header": In(Header),
                "step": In(1),
                "values": Out(data.ArrayLayout(16, lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, count = self.config.lanes, self.config.value_units
        lane_bits = ceil_log2(lanes)
        adder, general = (self.method == method for method in PLAIN[1:])
        # Per unit: the channel whose record comes, and the words that are stored of it.
        record, sources = self.record, []
        if adder:
            stores = []
            for u in range(count):
                m.submodules[f"store{u}"] = store = RecordStore(self.config, u)
                m.submodules[f"unit{u}"] = unit = ValueUnit(self.config, multiples=True)
                stores.append(store)
                m.d.comb += store.feeding(unit, record, self.start, self.header)
                minimum = store.minimum
                sources.append(
                    (
                        unit.entry,
                        [
                            ("scales", Cat(unit.code), unit.value, unit.valid),
                            ("low", Cat(), minimum[:8], unit.valid),
                            ("high", Cat(), minimum[8:], unit.valid),
                        ],
                    )
                )
            m.d.comb += [
                self.room.eq(Cat(store.room for store in stores).all()),
                self.idle.eq(Cat(store.idle for store in stores).all()),
            ]
        else:
            words = [
                ("scales", Cat(), Cat(record.significand, record.exponent), record.write_scale),
                ("low", Cat(), record.low, record.write_low),
                ("high", Cat(), record.high, record.write_high),
            ]
            sources = [(record.channel, words)] * count

        # Of the beat at the memories' outputs, per group of 8 lanes: which segment.
        header = self.read_header
        groups = max(1, lanes // 8)
        segments = Signal(groups, reset_less=True)
        first = self.beat >> 1 if lanes == 4 else self.beat << ceil_log2(groups)
        codes = Signal(data.ArrayLayout(2, lanes), reset_less=True)
        one_bits = Signal(reset_less=True)
        ternary = Signal(reset_less=True)
        minimal = Signal(reset_less=True)
        with m.If(self.read):
            m.d.sync += [
                segments.eq(Cat(first + g > header.segment0 for g in range(groups))),
                codes.eq(self.codes),
                one_bits.eq(header.format == KvFormat.K1),
                ternary.eq(header.format == KvFormat.V158),
                minimal.eq((header.format == KvFormat.K2) | (header.format == KvFormat.V2)),
            ]
        rows = 2 * self.config.max_channels // lanes
        beat_bits = ceil_log2(rows) - 1
        for lane in range(lanes):
            arithmetic = Fp16MultiplyAdd() if general else ValueArithmetic(precomputed=adder)
            m.submodules[f"lane{lane}"] = arithmetic
            channel, parts = sources[lane % count]
            words = {}
            for name, low, word, strobe in parts:
                shape, depth = len(word), rows << len(low)
                m.submodules[f"{name}{lane}"] = store = memory.Memory(shape=shape, depth=depth, init=[])
                write, read = store.write_port(), store.read_port()
                own = channel[:lane_bits] == lane
                m.d.comb += [
                    write.addr.eq(Cat(low, channel[lane_bits:][:beat_bits], self.write_set)),
                    write.data.eq(word),
                    write.en.eq(strobe & own),
                    read.addr.eq(Cat(self.codes[lane][: len(low)], self.beat, self.read_set)),
                    read.en.eq(self.read),
                ]
                words[name] = read.data
            scale, minimum = words["scales"], Cat(words["low"], words["high"])
            segment = segments[min(lane // 8, groups - 1)]
            affine = Signal(name=f"lane_affine{lane}")
            m.d.comb += [
                affine.eq(minimal & ~segment),
                arithmetic.step.eq(self.step),
                self.values[lane].eq(arithmetic.value),
            ]
            if not general:
                m.d.comb += [arithmetic.affine.eq(affine), arithmetic.minimum.eq(minimum)]
            if adder:
                m.d.comb += [
                    arithmetic.significand.eq(scale[:13]),
                    arithmetic.exponent.eq(scale[13:18]),
                    arithmetic.negative.eq(scale[18]),
                ]
            else:
                one_bit = segment | one_bits
                multiplier, negative = multiple_of(m, codes[lane], one_bit, affine, ternary)
                if general:
                    m.d.comb += [
                        arithmetic.a.eq(fp16_factor(multiplier, negative)),
                        arithmetic.b.eq(Cat(scale[:10], scale[11:])),
                        arithmetic.c.eq(minimum & affine.replicate(16)),
                    ]
                    continue
                m.d.comb += [
                    arithmetic.significand.eq(scale[:11]),
                    arithmetic.exponent.eq(scale[11:]),
                    arithmetic.multiplier.eq(multiplier),
                    arithmetic.negative.eq(negative),
                ]
        return m


class PlainDequantizer(KvDequantizer):
    """A :class:`KvDequantizer` with :class:`PlainLanes` for its tables; the rest, and the rates, are the same.

    Parameters
    ----------
    config : KvEngineConfig
        Without transforms.
    method : str
        One of :data:`PLAIN`.
    """

    def __init__(self, config: KvEngineConfig, method: str):
        kind = _AdderConfig if method == PLAIN[1] else _PlainConfig
        self.method = method
        fields = ("lanes", "max_channels", "transforms", "formats", "scale_bits", "interleave", "centre")
        super().__init__(kind(**{name: getattr(config, name) for name in fields}))

    def _tables(self):
        return PlainLanes(self.config, self.method)

    def _elements(self, m, tables, sequencer):
        """A stage more: rounding."""
        head = stream.Signature(Coefficients(self.config.lanes)).create()
        beside = Signal(Beside(self.config.lanes), reset_less=True)
        full = Signal()
        step = ~full | head.ready
        with m.If(step):
            m.d.sync += [full.eq(sequencer.o.valid), beside.eq(sequencer.o.payload)]
        m.d.comb += [
            sequencer.o.ready.eq(step),
            tables.step.eq(step & sequencer.o.valid),
            tables.read_header.eq(sequencer.block.header),
            head.valid.eq(full),
            head.payload.data.eq(tables.values),
            head.payload.tag.eq(beside.tag),
        ]
        return head

"""What the engine would be without value tables: arithmetic in every lane. For comparison, see docs/kv-engine.md."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.kv.engine import KvDequantizer
from hw.kv.layouts import Beside, Coefficients, Header
from hw.kv.records import RecordLoader
from hw.kv.values import ValueArithmetic, ValueUnit, multiple_of
from hw.spec.kv_config import KvEngineConfig
from hw.spec.kv_formats import KvFormat

__all__ = ["PLAIN", "PlainDequantizer", "PlainLanes"]

PLAIN = ("multiply-add", "adder")


class _PlainConfig(KvEngineConfig):
    """Records need no values formed: half as many rows are buffered where scale and minimum are all that is stored."""

    @property
    def row_beats(self) -> int:
        return 2 * self.max_channels // self.value_units // (2 if self.method == PLAIN[0] else 1)

    method = PLAIN[0]


class _AdderConfig(_PlainConfig):
    method = PLAIN[1]


class PlainLanes(wiring.Component):
    """In place of :class:`hw.kv.tables.ValueTables`: each lane forms its element when its code comes.

    ``multiply-add``: a memory of scale and minimum per channel; the lane multiplies the scale by its code, adds the
    minimum and rounds once. ``adder``: the scale's multiples are stored, a code selects one by being part of the
    address; the lane adds the minimum and rounds once. Both use the arithmetic of the value unit, 2-bit multiplier
    included, so that they are no larger than they have to be.

    Bit exact like the tables, but OVERFLOW is not found: values beyond FP16 are +-65504 unmarked. No transforms.

    Members
    -------
    slice ... idle, beat, codes, read_set, read : as in ValueTables
    read_header : Header, In
        Of the block being read.
    step : In
        Values move on: those read come out after it.
    values : Out
        16 bits per lane.
    """

    def __init__(self, config: KvEngineConfig, method: str):
        if method not in PLAIN:
            raise ValueError(f"method must be one of {', '.join(PLAIN)}, not {method!r}")
        if config.transforms:
            raise ValueError("transforms must be none in plain lanes")
        self.config, self.method = config, method
        lanes = config.lanes
        super().__init__(
            {
                "slice": In(16),
                "valid": In(1),
                "take": Out(1),
                "header": In(Header),
                "write_set": In(1),
                "start": In(1),
                "loaded": Out(1),
                "bad": Out(1),
                "overflow": Out(1),
                "idle": Out(1),
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
        lane_bits, unit_bits = ceil_log2(lanes), ceil_log2(count)
        adder = self.method == PLAIN[1]
        m.submodules.loader = loader = RecordLoader(self.config)
        m.d.comb += [
            loader.slice.eq(self.slice),
            loader.valid.eq(self.valid),
            self.take.eq(loader.take),
            loader.header.eq(self.header),
            loader.start.eq(self.start),
            self.loaded.eq(loader.loaded),
            self.bad.eq(loader.bad),
        ]
        # Per unit: where its records go, and the words that go there.
        scales, minima = [], []
        idle = []
        for u in range(count):
            index = Signal(7 - unit_bits, name=f"index{u}", reset_less=True)
            affine = Signal(name=f"affine{u}")
            if adder:
                m.submodules[f"unit{u}"] = unit = ValueUnit(multiples=True)
                m.d.comb += [
                    unit.load_scale.eq(loader.load_scale[u]),
                    unit.load_minimum.eq(loader.load_minimum[u]),
                    unit.significand.eq(loader.significand),
                    unit.exponent.eq(loader.exponent),
                    unit.segment.eq(loader.segment),
                    unit.format.eq(self.header.format),
                    unit.clear.eq(self.start),
                    loader.free[u].eq(unit.free),
                    loader.waiting[u].eq(unit.waiting),
                ]
                done = unit.strobe & unit.last
                # The minimum stays with the loader until the unit takes its last multiple.
                scales.append((Cat(unit.code, index), unit.value, unit.strobe, index))
                minima.append((index, loader.minimum[u], unit.strobe & ~unit.last, index))
                idle.append(unit.idle)
            else:
                waiting = Signal(name=f"waiting{u}")
                kind = self.header.format
                m.d.comb += [
                    affine.eq(((kind == KvFormat.K2) | (kind == KvFormat.V2)) & ~loader.segment),
                    loader.free[u].eq(~waiting),
                    loader.waiting[u].eq(waiting),
                ]
                done = (loader.load_scale[u] & ~affine) | loader.load_minimum[u]
                with m.If(self.start | done):
                    m.d.sync += waiting.eq(0)
                with m.Elif(loader.load_scale[u]):
                    m.d.sync += waiting.eq(1)
                scales.append((index, Cat(loader.significand, loader.exponent), loader.load_scale[u], index))
                minima.append((index, loader.minimum[u], loader.load_minimum[u], index))
                idle.append(~waiting)
            with m.If(self.start):
                m.d.sync += index.eq(0)
            with m.Elif(done):
                m.d.sync += index.eq(index + 1)
        m.d.comb += self.idle.eq(Cat(idle).all())

        # Of the beat at the memories' outputs, per group of 8 lanes: which segment.
        header = self.read_header
        groups = max(1, lanes // 8)
        segments = Signal(groups, reset_less=True)
        first = self.beat >> 1 if lanes == 4 else self.beat << ceil_log2(groups)
        codes = Signal(data.ArrayLayout(2, lanes), reset_less=True)
        one_bits, ternary, minimal = Signal(reset_less=True), Signal(reset_less=True), Signal(reset_less=True)
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
            m.submodules[f"lane{lane}"] = arithmetic = ValueArithmetic(precomputed=adder)
            words = []
            for name, source, width, codes_of in (
                ("scales", scales[lane % count], 19 if adder else 16, 4 if adder else 1),
                ("minima", minima[lane % count], 16, 1),
            ):
                address, word, strobe, index = source
                low = ceil_log2(codes_of)
                m.submodules[f"{name}{lane}"] = store = memory.Memory(shape=width, depth=rows * codes_of, init=[])
                write, read = store.write_port(), store.read_port()
                own = index[: lane_bits - unit_bits] == lane >> unit_bits
                beat = index[lane_bits - unit_bits :][:beat_bits]
                m.d.comb += [
                    write.addr.eq(Cat(address[:low], beat, self.write_set)),
                    write.data.eq(word),
                    write.en.eq(strobe & own),
                    read.addr.eq(Cat(self.codes[lane][:low] if low else Cat(), self.beat, self.read_set)),
                    read.en.eq(self.read),
                ]
                words.append(read.data)
            scale, minimum = words
            segment = segments[min(lane // 8, groups - 1)]
            affine = Signal(name=f"lane_affine{lane}")
            m.d.comb += [
                affine.eq(minimal & ~segment),
                arithmetic.affine.eq(affine),
                arithmetic.minimum.eq(minimum),
                arithmetic.step.eq(self.step),
                self.values[lane].eq(arithmetic.value),
            ]
            if adder:
                m.d.comb += [
                    arithmetic.significand.eq(scale[:13]),
                    arithmetic.exponent.eq(scale[13:18]),
                    arithmetic.negative.eq(scale[18]),
                ]
            else:
                one_bit = segment | one_bits
                multiplier, negative = multiple_of(m, codes[lane], one_bit, affine, ternary)
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
        fields = ("lanes", "max_channels", "transforms", "scale_bits", "interleave", "centre")
        super().__init__(kind(**{name: getattr(config, name) for name in fields}))

    def _tables(self):
        return PlainLanes(self.config, self.method)

    def _elements(self, m, tables, sequencer):
        """A stage more: rounding."""
        head = stream.Signature(Coefficients(self.config.lanes)).create()
        beside, full = Signal(Beside(self.config.lanes), reset_less=True), Signal()
        step = ~full | head.ready
        with m.If(step):
            m.d.sync += [full.eq(sequencer.o.valid), beside.eq(sequencer.o.payload)]
        m.d.comb += [
            sequencer.o.ready.eq(step),
            tables.step.eq(step & sequencer.o.valid),
            tables.read_header.eq(sequencer.header),
            head.valid.eq(full),
            head.payload.data.eq(tables.values),
            head.payload.tag.eq(beside.tag),
        ]
        return head

"""The route that attention without dequantizing is compared with: FP16 elements times FP16, accumulated in FP32.

Behind a `KvDequantizer` each, one pair of these serves a KV head; more query heads on it need more pairs.
"""

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith.formats import FP16, FP32, FP32_NAN
from hw.arith.fp32_adder import Fp32Adder
from hw.arith.rounding import leading_zeros
from hw.kv.engine import KvDequantizer
from hw.kv.layouts import Beat, Elements
from spec import checks
from spec.kv_config import KvEngineConfig

__all__ = ["DequantizedDot", "DequantizedRoute", "DequantizedSum", "Fp16Product"]


class Fp16Product(wiring.Component):
    """``a * b`` of FP16 numbers in FP32, exact. Latency 1 cycle, one per cycle, no back-pressure.

    NaN, infinities and subnormals are as IEEE 754 has them; a zero is +0.

    Members
    -------
    a, b : FP16, In
    o : FP32, Out
    """

    latency = 1

    def __init__(self):
        super().__init__({"a": In(FP16), "b": In(FP16), "o": Out(FP32)})

    def elaborate(self, platform):
        m = Module()
        normal = [x.exponent.any() for x in (self.a, self.b)]
        special = [x.exponent.all() for x in (self.a, self.b)]
        zero = [x.as_value()[:15] == 0 for x in (self.a, self.b)]
        nan = [s & x.fraction.any() for s, x in zip(special, (self.a, self.b), strict=True)]
        product = Signal(22)
        m.d.comb += product.eq(Cat(self.a.fraction, normal[0]) * Cat(self.b.fraction, normal[1]))
        zeros = leading_zeros(m, product, "zeros")
        shifted = Signal(22)
        exponent = Signal(8)
        # The top bit weighs 2^21 units of 2^(e_a + e_b - 50).
        m.d.comb += [
            shifted.eq(product << zeros),
            exponent.eq((self.a.exponent | ~normal[0]) + (self.b.exponent | ~normal[1]) + (127 + 21 - 50) - zeros),
        ]
        sign = self.a.sign ^ self.b.sign
        out = Signal(32, reset_less=True)
        with m.If(nan[0] | nan[1] | (special[0] & zero[1]) | (special[1] & zero[0])):
            m.d.sync += out.eq(FP32_NAN)
        with m.Elif(special[0] | special[1]):
            m.d.sync += out.eq(Cat(C(0, 23), C(0xFF, 8), sign))
        with m.Elif(~product.any()):
            m.d.sync += out.eq(0)
        with m.Else():
            m.d.sync += out.eq(Cat(C(0, 2), shifted[:21], exponent, sign))
        m.d.comb += self.o.eq(out)
        return m


class _Lanes(wiring.Component):
    def __init__(self, lanes: int, channels: int, members: dict):
        checks.choice("lanes", lanes, (4, 8, 16, 32))
        checks.choice("channels", channels, (64, 128))
        self.lanes, self.channels, self.beats = lanes, channels, channels // lanes
        super().__init__({"i": In(Elements(lanes)), "i_valid": In(1)} | members)

    def products(self, m, factors):
        """FP32 products of the beat's elements; 0 in lanes that do not exist."""
        found = []
        for lane in range(self.lanes):
            m.submodules[f"product{lane}"] = product = Fp16Product()
            group = lane // 8 if self.lanes > 4 else 0
            exists = self.i.tag.groups[group]
            m.d.comb += [product.a.eq(Mux(exists, self.i.data[lane], 0)), product.b.eq(factors[lane])]
            found.append(product.o)
        return found


def _delay(m, value, cycles, name):
    for k in range(cycles):
        after = Signal(len(value), name=f"{name}{k}")
        m.d.sync += after.eq(value)
        value = after
    return value


class DequantizedDot(_Lanes):
    """q . k of FP16 keys: a tree of FP32 adders over the lanes, beats added in turn to two sums (the adder takes two
    cycles), which meet at the token's end.

    A beat per cycle without back-pressure.

    Members
    -------
    i, i_valid : Elements(lanes), In
        What a `KvDequantizer` gives.
    load, address, query : In
        Writes the query, ``lanes`` FP16 elements at a time, in the order of the elements.
    o, o_valid, o_last : FP32, Out
        A score; the block's last.
    """

    def __init__(self, lanes: int = 16, channels: int = 64):
        beats = channels // lanes
        super().__init__(
            lanes,
            channels,
            {
                "load": In(1),
                "address": In(range(beats)),
                "query": In(data.ArrayLayout(16, lanes)),
                "o": Out(FP32),
                "o_valid": Out(1),
                "o_last": Out(1),
            },
        )

    def elaborate(self, platform):
        m = Module()
        tag = self.i.tag
        m.submodules.store = store = memory.Memory(shape=data.ArrayLayout(16, self.lanes), depth=self.beats, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(self.query),
            write.en.eq(self.load),
            read.addr.eq(tag.channel >> ceil_log2(self.lanes)),
        ]
        sums = self.products(m, read.data)
        latency, level = Fp16Product.latency, 0
        while len(sums) > 1:
            added = []
            for k in range(0, len(sums), 2):
                m.submodules[f"tree{level}_{k // 2}"] = adder = Fp32Adder()
                m.d.comb += [adder.a.eq(sums[k]), adder.b.eq(sums[k + 1])]
                added.append(adder.o)
            sums, level, latency = added, level + 1, latency + Fp32Adder.latency
        flags = _delay(m, Cat(self.i_valid, tag.token_last, tag.last, tag.channel == 0,
                              tag.channel >> ceil_log2(self.lanes) == 1), latency, "flags")  # fmt: skip
        valid, token_last, last, first, second = (flags[k] for k in range(5))
        # Each sum meets the one of two beats before, or starts; it may have come out of the adder long ago.
        odd = _delay(m, tag.channel[ceil_log2(self.lanes)], latency, "odd")
        m.submodules.running = running = Fp32Adder()
        came = _delay(m, Cat(valid, odd), Fp32Adder.latency, "came")
        kept = [Signal(32, name=f"kept{k}", reset_less=True) for k in range(2)]
        for k in range(2):
            with m.If(came[0] & (came[1] == k)):
                m.d.sync += kept[k].eq(running.o)
        now = Mux(came[0] & (came[1] == odd), running.o.as_value(), Mux(odd, kept[1], kept[0]))
        m.d.comb += [running.a.eq(sums[0]), running.b.eq(Mux(first | second, 0, now))]
        # The last beat's sum and the one of the beat before it, which a token of one beat lacks.
        alone = _delay(m, first, Fp32Adder.latency, "alone")
        m.submodules.together = together = Fp32Adder()
        before = Mux(came[1], kept[0], kept[1])
        m.d.comb += [together.a.eq(running.o), together.b.eq(Mux(alone, 0, before))]
        m.d.comb += self.o.eq(together.o)
        done = _delay(m, Cat(valid & token_last, last), 2 * Fp32Adder.latency, "done")
        m.d.comb += [self.o_valid.eq(done[0]), self.o_last.eq(done[1])]
        return m


class DequantizedSum(_Lanes):
    """P . V of FP16 values: an FP32 adder per lane and a running sum per channel, tokens in order.

    A beat per cycle without back-pressure, for tokens of at least 3 beats: sums are read, added in two cycles and
    written before the next token wants them.

    Members
    -------
    i, i_valid : Elements(lanes), In
    weight : FP16, In
        The probability of the beat's token.
    first : In
        The beat's token is the first: sums start from 0.
    o, o_valid, o_channel : FP32 per lane, Out
        The sums as they are written, and the channel of lane 0.
    """

    def __init__(self, lanes: int = 16, channels: int = 64):
        super().__init__(
            lanes,
            channels,
            {
                "weight": In(16),
                "first": In(1),
                "o": Out(data.ArrayLayout(32, lanes)),
                "o_valid": Out(1),
                "o_channel": Out(7),
            },
        )

    def elaborate(self, platform):
        m = Module()
        products = self.products(m, [self.weight] * self.lanes)
        place = self.i.tag.channel >> ceil_log2(self.lanes)
        m.submodules.sums = sums = memory.Memory(shape=32 * self.lanes, depth=self.beats, init=[])
        write, read = sums.write_port(), sums.read_port()
        m.d.comb += [read.addr.eq(place), read.en.eq(1)]
        first = _delay(m, self.first, Fp16Product.latency, "first")
        for lane, product in enumerate(products):
            m.submodules[f"adder{lane}"] = adder = Fp32Adder()
            old = read.data[32 * lane : 32 * lane + 32]
            m.d.comb += [adder.a.eq(product), adder.b.eq(Mux(first, 0, old)), self.o[lane].eq(adder.o)]
        latency = Fp16Product.latency + Fp32Adder.latency
        about = _delay(m, Cat(self.i_valid, self.i.tag.channel), latency, "about")
        m.d.comb += [
            write.addr.eq(about[1:] >> ceil_log2(self.lanes)),
            write.data.eq(self.o),
            write.en.eq(about[0]),
            self.o_valid.eq(about[0]),
            self.o_channel.eq(about[1:]),
        ]
        return m


class DequantizedRoute(wiring.Component):
    """Packed blocks to scores or value sums by dequantizing: a `KvDequantizer` and one pair of the above.

    Exact tokens do not pass through: they are FP16 in memory on this route and take as many beats as packed ones.

    Members
    -------
    i : stream of Beat(4 * lanes), In
        Blocks, keys or values.
    query : stream of words of ``lanes`` FP16 elements, In
        Taken in order from address 0 on; must be there before the first block.
    weights : stream of FP16, In
        A probability per row of a value block.
    scores, sums : streams, Out
        FP32 scores; sums with the channel of lane 0. Never wait.
    """

    def __init__(self, config: KvEngineConfig, *, values: bool):
        self.config, self.values = config, values
        lanes = config.lanes
        ports = {"i": In(stream.Signature(Beat(config.input_bits)))}
        if values:
            ports |= {
                "weights": In(stream.Signature(16)),
                "sums": Out(stream.Signature(data.StructLayout({"value": data.ArrayLayout(32, lanes), "channel": 7}))),
            }
        else:
            ports |= {
                "query": In(stream.Signature(data.ArrayLayout(16, lanes))),
                "scores": Out(stream.Signature(FP32)),
            }
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.engine = engine = KvDequantizer(config)
        wiring.connect(m, wiring.flipped(self.i), engine.i)
        tag = engine.o.payload.tag
        if self.values:
            m.submodules.lanes = lanes = DequantizedSum(config.lanes, config.max_channels)
            started = Signal()
            taken = engine.o.valid & self.weights.valid
            m.d.comb += [
                lanes.weight.eq(self.weights.payload),
                lanes.first.eq(~started),
                lanes.i_valid.eq(taken),
                engine.o.ready.eq(self.weights.valid),
                self.weights.ready.eq(engine.o.valid & tag.token_last),
                self.sums.valid.eq(lanes.o_valid),
                self.sums.payload.value.eq(lanes.o),
                self.sums.payload.channel.eq(lanes.o_channel),
            ]
            with m.If(taken & tag.token_last):
                m.d.sync += started.eq(1)
        else:
            m.submodules.lanes = lanes = DequantizedDot(config.lanes, config.max_channels)
            address = Signal.like(lanes.address)
            loaded = Signal()
            m.d.comb += [
                self.query.ready.eq(~loaded),
                lanes.load.eq(self.query.valid & ~loaded),
                lanes.address.eq(address),
                lanes.query.eq(self.query.payload),
                lanes.i_valid.eq(engine.o.valid & loaded),
                engine.o.ready.eq(loaded),
                self.scores.valid.eq(lanes.o_valid),
                self.scores.payload.eq(lanes.o),
            ]
            with m.If(lanes.load):
                m.d.sync += address.eq(address + 1)
                with m.If(address == lanes.beats - 1):
                    m.d.sync += loaded.eq(1)
        m.d.comb += lanes.i.eq(engine.o.payload)
        return m

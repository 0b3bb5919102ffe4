"""What a block's header says: is it legal here, and how many words come before the rows."""

from functools import reduce

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.arith.ripple import above, add
from hw.kv.layouts import ERROR_BITS, Header
from spec.kv_block import VERSION
from spec.kv_config import KvEngineConfig, KvError
from spec.kv_formats import KvFormat, KvMetadata

__all__ = ["HeaderRules", "has_minima", "is_ternary"]


def _any(value, codes):
    return reduce(lambda a, b: a | b, [value == int(code) for code in codes])


def is_ternary(config: KvEngineConfig, header) -> Value:
    """Whether a block that this build takes is of ternary digits."""
    return header.format == KvFormat.V158 if config.ternary else C(0, 1)


def has_minima(config: KvEngineConfig, header) -> Value:
    """Whether the channels of such a block's segment 0 have minima."""
    return (header.format == KvFormat.K2) | (header.format == KvFormat.V2) if config.minima else C(0, 1)


class HeaderRules(wiring.Component):
    """Judges a header but for its check; combinational.

    Parameters
    ----------
    config : KvEngineConfig

    Members
    -------
    header : Header, In
    misfit : In
        With ``centre``: the centre that is to be added is not one for so many channels.
    error : Out
        :class:`KvError` code, 0 for a header that this build can serve; the lowest of several.
    """

    def __init__(self, config: KvEngineConfig):
        self.config = config
        added = {"misfit": In(1)} if config.centre else {}
        super().__init__({"header": In(Header), "error": Out(ERROR_BITS)} | added)

    def elaborate(self, platform):
        m = Module()
        config, header = self.config, self.header
        size0, size = header.segment0, header.channels  # in groups of 8, minus 1
        two = Signal()
        m.d.comb += two.eq(size0 != size)

        centre = header.format == KvFormat.CENTRE
        transformable = _any(header.format, (KvFormat.K1, KvFormat.K2S, KvFormat.V158))
        on0, on1 = header.transform0 != 0, header.transform1 != 0
        absent = [code for code in range(1, 4) if code not in config.transforms]
        kinds = [code for code in range(1 << len(header.format)) if code not in {*config.formats, KvFormat.CENTRE}]
        forbidden = [
            _any(header.format, kinds),
            header.metadata == 3,
            (header.metadata == KvMetadata.F6) & ~transformable,
            *[_any(header[name], absent) for name in ("transform0", "transform1") if absent],
            on0 & ~transformable,
            on1 & ~two,
            two & ~_any(header.format, (KvFormat.K2, KvFormat.K2S)),
        ]
        if config.scale_bits < 11:
            forbidden.append((header.metadata == KvMetadata.FP16) & (on0 | on1))
        if config.centre:
            forbidden.append(centre & ((header.metadata != KvMetadata.FP16) | (header.rows != 0) | (header.span != 0)))
        else:
            forbidden.append(centre)

        size1 = Signal(4)  # groups of segment 1
        m.d.comb += size1.eq(size - size0)
        misfit = [above(m, size0, size)]
        if config.centre:
            misfit.append(self.misfit)
        if config.max_channels < 128:
            misfit.append(size >= config.max_channels // 8)
        if config.transforms:
            misfit += [
                on0 & ~_any(size0, (1, 3, 7, 15)),
                on1 & ~_any(size1, (2, 4, 8)),
                on1 & ~(size0[0] & (size0[1] | (size1 == 2))),
            ]

        # Only the last 1024 tokens can overflow: token + rows >= 2^20, or token + 64 span > 2^20.
        low = header.token[:6]
        in_rows = Signal()
        in_span = Signal(5)
        m.d.comb += [
            in_rows.eq(add(m, header.token[:7], header.rows)[7]),
            in_span.eq(add(m, header.token[6:10], header.span, low.any())),
        ]
        near, nearest = header.token[10:].all(), header.token[7:].all()
        overrun = Mux(header.span != 0, near & in_span[4] & in_span[:4].any(), nearest & in_rows)
        misplaced = [overrun, header.span[3] & header.span[:3].any(), (header.span == 1) & header.rows[6]]

        with m.If(header.version != VERSION):
            m.d.comb += self.error.eq(KvError.HEADER)
        with m.Elif(Cat(forbidden).any()):
            m.d.comb += self.error.eq(KvError.FORMAT)
        with m.Elif(Cat(misfit).any()):
            m.d.comb += self.error.eq(KvError.CHANNELS)
        with m.Elif(Cat(misplaced).any()):
            m.d.comb += self.error.eq(KvError.TOKEN)
        return m

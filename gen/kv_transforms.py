"""Area of the KV engine's inverse transforms on their own, beside the arithmetic that plain lanes would have."""

from collections.abc import Callable
from functools import partial

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Component, In, Out

from hw.kv.rfft import InverseRfft
from hw.kv.values import ValueArithmetic, multiple_of
from hw.kv.wht import InverseWht
from hw.spec.kv_config import KvEngineConfig
from hw.spec.kv_formats import KvTransform

__all__ = ["PREFIX", "PlainArithmetic", "table", "transform_designs"]

PREFIX = "transform_"
"""Of the keys of :func:`transform_designs`."""
WHT_LANES = (16, 32)
RFFT_LANES = 4


class PlainArithmetic(wiring.Component):
    """What :class:`hw.kv.plain.PlainLanes` has in its lanes by way of arithmetic, without memories and control.

    Parameters
    ----------
    lanes : int
    sums : bool
        With the addition of the minimum, normalization and rounding; without: the product of code and scale alone.

    Members
    -------
    codes, significands, exponents, minima, ternary, one_bit, affine, step : In
    values, beyond : Out
    """

    def __init__(self, lanes: int, sums: bool):
        self.lanes, self.sums = lanes, sums
        super().__init__(
            {
                "codes": In(data.ArrayLayout(2, lanes)),
                "significands": In(data.ArrayLayout(11, lanes)),
                "exponents": In(data.ArrayLayout(5, lanes)),
                "minima": In(data.ArrayLayout(16, lanes)),
                "ternary": In(1),
                "one_bit": In(1),
                "affine": In(1),
                "step": In(1),
                "values": Out(data.ArrayLayout(16, lanes)),
                "beyond": Out(lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for k in range(self.lanes):
            multiplier, negative = multiple_of(m, self.codes[k], self.one_bit, self.affine, self.ternary)
            significand = self.significands[k]
            if not self.sums:
                twice = Mux(multiplier[1], significand << 1, 0)
                product = Signal(13, name=f"product{k}")
                m.d.comb += [
                    product.eq(Mux(multiplier[0], significand, 0) + twice),
                    self.values[k].eq(product),
                    self.beyond[k].eq(negative),
                ]
                continue
            m.submodules[f"lane{k}"] = arithmetic = ValueArithmetic(registered=True)
            m.d.comb += [
                arithmetic.significand.eq(significand),
                arithmetic.exponent.eq(self.exponents[k]),
                arithmetic.multiplier.eq(multiplier),
                arithmetic.negative.eq(negative),
                arithmetic.affine.eq(self.affine),
                arithmetic.minimum.eq(self.minima[k]),
                arithmetic.step.eq(self.step),
                self.values[k].eq(arithmetic.value),
                self.beyond[k].eq(arithmetic.beyond),
            ]
        return m


def transform_designs() -> dict[str, tuple[str, int, Callable[[], Component]]]:
    """What is measured: key to (name, lanes, what makes the component)."""
    found = {}
    for lanes in WHT_LANES:
        config = KvEngineConfig(lanes=lanes, transforms={KvTransform.WHT})
        found[f"wht_{lanes}"] = "wht", lanes, partial(InverseWht, config)
        found[f"multiply_adds_{lanes}"] = (
            "plain lanes: multiply-adds",
            lanes,
            partial(PlainArithmetic, lanes, sums=True),
        )
        found[f"products_{lanes}"] = (
            "plain lanes: of these, the products",
            lanes,
            partial(PlainArithmetic, lanes, sums=False),
        )
    wide = KvEngineConfig(lanes=WHT_LANES[0], transforms={KvTransform.WHT}, scale_bits=11)
    found[f"wht_{WHT_LANES[0]}_wide"] = "wht, scale_bits = 11", WHT_LANES[0], partial(InverseWht, wide)
    config = KvEngineConfig(lanes=RFFT_LANES, transforms={KvTransform.RFFT})
    found[f"rfft_{RFFT_LANES}"] = "rfft", RFFT_LANES, partial(InverseRfft, config)
    return {PREFIX + key: entry for key, entry in found.items()}


def table(rows: list[dict]) -> str:
    """The rows of :func:`transform_designs` as Markdown."""
    rows = [row for row in rows if row["key"].startswith(PREFIX)]
    first = rows[0]
    lines = [
        f"{first['library']}, {'one quick variant' if first['quick'] else 'best of the recipe'}, delay by "
        f"{first['delay_tool']}. Blocks on their own, n up to 128; memory bits are apart.",
        "",
        "| | lanes | gate equivalents | per lane | flip-flops | memory bits | delay ps |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        gates, lanes = row["gate_equivalents"], row["lanes"]
        lines.append(
            f"| {row['name']} | {lanes} | {gates:,.0f} | {gates / lanes:,.0f} | {row['flipflops']:,} | "
            f"{row['memory_bits']:,} | {row['delay_ps']:,.0f} |"
        )
    return "\n".join(lines)

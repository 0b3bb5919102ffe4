"""Area of the KV engine's inverse transforms on their own, beside the arithmetic that plain lanes would have."""

from collections.abc import Callable
from functools import partial

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Component, In, Out

from hw.kv.transforms.rfft import InverseRfft
from hw.kv.transforms.wht import InverseWht
from hw.kv.values.value_unit import ValueArithmetic, multiple_of
from spec import checks
from spec.kv_config import KvEngineConfig
from spec.kv_formats import KvTransform
from studies.kv.multiply_add import Fp16MultiplyAdd, fp16_factor

__all__ = ["PARTS", "PREFIX", "PlainArithmetic", "table", "transform_designs"]

PREFIX = "transform_"
"""Of the keys of :func:`transform_designs`."""
WHT_LANES = (16, 32)
RFFT_LANES = 4
PARTS = {
    "products": "of these, the products",
    "multiply_adds": "multiply-adds of a 2-bit code",
    "fp16_multiply_adds": "FP16 multiply-adds, the code as a number",
    "fp16_multiply_adds_any": "FP16 multiply-adds, any factor",
}
"""What :class:`PlainArithmetic` can be, and its name in the table."""


class PlainArithmetic(wiring.Component):
    """What :class:`studies.kv.plain.PlainLanes` has in its lanes by way of arithmetic, without memories and control.

    Parameters
    ----------
    lanes : int
    part : str
        Key of :data:`PARTS`. ``products``: of code and scale alone; ``multiply_adds``: with the addition of the
        minimum, normalization and rounding; ``fp16_multiply_adds``: by :class:`studies.kv.multiply_add.Fp16MultiplyAdd`
        behind a code made an FP16 number, of whose bits most are known to be 0, so that synthesis leaves half of the
        multiplier out; ``fp16_multiply_adds_any``: with ``factors`` instead of codes.

    Members
    -------
    factors, codes, significands, exponents, minima, ternary, one_bit, affine, step : In
    values, beyond : Out
    """

    def __init__(self, lanes: int, part: str):
        checks.choice("part", part, PARTS)
        self.lanes, self.part = lanes, part
        super().__init__(
            {
                "factors": In(data.ArrayLayout(16, lanes)),
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
            significand, exponent, minimum = self.significands[k], self.exponents[k], self.minima[k]
            if self.part == "products":
                twice = Mux(multiplier[1], significand << 1, 0)
                product = Signal(13, name=f"product{k}")
                m.d.comb += [
                    product.eq(Mux(multiplier[0], significand, 0) + twice),
                    self.values[k].eq(product),
                    self.beyond[k].eq(negative),
                ]
                continue
            if self.part == "multiply_adds":
                arithmetic = ValueArithmetic()
                m.d.comb += [
                    arithmetic.significand.eq(significand),
                    arithmetic.exponent.eq(exponent),
                    arithmetic.multiplier.eq(multiplier),
                    arithmetic.negative.eq(negative),
                    arithmetic.affine.eq(self.affine),
                    arithmetic.minimum.eq(minimum),
                ]
            else:
                arithmetic = Fp16MultiplyAdd()
                any_factor = self.part == "fp16_multiply_adds_any"
                m.d.comb += [
                    arithmetic.a.eq(self.factors[k] if any_factor else fp16_factor(multiplier, negative)),
                    arithmetic.b.eq(Cat(significand[:10], exponent)),
                    arithmetic.c.eq(minimum & self.affine.replicate(16)),
                ]
            m.submodules[f"lane{k}"] = arithmetic
            m.d.comb += [
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
        for part in ("multiply_adds", "products", "fp16_multiply_adds", "fp16_multiply_adds_any"):
            found[f"{part}_{lanes}"] = f"plain lanes: {PARTS[part]}", lanes, partial(PlainArithmetic, lanes, part)
    wide = KvEngineConfig(lanes=WHT_LANES[0], transforms={KvTransform.WHT}, scale_bits=11)
    found[f"wht_{WHT_LANES[0]}_wide"] = "wht, scale_bits = 11", WHT_LANES[0], partial(InverseWht, wide)
    config = KvEngineConfig(lanes=RFFT_LANES, transforms={KvTransform.RFFT})
    found[f"rfft_{RFFT_LANES}"] = "rfft", RFFT_LANES, partial(InverseRfft, config)
    return {PREFIX + key: entry for key, entry in found.items()}


def area_table(rows: list[dict], note: str, *, total: bool) -> str:
    """Areas as Markdown, below the recipe and ``note``; with ``total``, memory bits counted as gate equivalents too."""
    first = rows[0]
    titles = ["", "lanes", "gate equivalents", "per lane", "flip-flops", "memory bits", *["total"] * total, "delay ps"]
    lines = [
        f"{first['library']}, {'one quick variant' if first['quick'] else 'best of the recipe'}, delay by "
        f"{first['delay_tool']}. {note}",
        "",
        "| " + " | ".join(titles).lstrip() + " |",
        "|---|" + "---:|" * (len(titles) - 1),
    ]
    for row in rows:
        gates, lanes, bits = row["gate_equivalents"], row["lanes"], row["memory_bits"]
        numbers = [lanes, gates, gates / lanes, row["flipflops"], bits, *[gates + bits] * total, row["delay_ps"]]
        lines.append(f"| {row['name']} | " + " | ".join(f"{number:,.0f}" for number in numbers) + " |")
    return "\n".join(lines)


def table(rows: list[dict]) -> str:
    """The rows of :func:`transform_designs` as Markdown."""
    rows = [row for row in rows if row["key"].startswith(PREFIX)]
    return area_table(rows, "Blocks on their own, n up to 128; memory bits are apart.", total=False)

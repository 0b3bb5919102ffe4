"""Names in emitted Verilog: none is a keyword of a language that its reader may be set to.

`test_presets.py` looks at every top with `keywords_in`.
"""

import re

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from gen.keywords import KEYWORDS
from gen.verilog import to_verilog

DECLARED = re.compile(
    r"^  (?:input|output|inout|wire|reg)(?: signed)? (?:\[[^]]+\] )?(\\\S+|\w+) ?(?:\[|;)", re.MULTILINE
)


def keywords_in(verilog: str) -> list[str]:
    """Ports, wires and registers called like a keyword, escaped ones too, since another tool may drop the escape; and
    those that have no name of their own, as where one statement makes several signals."""
    names = [(name, name.removeprefix("\\")) for name in DECLARED.findall(verilog)]
    return [name for name, plain in names if plain.lower() in KEYWORDS or plain.startswith("$signal")]


@pytest.mark.parametrize("word", ["units", "release", "byte", "generic", "signal", "uwire", "logic"])
def test_words_of_each_language_are_known(word):
    assert word in KEYWORDS


def test_a_keyword_gets_an_underscore_and_never_another_net_s_name():
    class Block(wiring.Component):
        def __init__(self, *names):
            super().__init__({"group": In(2), "o": Out(2)})
            self.names = names

        def elaborate(self, platform):
            m = Module()
            signals = [Signal(2, name=name) for name in self.names]
            for signal, source in zip(signals, [self.group, *signals], strict=False):
                m.d.sync += signal.eq(source)
            m.d.comb += self.o.eq(signals[-1])
            return m

    text, ports = to_verilog(Block("release"), "block_top")
    assert [port["name"] for port in ports if port["width"] == 2] == ["group_", "o"]
    assert "release_" in text
    assert not keywords_in(text)
    with pytest.raises(ValueError, match="release_"):
        to_verilog(Block("release", "release_"), "block_top")


@pytest.mark.parametrize(
    ("line", "name"),
    [("  wire [3:0] units;", "units"), ("  reg \\release ;", "\\release"), ("  reg \\$signal$7 ;", "\\$signal$7")],
)
def test_declarations_are_found(line, name):
    assert keywords_in(line) == [name]

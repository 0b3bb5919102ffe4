"""The synthesis recipe: known numbers, memories apart from gates, a cache that is never stale, errors in words."""

import json
import os
import re
from dataclasses import replace

import pytest

from gen.synth import generic
from gen.synth import run as synth
from gen.synth import timing as synth_timing
from gen.synth.liberty import generic_library, load_library
from gen.synth.recipe import QUICK, VARIANTS, Variant, recipe_hash
from gen.synth.run import SynthesisError, measure, synthesize
from gen.verilog import to_verilog
from verif.gen.test_liberty import library_or_skip
from verif.gen.toys import Adder, Buffer

ADDER = """
module add(input clk, input [29:0] a, input [29:0] b, output reg [29:0] y);
reg [29:0] ra, rb;
always @(posedge clk) begin ra <= a; rb <= b; y <= ra + rb; end
endmodule
"""


def opensta_or_skip() -> None:
    if synth_timing.delay_tool()[0] != synth_timing.OPENSTA:
        pytest.skip("OpenSTA (`sta`) is not installed")


def buffer(tmp_path, **parameters) -> synth.SynthResult:
    verilog, _ports = to_verilog(Buffer(**parameters), "buffer")
    return synthesize(verilog, "buffer", generic_library(), variants=QUICK, cache_dir=tmp_path)


def test_adder_in_sky130hd(tmp_path):
    opensta_or_skip()
    library = library_or_skip("sky130hd")
    ends = (Variant("none", "default"), Variant("kogge-stone", "dch"))
    result = synthesize(ADDER, "add", library, variants=ends, cache_dir=tmp_path)
    stock, best = result.all_variants
    assert stock.delay_ps == pytest.approx(5200, rel=0.03)
    assert best.delay_ps == pytest.approx(2600, rel=0.03)
    assert result.variant == "kogge-stone/dch"
    assert (result.flipflops, result.memory_bits) == (90, 0)
    assert result.area_um2 == pytest.approx(result.gate_equivalents * 3.7536, abs=0.02)
    assert re.fullmatch(r"r[ab]\[\d+\]", result.path_from)
    assert re.fullmatch(r"y\[\d+\]", result.path_to)


def test_asap7_flipflops_and_forbidden_cells(tmp_path):
    library = library_or_skip("asap7")
    result = synthesize(ADDER, "add", library, variants=QUICK, cache_dir=tmp_path)
    assert result.flipflops == 90
    assert result.gate_equivalents * 0.08748 == pytest.approx(result.area_um2, abs=0.001)
    # An order of magnitude faster than sky130hd in the library's own unit, which is ps there and ns here.
    assert 300 < result.delay_ps < 700


def test_best_is_least_area_times_delay(tmp_path):
    result = measure(Adder(12), "generic", "all", cache_dir=tmp_path)
    assert [v.variant for v in result.all_variants] == [str(v) for v in VARIANTS]
    products = {v.variant: v.gate_equivalents * v.delay_ps for v in result.all_variants}
    assert min(products, key=products.get) == result.variant
    assert len(set(products.values())) > 1
    assert result.flipflops == 36
    assert result.area_um2 is None


def test_memory_is_counted_in_bits_and_not_in_gates(tmp_path):
    small, large = buffer(tmp_path, depth=16, width=8), buffer(tmp_path, depth=16, width=32)
    assert (small.memory_bits, large.memory_bits) == (128, 512)
    assert small.memories == ({"name": "store", "depth": 16, "width": 8, "ports": 2},)
    # The address adder stays, though nothing but the memory uses it; the width of the memory costs no gate.
    assert small.gate_equivalents == large.gate_equivalents > 10
    assert small.flipflops == 0
    assert small.delay_ps > 0
    assert large.gate_equivalents_with_memory == pytest.approx(large.gate_equivalents + 512)


def test_flipflop_arrays_are_no_memory(tmp_path):
    result = buffer(tmp_path, depth=16, width=8, flipflops=True)
    assert (result.memory_bits, result.memories) == (0, ())
    assert result.flipflops == 16 * 8 + 8
    assert result.gate_equivalents > 5 * result.flipflops


def test_second_run_starts_no_process(tmp_path, monkeypatch):
    first = measure(Adder(), "generic", cache_dir=tmp_path)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a cached result was made again")

    verilog, _ports = to_verilog(Adder(), "adder")
    monkeypatch.setattr(synth, "_run_variant", refuse)
    library = generic_library()
    assert synthesize(verilog, "adder", library, variants=QUICK, cache_dir=tmp_path) == first
    for changed in (
        {"design": verilog + "\n"},
        {"library": replace(library, sha256="0" * 64)},
        {"library": replace(library, target_ps=library.target_ps + 1)},
        {"variants": (Variant("none", "dch"),)},
    ):
        given = {"design": verilog, "library": library, "variants": QUICK, **changed}
        with pytest.raises(AssertionError, match="made again"):
            synthesize(given["design"], "adder", given["library"], variants=given["variants"], cache_dir=tmp_path)


def test_a_library_changed_in_place_is_read_again(tmp_path):
    path = tmp_path / "cells.lib"
    path.write_text(generic.liberty())
    before = synthesize(ADDER, "add", load_library([path]), variants=QUICK, cache_dir=tmp_path)
    # Without exclusive-ors, which any adder takes where it can: a stale copy would name cells that are gone.
    path.write_text(re.sub(r"  cell \(X\w+\) \{.*?\n  \}\n", "", generic.liberty(), flags=re.DOTALL))
    os.utime(path, (0, 0))
    after = synthesize(ADDER, "add", load_library([path]), variants=QUICK, cache_dir=tmp_path)
    assert after.gate_equivalents > before.gate_equivalents
    assert after.library_hash != before.library_hash


def test_recipe_hash_is_of_choices_not_of_places(tmp_path):
    copy = tmp_path / "copy.lib"
    copy.write_text(generic.liberty())
    here, there = generic_library(), load_library([copy])
    assert recipe_hash(here, VARIANTS) == recipe_hash(there, VARIANTS) != recipe_hash(here, QUICK)
    assert recipe_hash(here, VARIANTS) != recipe_hash(load_library([copy], target_ps=5), VARIANTS)


def test_without_opensta_abc_tells_the_delay(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    synth_timing.delay_tool.cache_clear()
    try:
        result = synthesize(ADDER, "add", generic_library(), variants=QUICK, cache_dir=tmp_path)
    finally:
        monkeypatch.undo()
        synth_timing.delay_tool.cache_clear()
    assert (result.delay_tool, result.path_from) == ("ABC stime", "")
    assert 100 < result.delay_ps < 2000


def test_design_without_flipflops_is_timed_from_input_to_output(tmp_path):
    opensta_or_skip()
    text = "module sum(input [7:0] a, input [7:0] b, output [8:0] y); assign y = a + b; endmodule"
    result = synthesize(text, "sum", generic_library(), variants=QUICK, cache_dir=tmp_path)
    assert result.flipflops == 0
    assert result.delay_ps > 50
    assert re.fullmatch(r"[ab]\[\d\]", result.path_from)
    assert re.fullmatch(r"y\[\d\]", result.path_to)


def test_nets_named_like_port_bits_are_timed(tmp_path):
    """Amaranth calls the elements of an array port `port[0]`, as the bits of the port will be called."""
    opensta_or_skip()
    text = r"module m(input [1:0] a, output y); wire \a[0] = a[1]; assign y = a[0] ^ \a[0] ; endmodule"
    result = synthesize(text, "m", generic_library(), variants=QUICK, cache_dir=tmp_path)
    assert result.delay_ps > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("module add(; endmodule", "add, .*syntax error"),
        ("module other(input a, output y); assign y = a; endmodule", "add, .*add.* not found"),
        ("module add(input a, input e, output reg y); always @* if (e) y = a; endmodule", "latches are not supported"),
        (
            "(* blackbox *) module macro(input a, output y); endmodule\n"
            "module add(input a, output y); macro m(.a(a), .y(y)); endmodule",
            "the library has no cell for macro",
        ),
    ],
)
def test_designs_that_cannot_be_synthesized(tmp_path, text, message):
    with pytest.raises(SynthesisError, match=message):
        synthesize(text, "add", generic_library(), variants=QUICK, cache_dir=tmp_path / "cache")
    assert not list(tmp_path.rglob("*.json"))


def test_design_without_gates(tmp_path):
    text = "module wire1(input a, output y); assign y = a; endmodule"
    result = synthesize(text, "wire1", generic_library(), variants=QUICK, cache_dir=tmp_path)
    assert (result.gate_equivalents, result.flipflops, result.delay_ps) == (0, 0, 0)


def test_design_files(tmp_path):
    path = tmp_path / "add.v"
    path.write_text(ADDER)
    library = generic_library()
    result = synthesize([path], "add", library, variants=QUICK, cache_dir=tmp_path)
    assert result == synthesize(path, "add", library, variants=QUICK, cache_dir=tmp_path)
    assert result.design_hash == synthesize(ADDER, "add", library, variants=QUICK, cache_dir=tmp_path).design_hash
    for wrong, message in [(tmp_path / "absent.v", "no such design file"), (tmp_path / "add.vhd", "must end in")]:
        with pytest.raises(SynthesisError, match=message):
            synthesize(wrong, "add", library, cache_dir=tmp_path)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="variants must be one of quick, all, not 'best'"):
        measure(None, "generic", "best")
    with pytest.raises(ValueError, match="adder must be one of none, kogge-stone, han-carlson, not 'ripple'"):
        Variant("ripple", "dch")
    with pytest.raises(ValueError, match="mapper must be one of default, dch, not 'fast'"):
        Variant("none", "fast")


def test_cached_results_are_plain_json(tmp_path):
    measure(Adder(), "generic", cache_dir=tmp_path)
    (entry,) = tmp_path.glob("*.json")
    assert json.loads(entry.read_text())["flipflops"] == 18
